package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return noon.Add(time.Duration(seconds * float64(time.Second)))
}

func secs(s float64) event.Seconds { return event.Seconds(s * float64(time.Second)) }

// story has every type of event.
func story() []event.Event {
	const cp, worker, idle, third, fourth = "default/controlplane", "default/worker", "default/idle", "default/third", "default/fourth"
	steps := []event.Step{event.StepHardware, event.StepDeployment, event.StepOS, event.StepRecord}
	return []event.Event{
		{Time: at(0), Type: event.PlanReady, Message: "5 machines on https://192.168.1.1:60443", Machines: []event.PlannedMachine{
			{Machine: cp, Role: "control-plane", Steps: steps}, {Machine: worker, Role: "worker", Steps: steps}, {Machine: idle}, {Machine: third}, {Machine: fourth},
		}},
		{Time: at(0), Type: event.Skipped, Machine: idle, ProviderID: "plunder://00:50:56:00:00:01", Message: "already provisioned as plunder://00:50:56:00:00:01"},
		{Time: at(0), Type: event.Started, Machine: cp, Step: event.StepHardware},
		{Time: at(0), Type: event.Started, Machine: worker, Step: event.StepHardware},
		{Time: at(0.1), Type: event.Done, Machine: cp, Step: event.StepHardware, MAC: "00:50:56:a5:b5:f1", Elapsed: secs(0.1), Message: "most recently seen (0s ago), 1 of 1 free"},
		{Time: at(0.2), Type: event.NoHardware, Machine: worker, Step: event.StepHardware, Message: "No Hardware found: plunder lists no unleased machine"},
		{Time: at(0.3), Type: event.Started, Machine: cp, Step: event.StepOS, MAC: "00:50:56:a5:b5:f1", Address: "192.168.1.123", HostName: "controlplane-x1y2z"},
		{Time: at(2), Type: event.Waiting, Machine: cp, Step: event.StepOS, Elapsed: secs(1.7), Observation: "port 22 is closed"},
		{Time: at(4), Type: event.Waiting, Machine: cp, Step: event.StepOS, Elapsed: secs(3.7), Observation: "port 22 is closed"},
		{Time: at(40), Type: event.Waiting, Machine: cp, Step: event.StepOS, Elapsed: secs(39.7), Observation: "port 22 is closed"},
		{Time: at(65), Type: event.Info, Message: "the plunder server restarted"},
		{Time: at(66), Type: event.Warning, Machine: cp, Message: "event not stored: disk\nfull \x1b[31mred"},
		{Time: at(421), Type: event.Done, Machine: cp, Step: event.StepOS, Elapsed: secs(420.7), Message: "ubuntu 24.04 on controlplane-x1y2z"},
		{Time: at(422), Type: event.Ready, Machine: cp, Elapsed: secs(422), MAC: "00:50:56:a5:b5:f1", ProviderID: "plunder://00:50:56:a5:b5:f1", Message: "ready as plunder://00:50:56:a5:b5:f1"},
		{Time: at(430), Type: event.Deleted, Machine: "default/old", Elapsed: secs(430), MAC: "00:50:56:a5:b5:f2", Message: "back in the pool (wiped)"},
		{Time: at(500), Type: event.Failed, Machine: third, Step: event.StepOS, Elapsed: secs(500), Message: "a stranger answers at 192.168.1.125", Next: "capplunder get deployments"},
		{Time: at(600), Type: event.TimedOut, Machine: worker, Step: event.StepHardware, Elapsed: secs(600), Message: "find free hardware: timed out after 10m0s"},
		{Time: at(601), Type: event.Cancelled, Machine: fourth, Step: event.StepOS, Elapsed: secs(601)},
		{Time: at(601), Type: event.Summary, Elapsed: secs(601), Counts: &event.Counts{Ready: 1, Skipped: 1, Failed: 1, TimedOut: 1, Cancelled: 1}, Message: "1 ready, 1 unchanged, 1 failed, 1 timed out, 1 interrupted"},
	}
}

