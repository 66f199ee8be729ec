package plunder

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// answer is what the server said: to what, a payload, and when.
type answer struct {
	op      string
	payload json.RawMessage
	date    time.Time // UTC
}

// newTransport is http.DefaultTransport's settings with shorter patience, and
// pings: a server whose machine vanished without closing its connections is
// noticed within 20 s instead of by the deadline of every call.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   defaultInFlight,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// get calls a function with GET and decodes its payload.
func get[T any](ctx context.Context, c *Client, function, id string) (T, time.Time, error) {
	var zero T
	a, err := c.call(ctx, http.MethodGet, function, id, nil)
	if err != nil {
		return zero, time.Time{}, err
	}
	v, err := decodePayload[T](a.payload)
	if err != nil {
		return zero, time.Time{}, c.protocolError(a.op, err)
	}
	return v, a.date, nil
}

// call looks up the function's path and sends body, as JSON, there.
func (c *Client) call(ctx context.Context, method, function, id string, body any) (answer, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return answer{}, fmt.Errorf("%s %s: %w", method, function, err)
		}
	}
	path, err := c.endpoint(ctx, method, function, id)
	if err != nil {
		return answer{}, err
	}
	return c.send(ctx, method, path, data)
}

// send sends a request until it is answered, as far as sending it twice can do
// no harm: a GET that got no answer, and anything that never left this machine.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (answer, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 2
	pause.MaxInterval = 5 * time.Second
	limits := []backoff.RetryOption{backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(c.retryFor)}
	if c.retryFor <= 0 {
		limits = append(limits, backoff.WithMaxTries(1))
	}

	started, tries := time.Now(), 0
	var last error
	a, err := backoff.Retry(ctx, func() (answer, error) {
		tries++
		var a answer
		a, last = c.attempt(ctx, method, path, body)
		if last != nil && !mayRepeat(method, last) {
			return a, backoff.Permanent(last)
		}
		return a, last
	}, limits...)
	if err == nil {
		return a, nil
	}
	var failed *callError
	if errors.As(last, &failed) {
		failed.tries, failed.elapsed = tries, time.Since(started)
		if ctx.Err() != nil { // it may have ended in the pause before the next try
			failed.stop(ctx)
		}
	}
	return answer{}, last
}

// mayRepeat decides from a failed attempt.
func mayRepeat(method string, err error) bool {
	var failed *callError
	if !errors.As(err, &failed) || failed.stopped != nil {
		return false
	}
	var dns *net.DNSError
	if errors.As(failed.cause, &dns) && dns.IsNotFound {
		return false // a name that does not exist is a typing error
	}
	if errors.Is(failed.kind, wire.ErrNoAnswer) {
		return method == http.MethodGet
	}
	return errors.Is(failed.kind, wire.ErrUnreachable)
}

// attempt sends a request once. Errors are a *wire.RefusedError or a *callError.
func (c *Client) attempt(ctx context.Context, method, path string, body []byte) (answer, error) {
	op := method + " " + path
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return answer{}, c.stoppedError(ctx, op)
	}
	limited, cancel := context.WithTimeout(ctx, c.callTimeout)
	defer cancel()

	var sent progress
	req, err := http.NewRequestWithContext(sent.trace(limited), method, c.URL()+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, c.protocolError(op, err)
	}
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}

	started := time.Now()
	got, err := c.exchange(req)
	took := time.Since(started).Round(time.Millisecond)
	if err != nil {
		failed := c.classify(ctx, limited, op, err, &sent)
		c.logf("plunder: %s: failed after %s: %v", op, took, failed)
		return answer{}, failed
	}
	c.logf("plunder: %s: %d in %s", op, got.code, took)
	return c.read(op, got)
}

// errTooBig: an answer of more than Client.maxBody bytes.
var errTooBig = errors.New("the answer is too big")

// response is an HTTP response that has come in whole.
type response struct {
	code   int
	status string // code and text
	date   string // the Date header
	body   []byte
}

// exchange sends req and reads the whole answer.
func (c *Client) exchange(req *http.Request) (response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return response{}, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBody+1))
	closeErr := resp.Body.Close()
	if err != nil {
		return response{}, err
	}
	if int64(len(data)) > c.maxBody {
		return response{}, fmt.Errorf("%w: more than %d bytes", errTooBig, c.maxBody)
	}
	return response{resp.StatusCode, resp.Status, resp.Header.Get("Date"), data}, closeErr
}

