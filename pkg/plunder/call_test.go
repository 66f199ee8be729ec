package plunder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// says fails the test for each of texts that is not in err.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in: %v", s, err)
		}
	}
}

func TestRetries(t *testing.T) {
	const get, post = "GET /dhcp/unleased", "POST /parlay"
	always := func(what fault) []fault {
		all := make([]fault, 100)
		for i := range all {
			all[i] = what
		}
		return all
	}
	for name, tc := range map[string]struct {
		call     string
		faults   []fault
		opts     []Option
		is       error // nil: it works in the end
		attempts int   // -1: several
		within   time.Duration
	}{
		"GET, refused and then up":      {call: get, faults: []fault{down, down, down}, attempts: 4, within: 10 * time.Second},
		"GET, closed and then up":       {call: get, faults: []fault{die, actDie}, attempts: 3, within: 10 * time.Second},
		"GET, never up":                 {call: get, faults: always(down), is: wire.ErrUnreachable, attempts: -1, within: 31 * time.Second},
		"GET, always closed":            {call: get, faults: always(die), is: wire.ErrNoAnswer, attempts: -1, within: 31 * time.Second},
		"GET, hangs":                    {call: get, faults: always(hang), is: wire.ErrNoAnswer, attempts: 1, within: 30 * time.Second},
		"GET, hangs once":               {call: get, faults: []fault{hang}, opts: []Option{WithCallTimeout(time.Second)}, attempts: 2, within: 2 * time.Second},
		"GET, not plunder":              {call: get, faults: always(garbage), is: wire.ErrProtocol, attempts: 1},
		"GET, never up, not patient":    {call: get, faults: always(down), opts: []Option{WithRetryFor(0)}, is: wire.ErrUnreachable, attempts: 1},
		"GET, never up, less patient":   {call: get, faults: always(down), opts: []Option{WithRetryFor(3 * time.Second)}, is: wire.ErrUnreachable, attempts: -1, within: 3 * time.Second},
		"POST, refused and then up":     {call: post, faults: []fault{down, down}, attempts: 3, within: 10 * time.Second},
		"POST, never up":                {call: post, faults: always(down), is: wire.ErrUnreachable, attempts: -1, within: 31 * time.Second},
		"POST, closed":                  {call: post, faults: []fault{die}, is: wire.ErrNoAnswer, attempts: 1},
		"POST, done and then closed":    {call: post, faults: []fault{actDie}, is: wire.ErrNoAnswer, attempts: 1},
		"POST, refused and then closed": {call: post, faults: []fault{down, die}, is: wire.ErrNoAnswer, attempts: 2, within: time.Second},
		"POST, hangs":                   {call: post, faults: []fault{hang}, is: wire.ErrNoAnswer, attempts: 1, within: 30 * time.Second},
		"POST, not plunder":             {call: post, faults: []fault{garbage}, is: wire.ErrProtocol, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.deployments = []wire.Deployment{deployment(mac1, ip1, "cp")}
				f.faults = on(tc.call, tc.faults...)
				c := dial(t, f, tc.opts...)
				started := time.Now()
				var err error
				if tc.call == get {
					_, _, err = c.Unleased(t.Context())
				} else {
					err = c.PostParlay(t.Context(), wire.Map{})
				}
				if took := time.Since(started); took > tc.within {
					t.Errorf("took %s, want at most %s", took, tc.within)
				}
				n := f.made(tc.call)
				if tc.attempts >= 0 && n != tc.attempts || tc.attempts < 0 && n < 4 {
					t.Errorf("%d attempts, want %d", n, tc.attempts)
				}
				if tc.is == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !errors.Is(err, tc.is) {
					t.Fatalf("got %v, want %v", err, tc.is)
				}
				if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the caller's time was not over: %v", err)
				}
				says(t, err, "https://plunder.example:60443", tc.call, tc.is.Error())
				if n > 1 && !strings.Contains(err.Error(), fmt.Sprintf("%d tries in ", n)) {
					t.Errorf("does not say how often it was tried: %v", err)
				}
			})
		})
	}
}

