package plunder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/plunder-app/capplunder/pkg/plunder/recording"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// TestRecordings plays both versions of the server to the client, over TLS and
// HTTP/2: each recorded request is made by the client's own method, has to
// arrive as it was recorded, and what the client makes of the recorded answer
// has to be all of it.
func TestRecordings(t *testing.T) {
	all, err := recording.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range all {
		t.Run(rec.Name(), func(t *testing.T) {
			t.Parallel()
			server := &replayServer{t: t, rec: rec, discovery: discovery(t, all, rec.Version)}
			srv := httptest.NewUnstartedServer(server)
			srv.EnableHTTP2 = true
			c := startTLS(t, srv)
			for i, step := range rec.Steps {
				result, err := drive(t.Context(), c, step)
				t.Logf("step %d: %s: %v", i, step.Request, err)
				if problem := compare(step, result, err); problem != "" {
					t.Errorf("step %d: %s: %s", i, step.Request, problem)
				}
			}
			if server.next != len(rec.Steps) {
				t.Errorf("%d of %d requests arrived", server.next, len(rec.Steps))
			}
		})
	}
}

// discovery is the recorded answers to look-ups, by path.
func discovery(t *testing.T, all []recording.Recording, version string) map[string][]byte {
	t.Helper()
	answers := map[string][]byte{}
	for _, r := range all {
		if r.Version != version || r.Scenario != "discovery" {
			continue
		}
		for _, s := range r.Steps {
			answers[s.Request.Path] = s.Response.Bytes()
		}
	}
	if len(answers) == 0 {
		t.Fatalf("no discovery recording of %s", version)
	}
	return answers
}

// replayServer answers as recorded, and only that.
type replayServer struct {
	t         *testing.T
	rec       recording.Recording
	discovery map[string][]byte

	mu   sync.Mutex
	next int
}

