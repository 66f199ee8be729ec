package plunder

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// certificate makes a self-signed one as plunder does: no authority, the
// server's addresses and one host name.
func certificate(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{Organization: []string{"plunder"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"rack1"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text
}

// startTLS starts srv with a certificate of its own and connects a client.
func startTLS(t *testing.T, srv *httptest.Server, opts ...Option) *Client {
	t.Helper()
	cert, text := certificate(t, nil)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.Config.ErrorLog = discardLog()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, err := New(configFor(t, srv, text), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func configFor(t *testing.T, srv *httptest.Server, cert string) Config {
	t.Helper()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return Config{Address: u.Hostname(), Port: port, Cert: cert, Path: "/etc/plunderclient.yaml"}
}

func TestCertificates(t *testing.T) {
	stranger := func(t *testing.T) string {
		t.Helper()
		_, text := certificate(t, nil)
		return text
	}
	for name, tc := range map[string]struct {
		change func(*x509.Certificate)
		pinned func(t *testing.T) string
		host   string
		want   []string // nil: it fits
	}{
		"good": {},
		"good by name": {
			change: func(c *x509.Certificate) { c.DNSNames = []string{"localhost"}; c.IPAddresses = nil },
			host:   "localhost",
		},
		"expired": {
			change: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Date(2010, 1, 2, 3, 4, 0, 0, time.UTC), time.Date(2020, 1, 2, 3, 4, 0, 0, time.UTC)
			},
			want: []string{"it expired at 2020-01-02 03:04 UTC", "for rack1, 127.0.0.1, valid from 2010-01-02 03:04 UTC to 2020-01-02 03:04 UTC", "make a new one", "/etc/plunderclient.yaml"},
		},
		"not yet valid": {
			change: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(48*time.Hour), time.Now().Add(96*time.Hour)
			},
			want: []string{"it is not valid yet", "the clock here says", "set the clock that is wrong", "for rack1, 127.0.0.1"},
		},
		"another key": {
			pinned: stranger,
			want:   []string{"shows another certificate (for rack1, 127.0.0.1, valid from", "than the one in /etc/plunderclient.yaml (for rack1", "something else answers at 127.0.0.1:"},
		},
		"another key, and expired": {
			change: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-96*time.Hour), time.Now().Add(-48*time.Hour)
			},
			pinned: stranger,
			want:   []string{"shows another certificate"},
		},
		"name not in it": {
			host: "localhost",
			want: []string{"localhost is not one of the names in it (for rack1, 127.0.0.1, valid from", "use one of them as address in /etc/plunderclient.yaml or with --url"},
		},
		"address not in it": {
			change: func(c *x509.Certificate) { c.IPAddresses = nil },
			want:   []string{"127.0.0.1 is not one of the names in it (for rack1, valid from"},
		},
		"no names at all": {
			change: func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, nil },
			want:   []string{"127.0.0.1 is not one of the names in it (without names, valid from"},
		},
		"not for servers": {
			change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			want:   []string{"incompatible key usage", "make a new one"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, text := certificate(t, tc.change)
			if tc.pinned != nil {
				text = tc.pinned(t)
			}
			f := newFake()
			srv := httptest.NewUnstartedServer(f)
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			srv.Config.ErrorLog = discardLog()
			srv.StartTLS()
			defer srv.Close()
			cfg := configFor(t, srv, text)
			if tc.host != "" {
				cfg.Address = tc.host
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()

			started := time.Now()
			_, err = c.ServerConfig(t.Context())
			if len(tc.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, wire.ErrCertificate) {
				t.Fatalf("got %v, want ErrCertificate", err)
			}
			for _, kind := range []error{wire.ErrUnreachable, wire.ErrNoAnswer, wire.ErrProtocol} {
				if errors.Is(err, kind) {
					t.Errorf("it is also: %v", kind)
				}
			}
			for _, s := range append(tc.want, c.URL(), "GET /api/config/GET") {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in: %v", s, err)
				}
			}
			if strings.Contains(err.Error(), text) {
				t.Errorf("shows the certificate: %v", err)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("took %s: tried again?", took)
			}
			if len(f.calls)+len(f.lookups) != 0 {
				t.Error("a request went to a server that was not recognised")
			}
		})
	}
}

func TestSchemeMismatch(t *testing.T) {
	_, text := certificate(t, nil)
	t.Run("https to http", func(t *testing.T) {
		srv := httptest.NewServer(newFake())
		defer srv.Close()
		c, err := New(configFor(t, srv, text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ServerConfig(t.Context())
		if !errors.Is(err, wire.ErrProtocol) || !strings.Contains(err.Error(), "--url http://"+c.base.Host+" --insecure-http") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("http to https", func(t *testing.T) {
		srv := httptest.NewUnstartedServer(newFake())
		srv.Config.ErrorLog = discardLog()
		srv.StartTLS()
		defer srv.Close()
		c, err := New(Config{URL: strings.Replace(srv.URL, "https", "http", 1), AllowHTTP: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ServerConfig(t.Context())
		if !errors.Is(err, wire.ErrProtocol) || !strings.Contains(err.Error(), "use https://") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("http to http", func(t *testing.T) {
		srv := httptest.NewServer(newFake())
		defer srv.Close()
		c, err := New(Config{URL: srv.URL + "/", AllowHTTP: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err = c.ServerConfig(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("TLS of the past", func(t *testing.T) {
		cert, text := certificate(t, nil)
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
		srv.Config.ErrorLog = discardLog()
		srv.StartTLS()
		defer srv.Close()
		c, err := New(configFor(t, srv, text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ServerConfig(t.Context())
		if !errors.Is(err, wire.ErrProtocol) || !strings.Contains(err.Error(), "handshake") {
			t.Errorf("got %v", err)
		}
	})
}