func TestCallerStops(t *testing.T) {
	for name, tc := range map[string]struct {
		what fault
		is   error
		says []string
	}{
		"in an answer that does not come": {hang, wire.ErrNoAnswer, []string{"stopped before it was answered: context deadline exceeded"}},
		"between tries":                   {down, wire.ErrUnreachable, []string{"stopped before it was answered: context deadline exceeded", "last: dial tcp 127.0.0.1:60443: connect: connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.faults = func(req *http.Request) fault {
					if req.URL.Path == "/config" {
						return tc.what
					}
					return serve
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := dial(t, f).ServerConfig(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, tc.is) {
					t.Fatalf("got %v", err)
				}
				says(t, err, append(tc.says, "plunder server https://plunder.example:60443: GET /config: ")...)
			})
		})
	}
	t.Run("with a reason", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupted"))
		f := newFake()
		_, err := dial(t, f).ServerConfig(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		says(t, err, "stopped before it was answered: interrupted", "GET /api/config/GET")
	})
}

// What answers on the port is not a plunder server, or answers rubbish.
func TestProtocolErrors(t *testing.T) {
	const secret = "hunter2"
	for name, tc := range map[string]struct {
		status int
		header http.Header
		body   string
		kind   error
		want   string
	}{
		"web page":          {200, nil, "<html>" + secret, wire.ErrProtocol, "the answer is a web page, not JSON"},
		"empty":             {200, nil, "", wire.ErrProtocol, "empty answer"},
		"null":              {200, nil, "null", wire.ErrProtocol, "not a JSON object"},
		"list":              {200, nil, `["` + secret + `"]`, wire.ErrProtocol, "not a JSON object"},
		"text":              {200, nil, secret, wire.ErrProtocol, "not a JSON object"},
		"half a body":       {200, nil, `{"payload": {"password": "` + secret, wire.ErrProtocol, "not JSON as plunder speaks it"},
		"two bodies":        {200, nil, `{} {"password": "` + secret + `"}`, wire.ErrProtocol, "not JSON as plunder speaks it"},
		"no payload":        {200, nil, `{"kind": "` + secret + `"}`, wire.ErrProtocol, "no payload"},
		"another payload":   {200, nil, `{"payload": "` + secret + `"}`, wire.ErrProtocol, "not what plunder sends"},
		"another error":     {200, nil, `{"error": ["` + secret + `"]}`, wire.ErrProtocol, "not JSON as plunder speaks it"},
		"too big":           {200, nil, `{"payload": "` + strings.Repeat(secret, 200) + `"}`, wire.ErrProtocol, "the answer is too big: more than 1000 bytes"},
		"unknown path":      {404, nil, "404 page not found\n", wire.ErrProtocol, "HTTP status 404 Not Found where plunder v0.5 and later answer 200: check address and port in plunderclient.yaml"},
		"server error":      {500, nil, secret, wire.ErrProtocol, "HTTP status 500"},
		"needs a password":  {401, nil, secret, wire.ErrProtocol, "HTTP status 401"},
		"redirect":          {302, http.Header{"Location": {"https://elsewhere.example/"}}, "", wire.ErrProtocol, "HTTP status 302"},
		"proxy, down":       {502, nil, secret, wire.ErrNoAnswer, "a proxy answers 502"},
		"proxy, overloaded": {503, nil, secret, wire.ErrNoAnswer, "a proxy answers 503"},
		"proxy, impatient":  {504, nil, secret, wire.ErrNoAnswer, "a proxy answers 504"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if strings.HasPrefix(req.URL.Path, "/api/") {
					return f.RoundTrip(req)
				}
				header := tc.header
				if header == nil {
					header = http.Header{}
				}
				return &http.Response{
					StatusCode: tc.status, Status: fmt.Sprintf("%d %s", tc.status, http.StatusText(tc.status)),
					Header: header, Body: io.NopCloser(strings.NewReader(tc.body)), Request: req,
				}, nil
			})
			c := dial(t, f, WithTransport(rt), WithRetryFor(0))
			c.maxBody = 1000
			_, err := c.ServerConfig(t.Context())
			if !errors.Is(err, tc.kind) {
				t.Fatalf("got %v, want %v", err, tc.kind)
			}
			says(t, err, tc.want, "GET /config", c.URL())
			if strings.Contains(err.Error(), secret) {
				t.Errorf("quotes the body: %v", err)
			}
		})
	}
}