func (s *replayServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.ProtoMajor != 2 {
		s.t.Errorf("%s, want HTTP/2 as real servers speak", req.Proto)
	}
	if strings.HasPrefix(req.URL.Path, "/api") && s.rec.Scenario != "discovery" {
		_, _ = w.Write(s.discovery[req.URL.Path])
		return
	}
	if s.next >= len(s.rec.Steps) {
		s.t.Errorf("%s %s: the recording is over", req.Method, req.URL.Path)
		http.Error(w, "over", http.StatusTeapot)
		return
	}
	step := s.rec.Steps[s.next]
	s.next++
	if req.Method != step.Request.Method || req.URL.Path != step.Request.Path {
		s.t.Errorf("step %d: got %s %s, recorded %s", s.next-1, req.Method, req.URL.Path, step.Request)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(req.Body); err != nil {
		s.t.Error(err)
	}
	if problem := sameBody(step.Request, body.Bytes()); problem != "" {
		s.t.Errorf("step %d: %s: body: %s", s.next-1, step.Request, problem)
	}
	if step.Response.Closed() {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(step.Response.Status)
	_, _ = w.Write(step.Response.Bytes())
}

// sameBody compares a body with the recorded one. Of a parlay map only what it
// says counts: the client always sends a time-out.
func sameBody(want recording.Request, got []byte) string {
	recorded := want.Bytes()
	if !json.Valid(recorded) || len(recorded) == 0 {
		if !bytes.Equal(recorded, got) {
			return fmt.Sprintf("got %q, recorded %q", got, recorded)
		}
		return ""
	}
	if want.Path == "/parlay" {
		m, err := strict[wire.Map](recorded)
		if err != nil {
			return err.Error()
		}
		if recorded, err = json.Marshal(m); err != nil {
			return err.Error()
		}
	}
	diff, err := recording.Diff(recorded, got)
	if err != nil {
		return err.Error()
	}
	return diff
}

// strict decodes JSON and refuses what T has no field for.
func strict[T any](data []byte) (T, error) {
	var v T
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(&v)
	return v, err
}

// drive makes a recorded request by the client's method for it, or, where
// capplunder has no use for such a call, by the method below it.
func drive(ctx context.Context, c *Client, step recording.Step) (any, error) {
	r := step.Request
	id := r.Path[strings.LastIndexByte(r.Path, '/')+1:]
	body := r.Bytes()
	raw := func() (any, error) {
		a, err := c.send(ctx, r.Method, r.Path, body)
		return a.payload, err
	}
	if len(body) > 0 && !json.Valid(body) {
		return raw() // rubbish
	}
	switch call := r.String(); {
	case call == "GET /config":
		return c.ServerConfig(ctx)
	case call == "GET /deployments":
		return c.Deployments(ctx)
	case call == "GET /dhcp/unleased":
		leases, _, err := c.Unleased(ctx)
		return leases, err
	case call == "GET /dhcp/leases":
		leases, _, err := c.Leases(ctx)
		return leases, err
	case strings.HasPrefix(call, "GET /deployment/"):
		return c.Deployment(ctx, id)
	case strings.HasPrefix(call, "GET /parlay/logs/"):
		return c.Log(ctx, strings.ReplaceAll(id, "-", "."))
	case strings.HasPrefix(call, "DELETE /parlay/logs/"):
		return nil, c.DeleteLog(ctx, strings.ReplaceAll(id, "-", "."))
	case strings.HasPrefix(call, "DELETE /deployment/mac/"):
		return nil, c.deleteDeployment(ctx, strings.ReplaceAll(id, "-", ":"))
	case strings.HasPrefix(call, "DELETE /deployment/address/"):
		_, err := c.call(ctx, r.Method, "deploymentAddress", id, nil)
		return nil, err
	case call == "PATCH /deployment/global":
		global, err := strict[wire.HostConfig](body)
		if err != nil {
			return nil, err
		}
		_, err = c.call(ctx, r.Method, "deploymentID", "global", global)
		return nil, err
	case call == "POST /deployment", strings.HasPrefix(call, "PATCH /deployment/"):
		d, err := strict[wire.Deployment](body)
		if err != nil {
			return nil, err
		}
		if r.Method == http.MethodPost {
			return nil, c.postDeployment(ctx, d)
		}
		return nil, c.patchDeployment(ctx, d)
	case strings.HasPrefix(call, "POST /config/boot/"):
		b, err := strict[wire.BootConfig](body)
		if err != nil {
			return nil, err
		}
		_, err = c.call(ctx, r.Method, "configBoot", b.ConfigName, b)
		return nil, err
	case call == "POST /parlay":
		m, err := strict[wire.Map](body)
		if err != nil {
			return nil, err
		}
		return nil, c.PostParlay(ctx, m)
	}
	return raw() // look-ups, unknown paths
}

// compare says what is wrong with what the client made of a recorded answer.
func compare(step recording.Step, result any, err error) string {
	if step.Response.Closed() {
		if !errors.Is(err, wire.ErrNoAnswer) {
			return fmt.Sprintf("got %v, want ErrNoAnswer", err)
		}
		return ""
	}
	if step.Response.Status != http.StatusOK {
		if !errors.Is(err, wire.ErrProtocol) || !strings.Contains(err.Error(), "404 Not Found") {
			return fmt.Sprintf("got %v, want ErrProtocol with the status", err)
		}
		return ""
	}
	var recorded map[string]json.RawMessage
	if err := json.Unmarshal(step.Response.Body, &recorded); err != nil {
		return err.Error()
	}
	if len(recorded["error"]) > 0 {
		return compareRefusal(step, recorded, err)
	}
	if err != nil {
		return err.Error()
	}
	if result == nil {
		if len(recorded["payload"]) > 0 {
			return "a payload got lost"
		}
		return ""
	}
	got, err := json.Marshal(result)
	if err != nil {
		return err.Error()
	}
	want := recorded["payload"]
	if len(want) == 0 {
		want = []byte("null") // a raw call: no payload is a nil one
	}
	diff, err := recording.Diff(want, got)
	if err != nil {
		return err.Error()
	}
	return diff
}

func compareRefusal(step recording.Step, recorded map[string]json.RawMessage, err error) string {
	var want struct{ Error, Warning, FriendlyError string }
	if err := json.Unmarshal(step.Response.Body, &want); err != nil {
		return err.Error()
	}
	call := step.Request.String()
	var kind error
	switch {
	case strings.HasPrefix(call, "DELETE /parlay/logs/"):
		if err != nil {
			return fmt.Sprintf("got %v, want none: no log is what was asked for", err)
		}
		return ""
	case strings.HasPrefix(call, "GET /parlay/logs/"):
		if !errors.Is(err, wire.ErrNoLog) {
			return fmt.Sprintf("got %v, want ErrNoLog", err)
		}
		return ""
	case strings.HasPrefix(call, "GET /deployment/"):
		kind = wire.ErrNotFound
	case want.Error == "No deployment configurations found":
		kind = wire.ErrNoDeployments
	}
	if kind != nil && !errors.Is(err, kind) {
		return fmt.Sprintf("got %v, want %v", err, kind)
	}
	var refused *wire.RefusedError
	if !errors.As(err, &refused) {
		return fmt.Sprintf("got %v, want a refusal", err)
	}
	if refused.Op != call || refused.Message != want.Error || refused.Detail != want.Warning+want.FriendlyError {
		return fmt.Sprintf("got %+v, recorded %s", refused, step.Response.Body)
	}
	for _, sentinel := range []error{wire.ErrNoLog, wire.ErrNotFound, wire.ErrNoDeployments, wire.ErrNoAnswer, wire.ErrUnreachable, wire.ErrProtocol} {
		if !errors.Is(kind, sentinel) && errors.Is(err, sentinel) {
			return fmt.Sprintf("%v is also %v", err, sentinel)
		}
	}
	return ""
}
