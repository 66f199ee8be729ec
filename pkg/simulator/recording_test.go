package simulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/recording"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// TestRecordings plays every recording of both server versions against the
// simulator: the same requests have to give the same answers.
func TestRecordings(t *testing.T) {
	all, err := recording.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range all {
		t.Run(rec.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, rec) })
		})
	}
}

func replay(t *testing.T, rec recording.Recording) {
	t.Helper()
	s := New(Config{
		Version: rec.Version, Machines: -1, MACs: rec.Setup.Unleased, BootConfigs: rec.Setup.BootConfigs,
		BootLoop: time.Hour, Global: &wire.HostConfig{}, Hosts: recordedHosts(rec.Setup.Hosts),
	})
	defer s.Close()
	for i, step := range rec.Steps {
		if step.Request.Method == http.MethodGet && step.Note == "" {
			time.Sleep(10 * time.Second) // a job that was posted before has ended in the recording
		}
		status, body, err := roundTrip(s, step.Request)
		for range 1000 {
			if len(step.RepeatUntilState) == 0 || inState(body, step.RepeatUntilState) {
				break
			}
			time.Sleep(10 * time.Millisecond)
			status, body, err = roundTrip(s, step.Request)
		}
		if step.Response.Closed() {
			if !errors.Is(err, io.EOF) {
				t.Errorf("step %d: %s: got %v, want the connection closed", i, step.Request, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("step %d: %s: %v", i, step.Request, err)
		}
		if status != step.Response.Status {
			t.Errorf("step %d: %s: status %d, want %d", i, step.Request, status, step.Response.Status)
		}
		want := step.Response.Bytes()
		if bytes.Equal(want, body) {
			continue
		}
		diff, err := recording.Diff(want, body)
		if err != nil {
			t.Errorf("step %d: %s: %v", i, step.Request, err)
		}
		if diff != "" {
			t.Errorf("step %d: %s (-recorded +simulated):\n%s", i, step.Request, diff)
		}
	}
}

func inState(body []byte, states []string) bool {
	return slices.ContainsFunc(states, func(s string) bool { return bytes.Contains(body, []byte(`"state":"`+s+`"`)) })
}

func roundTrip(s *Server, r recording.Request) (int, []byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), r.Method, "https://plunder:60443"+r.Path, bytes.NewReader(r.Bytes()))
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// recordedHosts makes the hosts that the recordings were made with.
func recordedHosts(described map[string]string) map[string]HostFunc {
	hosts := map[string]HostFunc{}
	for address, what := range described {
		hosts[address] = func(_ context.Context, c host.Command) (host.Result, error) {
			switch {
			case strings.HasPrefix(what, "refuses"):
				return host.Result{}, ErrRefused
			case c.User != "deploy":
				return host.Result{Err: errors.New("no such user")}, nil
			case strings.Contains(c.Line, "fail"):
				return host.Result{Output: "boom\n", Exit: 3}, nil
			case c.Line == "uptime":
				return host.Result{Output: " 10:00:00 up 1 min, 0 users\n"}, nil
			case strings.HasPrefix(c.Line, "tee "):
				return host.Result{Output: string(c.Stdin)}, nil
			case strings.HasPrefix(c.Line, "kubeadm token create"):
				return host.Result{Output: "kubeadm join 127.0.1.1:6443 --token abc.def --discovery-token-ca-cert-hash sha256:00\n"}, nil
			}
			return host.Result{Output: "ok\n"}, nil
		}
	}
	return hosts
}