// A body that breaks off in the middle is no answer: a GET is made again.
func TestBrokenBody(t *testing.T) {
	f := newFake()
	broken := 0
	rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := f.RoundTrip(req)
		if req.URL.Path == "/config" && broken < 2 {
			broken++
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"payl`), errReader{io.ErrUnexpectedEOF}))
		}
		return resp, err
	})
	synctest.Test(t, func(t *testing.T) {
		if _, err := dial(t, f, WithTransport(rt)).ServerConfig(t.Context()); err != nil {
			t.Error(err)
		}
		if n := f.made("GET /config"); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}
	})
}

// An answer without end is not read to its end.
func TestEndlessBody(t *testing.T) {
	endless := &endlessReader{}
	rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(endless), Request: req}, nil
	})
	_, err := dial(t, newFake(), WithTransport(rt)).ServerConfig(t.Context())
	if !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("got %v", err)
	}
	says(t, err, "the answer is too big: more than 67108864 bytes")
	if endless.read > defaultMaxBody+1 {
		t.Errorf("read %d bytes", endless.read)
	}
}

type endlessReader struct{ read int64 }

func (r *endlessReader) Read(p []byte) (int, error) {
	if r.read > 2*defaultMaxBody {
		return 0, io.EOF
	}
	clear(p)
	r.read += int64(len(p))
	return len(p), nil
}

// The time-outs of package net say that they are context.DeadlineExceeded, which
// to the caller would mean that its own time is over.
func TestDialTimeout(t *testing.T) {
	conn, timeout := (&net.Dialer{Timeout: time.Nanosecond}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if timeout == nil {
		_ = conn.Close()
	}
	if !errors.Is(timeout, context.DeadlineExceeded) {
		t.Fatalf("got %v, want a time-out of package net", timeout)
	}
	rt := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, timeout })
	_, err := dial(t, newFake(), WithTransport(rt), WithRetryFor(0)).ServerConfig(t.Context())
	if !errors.Is(err, wire.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	says(t, err, "i/o timeout")
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestUnknownHostName(t *testing.T) {
	tries := 0
	rt := roundTripFunc(func(*http.Request) (*http.Response, error) {
		tries++
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "plunder.example", IsNotFound: true}}
	})
	_, err := dial(t, newFake(), WithTransport(rt)).ServerConfig(t.Context())
	if !errors.Is(err, wire.ErrUnreachable) || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
	says(t, err, "lookup plunder.example: no such host", "check that it runs, and the address in plunderclient.yaml")
}

func TestLookUps(t *testing.T) {
	t.Run("one for many callers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			slow := make(chan struct{})
			rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if strings.HasPrefix(req.URL.Path, "/api/") {
					<-slow
				}
				return f.RoundTrip(req)
			})
			c := dial(t, f, WithTransport(rt))
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := c.ServerConfig(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			close(slow)
			wg.Wait()
			if f.lookups["config/GET"] != 1 || f.made("GET /config") != 50 {
				t.Errorf("%d look-ups for %d calls", f.lookups["config/GET"], f.made("GET /config"))
			}
		})
	})
	t.Run("the one who asks is stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.faults = func(req *http.Request) fault {
				if f.lookups["config/GET"] == 1 {
					return hang
				}
				return serve
			}
			c := dial(t, f)
			first, cancel := context.WithCancel(t.Context())
			errs := make(chan error, 2)
			go func() { _, err := c.ServerConfig(first); errs <- err }()
			synctest.Wait()
			go func() { _, err := c.ServerConfig(t.Context()); errs <- err }()
			synctest.Wait()
			cancel()
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
			if err := <-errs; err != nil {
				t.Errorf("the second: %v", err)
			}
		})
	})
	t.Run("one who waits is stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.faults = func(*http.Request) fault { return hang }
			c := dial(t, f)
			done := make(chan struct{})
			go func() { _, _ = c.ServerConfig(t.Context()); close(done) }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.ServerConfig(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			} else {
				says(t, err, "GET /api/config/GET", c.URL())
			}
			<-done
		})
	})
	t.Run("failures are shared and not remembered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.faults = func(*http.Request) fault { return down }
			c := dial(t, f)
			started := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := c.ServerConfig(t.Context()); !errors.Is(err, wire.ErrUnreachable) {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(started); took > 31*time.Second {
				t.Errorf("20 callers waited %s, one after the other", took)
			}
			f.faults = nil
			if _, err := c.ServerConfig(t.Context()); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	})
	t.Run("a function that is not there", func(t *testing.T) {
		c := dial(t, newFake())
		_, err := c.call(t.Context(), http.MethodPatch, "deployment", "", nil)
		var refused *wire.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("got %v", err)
		}
		says(t, err, "does not have the function deployment/PATCH", "Unable to find HTTP method [PATCH]")
	})
	t.Run("never another host", func(t *testing.T) {
		for _, path := range []string{"https://elsewhere.example/config", "", "config", "@elsewhere.example/"} {
			rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.URL.Host != "plunder.example:60443" {
					t.Errorf("asked %s", req.URL)
				}
				rec := httptest.NewRecorder()
				fmt.Fprintf(rec, `{"payload":{"functionEndpoint":%q}}`, path)
				return rec.Result(), nil
			})
			if _, err := dial(t, newFake(), WithTransport(rt)).ServerConfig(t.Context()); !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("path %q: %v", path, err)
			}
		}
	})
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var now, most atomic.Int32
		rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(time.Millisecond) // virtual
			return f.RoundTrip(req)
		})
		c := dial(t, f, WithTransport(rt))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := c.ServerConfig(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != defaultInFlight {
			t.Errorf("%d requests at once, want %d", most.Load(), defaultInFlight)
		}
	})
}