func play(t *testing.T, r Reporter, events []event.Event) {
	t.Helper()
	for _, e := range events {
		r.Report(e)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReporters(t *testing.T) {
	tests := []struct {
		name   string
		tty    bool
		prefix string
		opts   ReportOptions
	}{
		{name: "plain"},
		{name: "plain-verbose", opts: ReportOptions{Verbosity: 1}},
		{name: "plain-quiet", opts: ReportOptions{Quiet: true}},
		{name: "plain-simulated", prefix: "[simulated] "},
		{name: "terminal", tty: true},
		{name: "terminal-verbose", tty: true, opts: ReportOptions{Verbosity: 1}},
		{name: "terminal-simulated", tty: true, prefix: "[simulated] "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			streams, out, errOut := Test("", tt.tty)
			streams.Err.SetPrefix(tt.prefix)
			play(t, NewReporter(streams, tt.opts), story())
			golden(t, tt.name, errOut.String())
			if out.Len() > 0 {
				t.Errorf("stdout is for results, got %q", out)
			}
			if !tt.tty && strings.Contains(errOut.String(), "\x1b") {
				t.Error("escape sequences off a terminal")
			}
			for line := range strings.Lines(errOut.String()) {
				if !strings.HasPrefix(line, tt.prefix) {
					t.Errorf("line without prefix: %q", line)
				}
			}
		})
	}
}

func TestNoColor(t *testing.T) {
	streams, _, errOut := Test("", true)
	streams.NoColor()
	play(t, NewReporter(streams, ReportOptions{}), story())
	if strings.Contains(errOut.String(), "\x1b") {
		t.Errorf("colours in %q", errOut)
	}
}

func TestJSONReporter(t *testing.T) {
	streams, out, errOut := Test("", false)
	play(t, NewJSONReporter(streams.Out), story())
	golden(t, "json", out.String())
	if errOut.Len() > 0 {
		t.Errorf("stderr: %q", errOut)
	}
	dec := json.NewDecoder(bytes.NewReader(out.Bytes()))
	for i, want := range story() {
		if want.Time.Equal(at(4)) {
			continue // the same was said two seconds before
		}
		var got struct {
			Type    event.Type
			Machine string
		}
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if got.Type != want.Type || got.Machine != want.Machine {
			t.Errorf("line %d: got %v, want %s %s", i+1, got, want.Type, want.Machine)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestJSONReporterTellsWriteErrors(t *testing.T) {
	r := NewJSONReporter(brokenPipe{})
	r.Report(story()[0])
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("got %v", err)
	}
}

// A pipe that nobody reads must not hold up the engine.
func TestReportNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := NewJSONReporter(stuck{gate})
		for range 10_000 {
			r.Report(event.Event{Type: event.Info})
		}
		synctest.Wait()
		close(gate)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

type stuck struct{ gate chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.gate
	return len(p), nil
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams, _, errOut := Test("", false)
		r := NewReporter(streams, ReportOptions{})
		for _, m := range []string{"default/a", "default/b"} {
			r.Report(event.Event{Time: time.Now(), Type: event.Started, Machine: m, Step: event.StepOS})
			r.Report(event.Event{Time: time.Now(), Type: event.Waiting, Machine: m, Step: event.StepOS, Observation: "port 22 is closed"})
		}
		r.Report(event.Event{Time: time.Now(), Type: event.Started, Machine: "default/c", Step: event.StepPackages})
		time.Sleep(65 * time.Second)
		synctest.Wait()
		want := `default/a: waiting for the operating system
default/b: waiting for the operating system
default/c: installing packages
still waiting for the operating system for 30s: default/a, default/b (port 22 is closed)
still installing packages for 30s: default/c
still waiting for the operating system for 1m0s: default/a, default/b (port 22 is closed)
still installing packages for 1m0s: default/c
`
		if diff := cmp.Diff(want, errOut.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSummaryOfNothing(t *testing.T) {
	e := event.Event{Type: event.Summary, Counts: &event.Counts{Skipped: 2}, Message: "2 unchanged"}
	if got, want := lineOf(e).text, "nothing to do: 2 machines unchanged"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
