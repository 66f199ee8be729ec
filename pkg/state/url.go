package state

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// fetchTimeout is how long one URL may take from the first byte sent to the last received.
const fetchTimeout = 30 * time.Second

func isURL(path string) bool {
	return strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://")
}

// url fetches a URL. Query and user part of it can be secrets, so they show in no message.
func (r *reader) url(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		r.fail(commandLine, "-f was given a URL that is not valid")
		return nil
	}
	name := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	if r.seen[raw] {
		return nil
	}
	r.seen[raw] = true
	within, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	data, err := r.fetch(within, name, raw)
	switch {
	case err == nil:
		if data != nil {
			r.split(name, data)
		}
	case ctx.Err() != nil:
		return fmt.Errorf("fetch %s: %w", name, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		r.fail(name, "no complete answer within %s", fetchTimeout)
	default:
		r.fail(name, "%v", err)
	}
	return nil
}

// fetch gets a URL's content, nil if a limit was hit, which is reported already.
func (r *reader) fetch(ctx context.Context, name, raw string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, errors.New("not a valid URL")
	}
	client := r.opts.HTTPClient
	if client == nil {
		client = &http.Client{}
	}
	resp, err := client.Do(req)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	before := len(r.problems)
	data, ok := r.content(name, resp.Body)
	if !ok {
		if err := ctx.Err(); err != nil {
			r.problems = r.problems[:before]
			return nil, err
		}
		return nil, nil
	}
	return data, nil
}