func TestLogf(t *testing.T) {
	f := newFake()
	var lines []string
	c := dial(t, f, WithLogf(func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }), WithUserAgent("capplunder/1.2.3"))
	f.faults = func(req *http.Request) fault {
		if got := req.Header.Get("User-Agent"); got != "capplunder/1.2.3" {
			t.Errorf("User-Agent %q", got)
		}
		return serve
	}
	d := deployment(mac1, ip1, "cp")
	d.Config.Password = "hunter2"
	if err := c.EnsureDeployment(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(lines, "\n")
	for _, s := range []string{"plunder: GET /api/deployments/GET: 200 in ", "plunder: POST /deployment: 200 in ", "plunder: GET /deployment/00-50-56-a5-11-20: 200 in "} {
		if !strings.Contains(all, s) {
			t.Errorf("%q is not in\n%s", s, all)
		}
	}
	if strings.Contains(all, "hunter2") {
		t.Errorf("logs the password:\n%s", all)
	}
}

func TestUnleasedTime(t *testing.T) {
	f := newFake()
	f.unleased = []wire.Lease{lease("00:50:56:A5:11:20")}
	server := time.Date(2019, 11, 3, 10, 54, 18, 0, time.UTC)
	date := server.Format(http.TimeFormat)
	rt := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := f.RoundTrip(req)
		if date != "" {
			resp.Header.Set("Date", date)
		}
		return resp, err
	})
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, f, WithTransport(rt))
		leases, now, err := c.Unleased(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !now.Equal(server) || now.Location() != time.UTC {
			t.Errorf("server time %s, want %s", now, server)
		}
		if len(leases) != 1 || leases[0].MAC != mac1 {
			t.Errorf("leases %v", leases)
		}
		date = ""
		if _, now, err = c.Unleased(t.Context()); err != nil || !now.Equal(time.Now()) {
			t.Errorf("without Date: %s, %v, want the local time", now, err)
		}
	})
}

func TestParlay(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("v0.5 %v", old), func(t *testing.T) {
			f := newFake()
			f.old = old
			c := dial(t, f)
			noLog := func(when string) {
				t.Helper()
				if _, err := c.Log(t.Context(), ip1); !errors.Is(err, wire.ErrNoLog) {
					t.Errorf("%s: %v, want ErrNoLog", when, err)
				}
			}
			noLog("on a fresh server") // JSON Logging hasn't been enabled
			if err := c.PostParlay(t.Context(), wire.Map{}); !errors.Is(err, wire.ErrNoDeployments) {
				t.Errorf("got %v, want ErrNoDeployments", err)
			}
			if err := c.DeleteLog(t.Context(), ip1); err != nil {
				t.Errorf("delete on a fresh server: %v", err)
			}
			f.deployments = []wire.Deployment{deployment(mac1, ip1, "cp")}
			if err := c.PostParlay(t.Context(), wire.Map{}); err != nil {
				t.Fatal(err)
			}
			noLog("straight after the post") // No Logs for Target
			if err := c.DeleteLog(t.Context(), ip1); err != nil {
				t.Errorf("delete of a log that is not there: %v", err)
			}
			f.logs[ip1] = wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{{Task: "uptime"}}}
			log, err := c.Log(t.Context(), ip1)
			if err != nil || log.State != wire.StateCompleted || len(log.Entries) != 1 {
				t.Errorf("got %+v, %v", log, err)
			}
			if err := c.DeleteLog(t.Context(), ip1); err != nil {
				t.Error(err)
			}
			noLog("after the delete")
		})
	}
	t.Run("not an address", func(t *testing.T) {
		f := newFake()
		c := dial(t, f)
		for _, address := range []string{"", "cp", "fe80::1", "../../deployments", "10.0.0.256"} {
			if _, err := c.Log(t.Context(), address); err == nil || !strings.Contains(err.Error(), "is not an IPv4 address") {
				t.Errorf("%q: %v", address, err)
			}
			if err := c.DeleteLog(t.Context(), address); err == nil {
				t.Errorf("%q: deleted", address)
			}
		}
		if len(f.calls) != 0 {
			t.Errorf("called %v", f.calls)
		}
	})
}

