package simulator

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ListenOptions are how a port is opened.
type ListenOptions struct {
	// Names are host names and IP addresses that the certificate is for, beside the
	// address itself (all of this machine's when that is 0.0.0.0 or ::).
	Names []string
	// Insecure speaks plain http, as a server started with --insecure.
	Insecure bool
}

// Listener is an open port of the server.
type Listener struct {
	// Address and Port are what a client has to know, and CertPEM the certificate to
	// pin: the content of plunderclient.yaml. No certificate for plain http.
	Address string
	Port    int
	CertPEM []byte

	s    *Server
	addr string // host:port
	tls  *tls.Config

	mu     sync.Mutex
	closed bool
	server *http.Server // nil while the simulated server is down
	resume *time.Timer
	done   sync.WaitGroup
}

// Listen opens a port: "127.0.0.1:60443"; port 0 takes a free one. It speaks TLS
// (HTTP/2 too) with a certificate as plunder makes them: a leaf for the server's
// own names and addresses, valid for ten years, whose CA nobody has. While the
// server is down after a crash, the port is closed.
func (s *Server) Listen(ctx context.Context, addr string, opts ListenOptions) (*Listener, error) {
	hostPart, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w; want ADDRESS:PORT", addr, err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on %s: not TCP", addr), ln.Close())
	}
	l := &Listener{s: s, Address: hostPart, Port: tcp.Port, addr: net.JoinHostPort(hostPart, strconv.Itoa(tcp.Port))}
	if tcp.IP.IsUnspecified() || l.Address == "" {
		l.Address = "127.0.0.1"
	}
	if !opts.Insecure {
		names := append([]string{hostPart, l.Address}, opts.Names...)
		if tcp.IP.IsUnspecified() {
			names = append(names, ownNames()...)
		}
		var cert tls.Certificate
		if cert, l.CertPEM, err = newCertificate(names, time.Now()); err != nil {
			return nil, errors.Join(fmt.Errorf("certificate for %s: %w", addr, err), ln.Close())
		}
		l.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(errors.New("the simulator is closed"), ln.Close())
	}
	s.listeners = append(s.listeners, l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(ln)
	return l, nil
}

// URL is where the server is.
func (l *Listener) URL() string {
	scheme := "https://"
	if l.tls == nil {
		scheme = "http://"
	}
	return scheme + net.JoinHostPort(l.Address, strconv.Itoa(l.Port))
}

// serve answers on ln. Call with mu held.
func (l *Listener) serve(ln net.Listener) {
	srv := &http.Server{
		Handler: l.s, TLSConfig: l.tls.Clone(), ReadHeaderTimeout: 30 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // clients that do not like the certificate are not our news
	}
	l.server = srv
	l.done.Go(func() {
		// Both only return when the server is closed, or the port is broken.
		if l.tls == nil {
			_ = srv.Serve(ln)
		} else {
			_ = srv.ServeTLS(ln, "", "")
		}
	})
}

// pause closes the port and all connections, and opens it again after a while.
func (l *Listener) pause(down time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.server != nil {
		_ = l.server.Close()
		l.server = nil
	}
	if l.resume != nil {
		l.resume.Stop()
	}
	l.resume = time.AfterFunc(max(0, down), l.reopen)
}

func (l *Listener) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.server != nil {
		return
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", l.addr)
	if err != nil { // somebody took the port, or the system has not let go of it yet
		l.resume = time.AfterFunc(100*time.Millisecond, l.reopen)
		return
	}
	l.serve(ln)
}

// Close closes the port and its connections.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	srv := l.server
	l.server = nil
	if l.resume != nil {
		l.resume.Stop()
	}
	l.mu.Unlock()
	var err error
	if srv != nil {
		err = srv.Close()
	}
	l.done.Wait()
	return err
}

// ownNames are the addresses of this machine, and its name.
func ownNames() []string {
	var names []string
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				names = append(names, n.IP.String())
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	return names
}

// newCertificate makes a leaf certificate, signed by a CA that is thrown away.
func newCertificate(names []string, now time.Time) (tls.Certificate, []byte, error) {
	subject := pkix.Name{Organization: []string{"Plunder (simulated)"}}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Plunder (simulated) CA"}}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(10, 0, 0),
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else if n != "" {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	var out bytes.Buffer
	if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, out.Bytes(), nil
}
