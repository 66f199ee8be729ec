package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// maxBody is more than any real request has.
const maxBody = 32 << 20

// request is one call of an endpoint.
type request struct {
	id       string            // the {id} of the path
	vars     map[string]string // all variables of the path
	body     []byte
	life     *life
	gone     <-chan struct{} // the client has given up; the real server never looks
	function string
}

// reply is an answer, or the lack of one.
type reply struct {
	abort       bool // the connection closes without an answer
	status      int
	contentType string
	body        []byte
	failure     string // the envelope's error, for Call
}

func aborted() reply { return reply{abort: true} }

// ok is an envelope with a payload; nil means none at all, and not null.
func (s *Server) ok(payload any) reply {
	if payload == nil {
		return envelope(wire.Envelope{})
	}
	data, err := json.Marshal(payload)
	if err != nil { // none of our types can fail
		return s.failed("Error retrieving data", err.Error())
	}
	// By hand: a large payload would be parsed once more to be put into a wire.Envelope.
	body := make([]byte, 0, len(data)+16)
	body = append(append(append(body, `{"payload":`...), data...), "}\n"...)
	return reply{status: http.StatusOK, contentType: "application/json", body: body}
}

// failed is an envelope with an error, in the server's dialect. friendly may be empty.
func (s *Server) failed(friendly, message string) reply {
	env := wire.Envelope{Error: message}
	if s.cfg.Version == VersionV05 {
		env.FriendlyError = friendly
	} else {
		env.Warning = friendly
	}
	return envelope(env)
}

func envelope(env wire.Envelope) reply {
	data, err := json.Marshal(env)
	if err != nil {
		return aborted()
	}
	return reply{status: http.StatusOK, contentType: "application/json", body: append(data, '\n'), failure: env.Error}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.work.Done()
	rep, up := s.serve(r.Context(), r.Method, r.URL.Path, body)
	if !up || rep.abort {
		panic(http.ErrAbortHandler) // closes the connection, or resets the stream
	}
	if rep.contentType != "" {
		w.Header().Set("Content-Type", rep.contentType)
	}
	w.WriteHeader(rep.status)
	_, _ = w.Write(rep.body)
}

// RoundTrip implements http.RoundTripper: the server answers in this process,
// without a socket. A server that is down refuses the connection, and one that
// dies while it answers gives io.EOF, as net/http's transport would.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err = errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type outcome struct {
		rep reply
		up  bool
	}
	// As with a real server, the handler goes on when the client has given up.
	done := make(chan outcome, 1)
	if !s.begin() {
		return nil, refused(r.URL.Host)
	}
	go func() {
		defer s.work.Done()
		rep, up := s.serve(ctx, r.Method, r.URL.Path, body)
		done <- outcome{rep, up}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case o := <-done:
		switch {
		case !o.up:
			return nil, refused(r.URL.Host)
		case o.rep.abort:
			return nil, io.EOF
		}
		return response(r, o.rep), nil
	}
}

// begin counts work that Close waits for; false once the server is closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Add(1)
	return true
}

func refused(addr string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: address(addr), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// address is a net.Addr for messages.
type address string

// Network implements net.Addr.
func (a address) Network() string { return "tcp" }

// String implements net.Addr.
func (a address) String() string { return string(a) }

func response(r *http.Request, rep reply) *http.Response {
	h := http.Header{
		"Date":           {time.Now().UTC().Format(http.TimeFormat)},
		"Content-Length": {fmt.Sprint(len(rep.body))},
	}
	if rep.contentType != "" {
		h.Set("Content-Type", rep.contentType)
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", rep.status, http.StatusText(rep.status)), StatusCode: rep.status,
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: h,
		Body: io.NopCloser(bytes.NewReader(rep.body)), ContentLength: int64(len(rep.body)), Request: r,
	}
}

// serve handles one request. up is false when no server is there.
func (s *Server) serve(client context.Context, method, path string, body []byte) (rep reply, up bool) {
	s.mu.Lock()
	s.advance(time.Now())
	down, life := s.closed || !s.downUntil.IsZero(), s.life
	s.mu.Unlock()
	if down {
		return reply{}, false
	}
	e, vars, known := match(s.table, method, path)
	call := &Call{Method: method, Path: path, Body: body}
	if e != nil {
		call.Function = method + " " + e.FunctionEndpoint
	}
	s.calls.arrived(call)
	switch {
	case e != nil:
		rep = s.do(e, &request{id: vars["id"], vars: vars, body: body, life: life, gone: client.Done(), function: call.Function})
		if life.over() { // the process that was to answer is gone
			rep = aborted()
		}
	case known:
		rep = reply{status: http.StatusMethodNotAllowed}
	default:
		rep = reply{status: http.StatusNotFound, contentType: "text/plain; charset=utf-8", body: []byte("404 page not found\n")}
	}
	s.calls.answered(call, rep)
	return rep, true
}

// do runs a handler, with the faults that are set for it.
func (s *Server) do(e *endpoint, r *request) reply {
	if r.life.over() {
		return aborted()
	}
	f := s.requestFault(e, r)
	if f == nil {
		return e.do(s, r)
	}
	if !r.life.sleep(f.After) {
		return aborted()
	}
	switch f.Kind {
	case KindDrop:
		e.do(s, r)
	case KindLose:
		return s.ok(nil)
	case KindFail:
		return s.failed("Error performing the request", "simulated fault")
	case KindHang:
		select {
		case <-r.gone:
		case <-r.life.ctx.Done():
		}
	case KindCrash:
		s.Crash(s.cfg.CrashDown)
	}
	return aborted()
}

// requestFault finds out which machine a request is about, and whether something
// is to go wrong with it.
func (s *Server) requestFault(e *endpoint, r *request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) == 0 {
		return nil
	}
	mac, addr := strings.ReplaceAll(r.id, "-", ":"), strings.ReplaceAll(r.id, "-", ".")
	switch r.function {
	case "POST /deployment", "PATCH /deployment", "PATCH /deployment/{id}":
		if r.id == "global" {
			return nil
		}
		var d wire.Deployment
		if json.Unmarshal(r.body, &d) != nil {
			return nil
		}
		return s.fault(strings.ToLower(e.Method), s.subjectFor(d.MAC, d.Config.Address, d.Config.Hostname))
	case "DELETE /deployment/{id}", "DELETE /deployment/mac/{id}":
		return s.fault("delete", s.subjectFor(mac, "", ""))
	case "DELETE /deployment/address/{id}":
		return s.fault("delete", s.subjectFor("", addr, ""))
	case "GET /parlay/logs/{id}", "DELETE /parlay/logs/{id}":
		return s.fault("log", s.subjectFor("", addr, ""))
	case "POST /parlay":
		var m wire.Map
		if json.Unmarshal(r.body, &m) != nil {
			return nil
		}
		for _, d := range m.Deployments {
			for _, a := range d.Hosts {
				if f := s.fault("parlay", s.subjectFor("", a, "")); f != nil {
					return f
				}
			}
		}
	}
	return nil
}
