package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// logServer is the parlay half of a server, scripted: post decides what a POST
// does to the log. Any call that a test does not expect panics on the nil Server.
type logServer struct {
	Server
	mu      sync.Mutex
	posts   int
	deletes int
	log     wire.Log
	noLog   bool
	post    func(s *logServer, m wire.Map) error
	read    func(s *logServer) error // nil: none
}

func (s *logServer) PostParlay(_ context.Context, m wire.Map) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	return s.post(s, m)
}

func (s *logServer) Log(context.Context, string) (wire.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read != nil {
		if err := s.read(s); err != nil {
			return wire.Log{}, err
		}
	}
	if s.noLog {
		return wire.Log{}, wire.ErrNoLog
	}
	return s.log, nil
}

func (s *logServer) DeleteLog(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes++
	s.log, s.noLog = wire.Log{}, true
	return nil
}

// finish puts an entry without error for every action of m in the log.
func (s *logServer) finish(m wire.Map) {
	s.noLog, s.log.State = false, wire.StateCompleted
	for _, a := range m.Deployments[0].Actions {
		s.log.Entries = append(s.log.Entries, wire.LogEntry{Task: a.Name, Entry: "ok"})
	}
}

func (s *logServer) fails(m wire.Map, n int, text string) {
	s.noLog, s.log.State = false, wire.StateFailed
	for i, a := range m.Deployments[0].Actions[:n+1] {
		e := wire.LogEntry{Task: a.Name, Entry: "ok"}
		if i == n {
			e.Error, e.Entry = text, "boom"
		}
		s.log.Entries = append(s.log.Entries, e)
	}
}

func twoActions(id string) (wire.Map, error) {
	return wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{"127.0.1.1"}, Actions: []wire.Action{
		{Name: "guard#" + id, Type: wire.ActionCommand, Timeout: 60}, {Name: "prep#" + id, Type: wire.ActionCommand, Timeout: 60},
	}}}}, nil
}

// runTestJob runs one job against s on a virtual clock and says how often it was
// recorded and its deployment restored.
func runTestJob(t *testing.T, s *logServer, adopt string, limit time.Duration) (l wire.Log, recorded, restored int, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := New(s, nil, nil, Options{})
		n := 0
		e.random = func(int) string { n++; return fmt.Sprintf("job%d", n) }
		ctx, cancel := wait.WithLimit(t.Context(), limit, "--kubernetes-timeout")
		defer cancel()
		r, end := e.newRun(ctx)
		defer end()
		l, err = r.runJob(ctx, job{
			step: event.StepPackages, address: "127.0.1.1", build: twoActions, adopt: adopt,
			posting: func(string) error { recorded++; return nil },
			restore: func(context.Context) error { restored++; return nil },
			observe: func(string) {},
		})
	})
	return l, recorded, restored, err
}

func TestJobIgnoresAnOldCompleted(t *testing.T) {
	s := &logServer{post: func(s *logServer, m wire.Map) error {
		// The real server: the old log is back (a job that ended late), state and all.
		s.noLog = false
		s.log = wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{{Task: "guard#old"}, {Task: "prep#old"}}}
		return nil
	}}
	reads := 0
	s.read = func(s *logServer) error {
		if reads++; reads == 5 {
			m, _ := twoActions("job1")
			s.finish(m)
		}
		return nil
	}
	l, recorded, _, err := runTestJob(t, s, "", time.Hour)
	if err != nil || len(l.Entries) != 2 || l.Entries[1].Task != "prep#job1" {
		t.Fatalf("log %v, err %v", l, err)
	}
	if s.posts != 1 || recorded != 1 || reads < 5 {
		t.Errorf("posts %d, recorded %d, reads %d", s.posts, recorded, reads)
	}
}