// read takes a response apart.
func (c *Client) read(op string, got response) (answer, error) {
	switch got.code {
	case http.StatusOK:
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		// Only a proxy says that. What became of the request behind it is unknown.
		return answer{}, &callError{url: c.URL(), op: op, kind: wire.ErrNoAnswer, cause: fmt.Errorf("a proxy answers %s", got.status)}
	case http.StatusBadRequest:
		if c.base.Scheme == "http" && bytes.Contains(got.body, []byte("HTTP request to an HTTPS server")) {
			return answer{}, c.protocolError(op, errors.New("the server speaks TLS: use https:// and leave --insecure-http out"))
		}
		fallthrough
	default:
		return answer{}, c.protocolError(op, fmt.Errorf("HTTP status %s where plunder v0.5 and later answer 200: check address and port in %s", got.status, c.cfg.where()))
	}
	payload, err := decodeEnvelope(got.body)
	if err != nil {
		var refused *wire.RefusedError
		if errors.As(err, &refused) {
			refused.Op = op
			return answer{}, refused
		}
		return answer{}, c.protocolError(op, err)
	}
	date, err := http.ParseTime(got.date)
	if err != nil {
		date = time.Now()
	}
	return answer{op: op, payload: payload, date: date.UTC()}, nil
}

// progress tells how far a request got.
type progress struct{ asked, connected atomic.Bool }

// trace watches for a connection. A transport that is not net/http's calls
// neither hook; then nothing is known.
func (p *progress) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { p.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { p.connected.Store(true) },
	})
}

// classify turns a transport's error into what callers can act on. ctx is the
// caller's, limited the one of this attempt.
func (c *Client) classify(ctx, limited context.Context, op string, err error, sent *progress) error {
	failed := &callError{url: c.URL(), op: op, kind: wire.ErrNoAnswer}
	neverSent := isDial(err) || sent.asked.Load() && !sent.connected.Load()
	if neverSent {
		failed.kind = wire.ErrUnreachable
	}
	var uerr *url.Error
	if errors.As(err, &uerr) {
		err = uerr.Err // op and URL are in failed already
	}
	switch {
	case ctx.Err() != nil:
		failed.stop(ctx)
		if neverSent {
			failed.kind = nil
		}
	case errors.Is(err, errTooBig):
		return c.protocolError(op, err)
	case limited.Err() != nil && neverSent:
		failed.cause = fmt.Errorf("no connection within %s", c.callTimeout)
	case limited.Err() != nil:
		failed.cause = fmt.Errorf("no answer within %s", c.callTimeout)
	default:
		failed.cause = err
		if described := c.describeTLS(err, time.Now()); described != nil {
			failed.kind, failed.cause = nil, described
		}
	}
	if errors.Is(failed.kind, wire.ErrUnreachable) {
		failed.advice = fmt.Sprintf("check that it runs, and the address in %s", c.cfg.where())
	}
	return failed
}

// isDial is true for errors from before there was a connection.
func isDial(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	var dns *net.DNSError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &dns) || errors.As(err, &verify)
}

// protocolError: what is there does not speak plunder's API.
func (c *Client) protocolError(op string, cause error) error {
	return &callError{url: c.URL(), op: op, kind: wire.ErrProtocol, cause: cause}
}

// callError is a call that was not answered, or not by a plunder server.
type callError struct {
	url, op string
	kind    error // an error of package wire, nil when cause holds it or nothing is known
	cause   error // the last one
	stopped error // the caller's ctx.Err(), nil while it goes on
	why     error // the caller's context.Cause(ctx), likewise
	advice  string
	tries   int
	elapsed time.Duration
}

// stoppedError: the caller's context ended before anything was sent.
func (c *Client) stoppedError(ctx context.Context, op string) error {
	e := &callError{url: c.URL(), op: op}
	e.stop(ctx)
	return e
}

// stop notes that the caller's context has ended.
func (e *callError) stop(ctx context.Context) { e.stopped, e.why = ctx.Err(), context.Cause(ctx) }

// Error names the server, the call, what happened, and how often it was tried.
func (e *callError) Error() string {
	s := fmt.Sprintf("plunder server %s: %s: ", e.url, e.op)
	if e.stopped != nil {
		s += fmt.Sprintf("stopped before it was answered: %v", e.why)
		if e.cause != nil {
			s += fmt.Sprintf("; last: %v", e.cause)
		}
		return s
	}
	switch {
	case e.kind == nil:
		s += e.cause.Error()
	case e.cause == nil:
		s += e.kind.Error()
	default:
		s += fmt.Sprintf("%v: %v", e.kind, e.cause)
	}
	if e.tries > 1 {
		s += fmt.Sprintf(" (%d tries in %s)", e.tries, e.elapsed.Round(100*time.Millisecond))
	}
	if e.advice != "" {
		s += "; " + e.advice
	}
	return s
}

// Unwrap gives the kind, why the caller's context ended, and the cause. A cause
// that is somebody else's deadline (net's time-outs claim to be
// context.DeadlineExceeded) is kept back: it is not the caller's.
func (e *callError) Unwrap() []error {
	var errs []error
	if e.kind != nil {
		errs = append(errs, e.kind)
	}
	if e.stopped != nil {
		errs = append(errs, e.stopped)
	}
	if e.cause != nil && !errors.Is(e.cause, context.DeadlineExceeded) && !errors.Is(e.cause, context.Canceled) {
		errs = append(errs, e.cause)
	}
	return errs
}
