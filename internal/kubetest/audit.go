package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
)

// auditPolicy records every request once, when it has been answered, without bodies. What
// the API server asks itself, and how it is, is left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  users: ["system:apiserver"]
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
- level: Metadata
`

// AuditEvent is one request that the API server has answered.
type AuditEvent struct {
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection
	Group       string // "" for the core API
	Version     string
	Resource    string // "" for requests about no resource, such as discovery
	Subresource string
	Namespace   string
	Name        string // "" in a create with a generated name
	URI         string // path and query
	User        string
	UserAgent   string
	Code        int // HTTP status
	Time        time.Time
}

// Write says whether the request was one that changes things, allowed or not. Dry runs
// change nothing; neither do the reviews that ask what one may do.
func (a AuditEvent) Write() bool {
	switch a.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return a.Group != "authorization.k8s.io" && a.Group != "authentication.k8s.io" && !strings.Contains(a.URI, "dryRun=")
	}
	return false
}

// String is one line for a test's message.
func (a AuditEvent) String() string {
	what := a.URI
	if a.Resource != "" {
		what = a.Resource
		if a.Group != "" {
			what += "." + a.Group
		}
		if a.Subresource != "" {
			what += "/" + a.Subresource
		}
		what += " " + a.Namespace + "/" + a.Name
	}
	return fmt.Sprintf("%s %s %d (%s)", a.Verb, what, a.Code, a.User)
}

// Writes are the events that are writes.
func Writes(events []AuditEvent) []AuditEvent {
	var writes []AuditEvent
	for _, event := range events {
		if event.Write() {
			writes = append(writes, event)
		}
	}
	return writes
}

// Audit is every request that was answered since this test called ResetAudit, or else
// since the server started, in the order of the answers. Watches are in it when they have
// ended. On a shared server it has the requests of all tests that run at the same time:
// look at the namespace or the user.
func (e *Env) Audit(tb testing.TB) []AuditEvent {
	tb.Helper()
	events, _, err := e.readAudit(tb.Context(), e.auditStart(tb.Name()))
	if err != nil {
		tb.Fatalf("kubetest: audit log: %v", err)
	}
	return events
}

// ResetAudit makes Audit begin here for this test and its subtests.
func (e *Env) ResetAudit(tb testing.TB) {
	tb.Helper()
	_, end, err := e.readAudit(tb.Context(), e.auditStart(tb.Name()))
	if err != nil {
		tb.Fatalf("kubetest: audit log: %v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.auditStarts == nil {
		e.auditStarts = map[string]int64{}
	}
	e.auditStarts[tb.Name()] = end
	tb.Cleanup(func() { // with -count the name comes again
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.auditStarts, tb.Name())
	})
}

// auditStart is where in the log the test, or the test that it is part of, began.
func (e *Env) auditStart(test string) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	for test != "" {
		if start, ok := e.auditStarts[test]; ok {
			return start
		}
		test = test[:max(0, strings.LastIndex(test, "/"))]
	}
	return 0
}

func (e *Env) auditLog() string { return e.path("audit.log") }

// readAudit reads the log from start up to a request of its own that marks the end, and
// returns where that is: everything answered before is in the log then.
func (e *Env) readAudit(ctx context.Context, start int64) (events []AuditEvent, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	marker := "/version?kubetest=" + string(uuid.NewUUID())
	if err := e.mark(ctx, marker); err != nil {
		return nil, 0, err
	}
	for {
		events, end, found, err := readAuditLog(e.auditLog(), start, marker)
		if err != nil || found {
			return events, end, err
		}
		select {
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("the marker %s never came: %w", marker, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (e *Env) mark(ctx context.Context, uri string) error {
	client, err := rest.HTTPClientFor(e.Config)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(e.Config.Host, "/")+uri, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func readAuditLog(path string, start int64, marker string) (events []AuditEvent, end int64, found bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, false, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if _, err := file.Seek(start, io.SeekStart); err != nil {
		return nil, 0, false, err
	}
	end = start
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { //nolint:errorlint // ReadBytes returns it as it is; a line without an end is not written yet
			return nil, 0, false, nil
		}
		if err != nil {
			return nil, 0, false, err
		}
		end += int64(len(line))
		event, err := decodeAudit(line)
		switch {
		case err != nil:
			return nil, 0, false, fmt.Errorf("%w in %s", err, bytes.TrimSpace(line))
		case event.URI == marker:
			return events, end, true, nil
		case strings.HasPrefix(event.URI, "/version?kubetest="):
		default:
			events = append(events, event)
		}
	}
}

// decodeAudit reads an audit.k8s.io/v1 Event, the few fields that tests ask about.
func decodeAudit(line []byte) (AuditEvent, error) {
	var raw struct {
		Verb       string
		RequestURI string
		UserAgent  string
		User       struct{ Username string }
		ObjectRef  struct {
			APIGroup, APIVersion, Resource, Subresource, Namespace, Name string
		}
		ResponseStatus           struct{ Code int }
		RequestReceivedTimestamp time.Time
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return AuditEvent{}, err
	}
	return AuditEvent{
		Verb:        raw.Verb,
		Group:       raw.ObjectRef.APIGroup,
		Version:     raw.ObjectRef.APIVersion,
		Resource:    raw.ObjectRef.Resource,
		Subresource: raw.ObjectRef.Subresource,
		Namespace:   raw.ObjectRef.Namespace,
		Name:        raw.ObjectRef.Name,
		URI:         raw.RequestURI,
		User:        raw.User.Username,
		UserAgent:   raw.UserAgent,
		Code:        raw.ResponseStatus.Code,
		Time:        raw.RequestReceivedTimestamp,
	}, nil
}