func TestJobUnansweredPostIsReadBackNotRepeated(t *testing.T) {
	s := &logServer{noLog: true, post: func(s *logServer, m wire.Map) error {
		s.finish(m)
		return fmt.Errorf("POST /parlay: %w", wire.ErrNoAnswer)
	}}
	if _, _, _, err := runTestJob(t, s, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	if s.posts != 1 {
		t.Errorf("posted %d times, want once", s.posts)
	}
}

func TestJobAdoptsTheOneInFlight(t *testing.T) {
	s := &logServer{post: func(*logServer, wire.Map) error { return errors.New("must not be posted") }}
	m, _ := twoActions("earlier")
	s.finish(m)
	if _, recorded, _, err := runTestJob(t, s, "earlier", time.Hour); err != nil || recorded != 0 || s.deletes != 0 {
		t.Fatalf("recorded %d, deletes %d, err %v", recorded, s.deletes, err)
	}
}

func TestJobLostWithTheServerIsPostedAgain(t *testing.T) {
	s := &logServer{noLog: true}
	s.post = func(s *logServer, m wire.Map) error {
		if s.posts == 2 {
			s.finish(m)
		}
		return nil // the first one vanishes with the server's memory
	}
	if _, recorded, restored, err := runTestJob(t, s, "", time.Hour); err != nil || s.posts != 2 || recorded != 2 || restored != 1 {
		t.Fatalf("posts %d, recorded %d, restored %d, err %v", s.posts, recorded, restored, err)
	}
}

func TestJobServerForgotTheHost(t *testing.T) {
	s := &logServer{noLog: true}
	s.post = func(s *logServer, m wire.Map) error {
		switch s.posts {
		case 1:
			return wire.ErrNoDeployments
		case 2:
			return &wire.RefusedError{Op: "POST /parlay", Message: "Host [127.0.1.1] has no SSH credentials"}
		}
		s.finish(m)
		return nil
	}
	if _, _, restored, err := runTestJob(t, s, "", time.Hour); err != nil || restored != 2 {
		t.Fatalf("restored %d, err %v", restored, err)
	}
}

func TestJobFailedActionEndsIt(t *testing.T) {
	s := &logServer{noLog: true, post: func(s *logServer, m wire.Map) error { s.fails(m, 1, "Process exited with status 3"); return nil }}
	_, _, _, err := runTestJob(t, s, "", time.Hour)
	if err == nil || !strings.Contains(err.Error(), "status 3") || s.posts != 1 {
		t.Fatalf("posts %d, err %v", s.posts, err)
	}
}

func TestJobHostThatRebootsIsDialedAgain(t *testing.T) {
	s := &logServer{noLog: true}
	s.post = func(s *logServer, m wire.Map) error {
		if s.posts < 3 {
			s.fails(m, 0, "dial tcp 127.0.1.1:22: connect: connection refused")
		} else {
			s.finish(m)
		}
		return nil
	}
	if _, _, _, err := runTestJob(t, s, "", time.Hour); err != nil || s.posts != 3 {
		t.Fatalf("posts %d, err %v", s.posts, err)
	}
}

func TestJobNeverDeletesALogThatStillRuns(t *testing.T) {
	s := &logServer{log: wire.Log{State: wire.StateRunning, Entries: []wire.LogEntry{{Task: "base#other"}}}}
	s.post = func(*logServer, wire.Map) error { return errors.New("must not be posted") }
	_, _, _, err := runTestJob(t, s, "", 10*time.Minute)
	var te *wait.TimeoutError
	if !errors.As(err, &te) || te.LimitName != "--kubernetes-timeout" || !strings.Contains(err.Error(), "last task: base") {
		t.Fatalf("err %v", err)
	}
	if s.deletes != 0 || s.posts != 0 {
		t.Errorf("deletes %d, posts %d", s.deletes, s.posts)
	}
}

func TestJobServerDownIsWaitedFor(t *testing.T) {
	reads := 0
	s := &logServer{noLog: true, post: func(s *logServer, m wire.Map) error { s.finish(m); return nil }}
	s.read = func(*logServer) error {
		if reads++; reads < 20 {
			return fmt.Errorf("GET: %w", wire.ErrUnreachable)
		}
		return nil
	}
	if _, _, _, err := runTestJob(t, s, "", time.Hour); err != nil || s.posts != 1 {
		t.Fatalf("posts %d, err %v", s.posts, err)
	}
}

func TestInterval(t *testing.T) {
	for _, tt := range []struct{ elapsed, want time.Duration }{
		{0, 2 * time.Second}, {40 * time.Second, 2 * time.Second}, {2 * time.Minute, 4 * time.Second}, {time.Hour, 30 * time.Second},
	} {
		if got := interval(2*time.Second, tt.elapsed, 30*time.Second); got != tt.want {
			t.Errorf("after %s: %s, want %s", tt.elapsed, got, tt.want)
		}
	}
}
