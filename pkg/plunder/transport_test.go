package plunder

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A server whose machine vanishes closes nothing: its connections just go
// silent. The pings of HTTP/2 notice, and the GET goes on over a new connection
// long before its deadline.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, text := certificate(t, nil)
		pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := &http.Server{Handler: newFake(), ErrorLog: discardLog(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
		served := make(chan struct{})
		go func() { _ = srv.ServeTLS(pipes, "", ""); close(served) }()

		c, err := New(Config{Address: "127.0.0.1", Cert: text})
		if err != nil {
			t.Fatal(err)
		}
		var silent atomic.Pointer[atomic.Bool] // of the newest connection
		dials := 0
		c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			ours, theirs := net.Pipe()
			conn := &mutableConn{Conn: ours, silent: &atomic.Bool{}, closed: make(chan struct{})}
			silent.Store(conn.silent)
			select {
			case pipes.conns <- theirs:
				return conn, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if _, err := c.ServerConfig(t.Context()); err != nil {
			t.Fatal(err)
		}
		silent.Load().Store(true)
		started := time.Now()
		if _, err := c.ServerConfig(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took > 21*time.Second || took < 15*time.Second {
			t.Errorf("took %s, want 20s: 15s without a frame, 5s without a pong", took)
		}
		if dials != 2 {
			t.Errorf("%d connections, want 2", dials)
		}
		c.Close()
		_ = srv.Close()
		<-served
	})
}

// mutableConn is a connection that can go silent: what is written disappears,
// and nothing comes in until it is closed.
type mutableConn struct {
	net.Conn
	silent *atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *mutableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.silent.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *mutableConn) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *mutableConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// pipeListener hands out the other ends of pipes.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: DefaultPort}
}
