// Package plunder is the client of a plunder server's HTTP API. It owns the
// connection (certificate, deadlines, back-off, both dialects of the envelope)
// and what the measured faults of real servers ask of a careful caller: writes
// one at a time, each read back. It must not know machines, plans or records,
// never prints, and never shows a secret in an error.
package plunder

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	defaultCallTimeout = 30 * time.Second
	defaultRetryFor    = 30 * time.Second
	// defaultInFlight: the server's maps have no locks; a handful of requests at
	// once was never seen to hurt it, hundreds a second kill it.
	defaultInFlight = 8
	// defaultMaxBody is ten times the largest answer there is any reason for
	// (GET /deployments with thousands of machines).
	defaultMaxBody = 64 << 20
)

// Client talks to one plunder server. It is safe for many goroutines.
type Client struct {
	cfg    Config
	base   *url.URL          // never changed after New
	pinned *x509.Certificate // nil with plain http or a transport of the caller's
	http   *http.Client

	userAgent   string
	logf        func(format string, args ...any)
	callTimeout time.Duration
	retryFor    time.Duration
	maxBody     int64

	slots     chan struct{} // requests in flight
	writes    chan struct{} // holds one token while somebody writes deployments
	endpoints endpointCache
}

// Option changes how a Client works.
type Option func(*Client)

// WithTransport sends all requests through rt, e.g. a simulator in the same
// process. Certificates are then rt's business.
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) { c.http.Transport = rt }
}

// WithCallTimeout limits one attempt of one call; the default is 30 s.
func WithCallTimeout(d time.Duration) Option {
	return func(c *Client) { c.callTimeout = d }
}

// WithRetryFor limits how long one call is tried again: a GET that got no
// answer, or any call whose connection was never made. The default is 30 s; 0
// means that nothing is tried twice.
func WithRetryFor(d time.Duration) Option {
	return func(c *Client) { c.retryFor = d }
}

// WithUserAgent sets the User-Agent header.
func WithUserAgent(s string) Option {
	return func(c *Client) { c.userAgent = s }
}

// WithLogf logs method, path, outcome and duration of every attempt; never a body.
func WithLogf(logf func(format string, args ...any)) Option {
	return func(c *Client) { c.logf = logf }
}

// New checks cfg and makes a client. It does not connect.
func New(cfg Config, opts ...Option) (*Client, error) {
	base, err := cfg.baseURL()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg:  cfg,
		base: base,
		http: &http.Client{
			// A plunder server sends nobody elsewhere, and a POST that is sent on would lose its body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		userAgent:   "capplunder",
		logf:        func(string, ...any) {},
		callTimeout: defaultCallTimeout,
		retryFor:    defaultRetryFor,
		maxBody:     defaultMaxBody,
		slots:       make(chan struct{}, defaultInFlight),
		writes:      make(chan struct{}, 1),
	}
	for _, opt := range opts {
		opt(c)
	}
	if c.http.Transport != nil {
		return c, nil
	}
	transport := newTransport()
	if base.Scheme == "https" {
		if c.pinned, err = cfg.certificate(); err != nil {
			return nil, err
		}
		transport.TLSClientConfig = tlsConfig(c.pinned)
	}
	c.http.Transport = transport
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is the server's address, e.g. "https://192.168.1.1:60443".
func (c *Client) URL() string { return c.base.String() }

// ServerConfig is GET /config.
func (c *Client) ServerConfig(ctx context.Context) (wire.ServerConfig, error) {
	cfg, _, err := get[wire.ServerConfig](ctx, c, "config", "")
	return cfg, err
}

// Unleased is GET /dhcp/unleased in the server's order, with the server's time
// of the answer in whole seconds (its Date header; the local time when there is
// none). MACs are lower case.
func (c *Client) Unleased(ctx context.Context) ([]wire.Lease, time.Time, error) {
	return c.dhcp(ctx, "unleased")
}

// Leases is GET /dhcp/leases, as Unleased; Lease.Time is the expiry.
func (c *Client) Leases(ctx context.Context) ([]wire.Lease, time.Time, error) {
	return c.dhcp(ctx, "leases")
}

func (c *Client) dhcp(ctx context.Context, list string) ([]wire.Lease, time.Time, error) {
	leases, date, err := get[[]wire.Lease](ctx, c, "dhcp", list)
	for i := range leases {
		leases[i].MAC = strings.ToLower(leases[i].MAC)
	}
	return leases, date, err
}

// Deployments is GET /deployments, as the server has them. It holds passwords.
func (c *Client) Deployments(ctx context.Context) (wire.Deployments, error) {
	d, _, err := get[wire.Deployments](ctx, c, "deployments", "")
	return d, err
}

// Deployment is GET /deployment/{mac}; wire.ErrNotFound when there is none.
func (c *Client) Deployment(ctx context.Context, mac string) (wire.Deployment, error) {
	mac, err := NormalizeMAC(mac)
	if err != nil {
		return wire.Deployment{}, err
	}
	d, _, err := get[wire.Deployment](ctx, c, "deploymentID", dashMAC(mac))
	if refusedWith(err, "Unable to find ") {
		err = fmt.Errorf("deployment of %s: %w: %w", mac, wire.ErrNotFound, err)
	}
	return d, err
}

// PostParlay is POST /parlay. The job runs in the background: watch Log. After
// wire.ErrNoAnswer it may or may not run; it is never posted twice.
func (c *Client) PostParlay(ctx context.Context, m wire.Map) error {
	_, err := c.call(ctx, http.MethodPost, "parlay", "", m)
	if refusedWith(err, "No deployment configurations found") {
		return fmt.Errorf("%w: %w", wire.ErrNoDeployments, err)
	}
	return err
}

// Log is GET /parlay/logs/{ip}; wire.ErrNoLog when there is none (yet).
func (c *Client) Log(ctx context.Context, address string) (wire.Log, error) {
	id, err := dashAddress(address)
	if err != nil {
		return wire.Log{}, fmt.Errorf("parlay log: %w", err)
	}
	log, _, err := get[wire.Log](ctx, c, "parlayLog", id)
	if refusedWith(err, "No Logs for Target ", "JSON Logging hasn't been enabled") {
		return wire.Log{}, fmt.Errorf("%s: %w", address, wire.ErrNoLog)
	}
	return log, err
}

// DeleteLog is DELETE /parlay/logs/{ip}; that there is none is no error.
func (c *Client) DeleteLog(ctx context.Context, address string) error {
	id, err := dashAddress(address)
	if err != nil {
		return fmt.Errorf("parlay log: %w", err)
	}
	_, err = c.call(ctx, http.MethodDelete, "parlayLog", id, nil)
	if refusedWith(err, "In-Memory logging for ", "JSON Logging hasn't been enabled") {
		return nil
	}
	return err
}

// refusedWith is true when the server refused with a message that begins with
// one of these. The texts are those of the recordings, the same in both versions.
func refusedWith(err error, beginnings ...string) bool {
	var refused *wire.RefusedError
	if !errors.As(err, &refused) {
		return false
	}
	for _, b := range beginnings {
		if strings.HasPrefix(refused.Message, b) {
			return true
		}
	}
	return false
}
