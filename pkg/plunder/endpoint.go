package plunder

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// endpointCache remembers where the server's functions live. They do not change
// while a server runs, so each is asked for once, however many callers wait.
type endpointCache struct {
	mu      sync.Mutex
	known   map[string]string // "function/METHOD" -> path, with {id}
	lookups map[string]*lookup
}

// lookup is a question under way. Its fields are written before done is closed.
type lookup struct {
	done      chan struct{}
	err       error
	abandoned bool // the one who asked was stopped: somebody else has to ask
}

// endpoint is the path of a function, with id in its place.
func (c *Client) endpoint(ctx context.Context, method, function, id string) (string, error) {
	pattern, err := c.pattern(ctx, method, function)
	if err != nil {
		return "", err
	}
	if strings.Contains(pattern, "{id}") != (id != "") {
		return "", c.protocolError(method+" "+pattern, fmt.Errorf("function %s takes its arguments in another way", function))
	}
	return strings.Replace(pattern, "{id}", url.PathEscape(id), 1), nil
}

// pattern is endpoint with {id} left in place.
func (c *Client) pattern(ctx context.Context, method, function string) (string, error) {
	key := function + "/" + method
	cache := &c.endpoints
	for {
		cache.mu.Lock()
		if path, ok := cache.known[key]; ok {
			cache.mu.Unlock()
			return path, nil
		}
		l, running := cache.lookups[key]
		if !running {
			if cache.known == nil {
				cache.known, cache.lookups = map[string]string{}, map[string]*lookup{}
			}
			l = &lookup{done: make(chan struct{})}
			cache.lookups[key] = l
		}
		cache.mu.Unlock()

		if !running {
			path, err := c.lookUp(ctx, key)
			cache.mu.Lock()
			if err == nil {
				cache.known[key] = path
			}
			delete(cache.lookups, key)
			cache.mu.Unlock()
			l.err, l.abandoned = err, ctx.Err() != nil
			close(l.done)
			return path, err
		}
		select {
		case <-l.done:
			if l.err != nil && !l.abandoned {
				return "", l.err
			}
		case <-ctx.Done():
			return "", c.stoppedError(ctx, "GET /api/"+key)
		}
	}
}

// lookUp is GET /api/{function}/{METHOD}.
func (c *Client) lookUp(ctx context.Context, key string) (string, error) {
	path := "/api/" + key
	answer, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		if refusedWith(err, "Error looking up in API Server") {
			return "", fmt.Errorf("plunder server %s does not have the function %s (capplunder knows v0.5 and May 2020): %w", c.URL(), key, err)
		}
		return "", err
	}
	e, err := decodePayload[wire.Endpoint](answer.payload)
	if err != nil {
		return "", c.protocolError("GET "+path, err)
	}
	// The path is joined to the server's own URL: whatever it says, no other host is asked.
	if !strings.HasPrefix(e.FunctionEndpoint, "/") {
		return "", c.protocolError("GET "+path, fmt.Errorf("its path is %q", e.FunctionEndpoint))
	}
	return e.FunctionEndpoint, nil
}