// Real sockets: what the operating system and net/http make of the faults.
func TestSockets(t *testing.T) {
	_, text := certificate(t, nil)
	config := func(l net.Listener) Config {
		return Config{Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Cert: text}
	}
	listen := func(t *testing.T) net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	t.Run("nobody listens", func(t *testing.T) {
		l := listen(t)
		_ = l.Close()
		c, err := New(config(l), WithRetryFor(0))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ServerConfig(t.Context())
		if !errors.Is(err, wire.ErrUnreachable) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
		says(t, err, "connection refused")
	})
	t.Run("no handshake", func(t *testing.T) {
		c, err := New(config(listen(t)), WithRetryFor(0), WithCallTimeout(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.ServerConfig(t.Context())
		if !errors.Is(err, wire.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		says(t, err, "no connection within 50ms")
	})
	t.Run("closed in the handshake", func(t *testing.T) {
		l := listen(t)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
		c, err := New(config(l), WithRetryFor(0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.ServerConfig(t.Context()); !errors.Is(err, wire.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	})
	for _, h2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("handler dies, HTTP/2 %v", h2), func(t *testing.T) {
			f := newFake()
			f.deployments = []wire.Deployment{deployment(mac2, ip2, "w")}
			f.faults = on("POST /parlay", die)
			srv := httptest.NewUnstartedServer(f)
			srv.EnableHTTP2 = h2
			c := startTLS(t, srv)
			if err := c.PostParlay(t.Context(), wire.Map{}); !errors.Is(err, wire.ErrNoAnswer) || errors.Is(err, wire.ErrUnreachable) {
				t.Errorf("got %v", err)
			}
			if n := f.made("POST /parlay"); n != 1 {
				t.Errorf("posted %d times", n)
			}
			f.faults = on("POST /deployment", halfDead, actDie)
			if err := c.EnsureDeployment(t.Context(), deployment(mac1, ip1, "cp")); err != nil {
				t.Error(err)
			}
		})
		t.Run(fmt.Sprintf("stale connections, HTTP/2 %v", h2), func(t *testing.T) {
			f := newFake()
			srv := httptest.NewUnstartedServer(f)
			srv.EnableHTTP2 = h2
			c := startTLS(t, srv)
			for i := range 4 {
				srv.CloseClientConnections()
				if _, err := c.ServerConfig(t.Context()); err != nil {
					t.Fatal(err)
				}
				srv.CloseClientConnections()
				d := deployment(fmt.Sprintf("00:50:56:00:00:%02x", i), fmt.Sprintf("10.0.0.%d", i+1), "m")
				if err := c.EnsureDeployment(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			if len(f.deployments) != 4 {
				t.Errorf("%d deployments", len(f.deployments))
			}
		})
		t.Run(fmt.Sprintf("hangs, HTTP/2 %v", h2), func(t *testing.T) {
			f := newFake()
			f.deployments = []wire.Deployment{deployment(mac2, ip2, "w")}
			f.faults = on("POST /parlay", hang)
			srv := httptest.NewUnstartedServer(f)
			srv.EnableHTTP2 = h2
			c := startTLS(t, srv, WithCallTimeout(200*time.Millisecond))
			err := c.PostParlay(t.Context(), wire.Map{})
			if !errors.Is(err, wire.ErrNoAnswer) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			says(t, err, "no answer within 200ms")
		})
	}
}
