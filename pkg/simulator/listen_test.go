package simulator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client trusts nothing but the listener's own certificate.
func client(t *testing.T, l *Listener, name string) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if l.CertPEM != nil && !pool.AppendCertsFromPEM(l.CertPEM) {
		t.Fatal("no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// answer is what matters of a response.
type answer struct {
	status, proto int
	date, body    string
}

func fetch(c *http.Client, method, url, body string) (answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.ProtoMajor, resp.Header.Get("Date"), string(data)}, err
}

func TestListen(t *testing.T) {
	s := New(Config{MACs: []string{macA, macB}, BootLoop: time.Hour})
	defer s.Close()
	l, err := s.Listen(t.Context(), "127.0.0.1:0", ListenOptions{Names: []string{"plunder01"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "plunder01"} {
		resp, err := fetch(client(t, l, name), "GET", l.URL()+"/dhcp/unleased", "")
		if err != nil || resp.proto != 2 || resp.date == "" || !strings.Contains(resp.body, macA) {
			t.Errorf("%q: %v %+v", name, err, resp)
		}
	}
	if _, err := fetch(client(t, l, "elsewhere"), "GET", l.URL()+"/config", ""); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("another name: %v", err)
	}
	c := client(t, l, "")
	const post = `{"mac":"` + macA + `","bootConfigName":"preseed","config":{"address":"` + ipA + `"}}`
	if _, err := fetch(c, "POST", l.URL()+"/deployment", post); err == nil {
		t.Error("a handler that died half way gave an answer")
	}
	if resp, err := fetch(c, "POST", l.URL()+"/deployment", post); err != nil || resp.body != "{}\n" {
		t.Errorf("%v %s", err, resp.body)
	}
	if resp, err := fetch(c, "PUT", l.URL()+"/deployment", post); err != nil || resp.status != http.StatusMethodNotAllowed {
		t.Errorf("%v %+v", err, resp)
	}
	if _, err := s.Listen(t.Context(), "127.0.0.1", ListenOptions{}); err == nil {
		t.Error("an address without port was taken")
	}
	if _, err := s.Listen(t.Context(), "127.0.0.1:"+strings.TrimPrefix(l.URL(), "https://127.0.0.1:"), ListenOptions{}); err == nil {
		t.Error("the same port twice")
	}
}

// While the server is down its port refuses connections, and then it is back.
func TestListenThroughACrash(t *testing.T) {
	s := New(Config{BootLoop: time.Hour})
	defer s.Close()
	l, err := s.Listen(t.Context(), "127.0.0.1:0", ListenOptions{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, l, "")
	if resp, err := fetch(c, "GET", l.URL()+"/deployments", ""); err != nil || !strings.Contains(resp.body, `"deployments":null`) {
		t.Fatalf("%v %s", err, resp.body)
	}
	s.Crash(300 * time.Millisecond)
	if _, err := fetch(c, "GET", l.URL()+"/deployments", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("while it is down: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := fetch(c, "GET", l.URL()+"/deployments", ""); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not come back")
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := fetch(c, "GET", l.URL()+"/deployments", ""); err == nil {
		t.Error("a closed port answers")
	}
}

func TestCertificateForEveryName(t *testing.T) {
	s := New(Config{BootLoop: time.Hour})
	l, err := s.Listen(t.Context(), "0.0.0.0:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := fetch(client(t, l, "127.0.0.1"), "GET", l.URL()+"/config", ""); err != nil || resp.status != http.StatusOK {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Listen(t.Context(), "127.0.0.1:0", ListenOptions{}); err == nil {
		t.Error("a closed server listens")
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://plunder/config", nil)
	if _, err := s.RoundTrip(req); !errors.Is(err, syscall.ECONNREFUSED) { //nolint:bodyclose // there is none
		t.Errorf("a closed server: %v", err)
	}
}
