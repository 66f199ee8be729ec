package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// What arguments and flags of logs mean.
func TestLogsFlags(t *testing.T) {
	type meaning struct {
		Machine, Namespace, Task string
		Follow                   bool
		Timeout                  time.Duration
	}
	for args, want := range map[string]meaning{
		"machine worker":                             {Machine: "worker"},
		"machine/worker -f":                          {Machine: "worker", Follow: true},
		"ma prod/worker --task init --timeout 5m":    {Machine: "prod/worker", Task: "init", Timeout: 5 * time.Minute},
		"machine machine/worker --follow -n testing": {Machine: "worker", Follow: true, Namespace: "testing"},
	} {
		var got meaning
		cmd := newLogsCmd(newFactory(nil, first(ui.Test("", false)), nil), func(_ context.Context, o *logsOptions) error {
			got = meaning{o.machine, o.namespace, o.task, o.follow, o.timeout}
			return nil
		})
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", args, d)
		}
	}
	for args, want := range map[string]string{
		"logs":                            "of which machine?",
		"logs machine":                    "of which machine?",
		"logs worker":                     `unexpected argument "worker": there are logs of machines`,
		"logs machine a b":                "logs of one machine at a time, not of a and b",
		"logs machine a --timeout -1s":    "must not be negative",
		"logs machine a -o wide":          "-o wide: logs knows -o table, json",
		"logs machine a --store local":    "has no Machine default/a",
		"logs machine n/a --store local ": "has no Machine n/a",
	} {
		code, out, errOut := run(t, nil, strings.Fields(args)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, out, errOut)
		}
	}
}

// fakeLogs answers with one log after the other, and then with the last one.
type fakeLogs struct {
	logs []func() (wire.Log, error)
	asks int
}

func (s *fakeLogs) URL() string { return "https://plunder.example.com" }

func (s *fakeLogs) Log(_ context.Context, address string) (wire.Log, error) {
	if address != "10.1.0.1" {
		return wire.Log{}, fmt.Errorf("asked for %s", address)
	}
	n := min(s.asks, len(s.logs)-1)
	s.asks++
	return s.logs[n]()
}

func logOf(state string, entries ...wire.LogEntry) func() (wire.Log, error) {
	return func() (wire.Log, error) { return wire.Log{State: state, Entries: entries}, nil }
}

func logFails(err error) func() (wire.Log, error) {
	return func() (wire.Log, error) { return wire.Log{}, err }
}

func logReaderOf(o logsOptions, ready bool, logs ...func() (wire.Log, error)) (r *logReader, stdout, stderr fmt.Stringer) {
	streams, out, errOut := ui.Test("", false)
	o.f = newFactory(nil, streams, nil)
	format, _ := parseOutput(o.output)
	rec := capi.Record{Key: capi.Key{Namespace: "default", Name: "w"}, Address: "10.1.0.1", Ready: ready, Phase: capi.PhaseRunning}
	if !ready {
		rec.Phase = capi.PhaseFailed
	}
	look := func(context.Context) (capi.Record, bool, error) { return rec, true, nil }
	return &logReader{o: &o, out: format, rec: rec, server: &fakeLogs{logs: logs}, shown: map[string]bool{}, look: look}, out, errOut
}

var (
	began = time.Date(2026, 11, 23, 10, 0, 0, 0, time.FixedZone("", 3600))
	prep  = wire.LogEntry{Created: began, Task: "prep#aaaaa", Entry: "token: abcdef.0123456789abcdef\n\x1b[31mred\x1b[0m\r\n"}
	quiet = wire.LogEntry{Created: began.Add(time.Second), Task: "base#aaaaa", Entry: wire.NoOutput}
	again = wire.LogEntry{Created: began.Add(time.Minute), Task: "prep#bbbbb", Entry: "done"}
	wrong = wire.LogEntry{Created: began.Add(2 * time.Minute), Task: "init#bbbbb", Error: "Process exited with status 1\n", Entry: "no"}
)

const shownOfPrep = "2026-11-23T09:00:00Z prep ok\n  token: ***\n  [31mred[0m\n"

// Everything is shown once, whatever becomes of the log and of the server meanwhile.
func TestLogsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, out, errOut := logReaderOf(logsOptions{}, false,
			logFails(wire.ErrNoLog), logFails(wire.ErrNoLog),
			logOf(wire.StateRunning, prep), logFails(wire.ErrUnreachable), logOf(wire.StateRunning, prep, quiet),
			logOf(wire.StateRunning, again), logOf(wire.StateFailed, again, wrong))
		start := time.Now()
		if err := r.followed(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := shownOfPrep + `2026-11-23T09:00:01Z base ok
2026-11-23T09:01:00Z prep ok
  done
2026-11-23T09:02:00Z init failed: Process exited with status 1
  no
`
		if d := cmp.Diff(want, out.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if d := cmp.Diff("no log of Machine default/w yet: waiting for one\nMachine default/w at 10.1.0.1: the job is failed, actions: 2\n", errOut.String()); d != "" {
			t.Errorf("stderr (-want +got):\n%s", d)
		}
		if took := time.Since(start); took != 6*defaultWatchInterval {
			t.Errorf("took %s", took)
		}
	})
}

// An installation is several jobs: the end of one is not the end, before the machine is
// ready, has failed or is gone.
func TestLogsFollowAcrossJobs(t *testing.T) {
	for name, tt := range map[string]struct {
		last capi.Record
		gone bool
	}{
		"ready":  {last: capi.Record{Address: "10.1.0.1", Ready: true, Phase: capi.PhaseProvisioned}},
		"failed": {last: capi.Record{Address: "10.1.0.1", Phase: capi.PhaseFailed}},
		"gone":   {gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, out, errOut := logReaderOf(logsOptions{}, false,
					logOf(wire.StateCompleted, prep), logFails(wire.ErrNoLog), logOf(wire.StateRunning, again), logOf(wire.StateFailed, again, wrong))
				looks := 0
				r.look = func(context.Context) (capi.Record, bool, error) {
					looks++
					switch rec := (capi.Record{Key: r.rec.Key, Phase: capi.PhaseProvisioning}); {
					case looks == 1: // it has no hardware
						return rec, true, nil
					case looks == 3:
						return rec, false, capi.ErrUnavailable
					case looks < 7:
						rec.Address = "10.1.0.1"
						return rec, true, nil
					}
					tt.last.Key = r.rec.Key
					return tt.last, !tt.gone, nil
				}
				if err := r.followed(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := shownOfPrep + "2026-11-23T09:01:00Z prep ok\n  done\n2026-11-23T09:02:00Z init failed: Process exited with status 1\n  no\n"
				if d := cmp.Diff(want, out.String()); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				want = `Machine default/w has no hardware yet: waiting for it
a job ended, and Machine default/w is not ready: waiting for the next job
no log of Machine default/w yet: waiting for one
Machine default/w at 10.1.0.1: the job is failed, actions: 2
`
				if d := cmp.Diff(want, errOut.String()); d != "" {
					t.Errorf("stderr (-want +got):\n%s", d)
				}
			})
		})
	}
}

// A machine that is ready and has no log gets none any more.
func TestLogsFollowOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, out, errOut := logReaderOf(logsOptions{follow: true, output: formatJSON}, true, logFails(wire.ErrNoLog))
		if err := r.followed(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out.String() != `{"machine":"default/w","state":""}`+"\n" || !strings.Contains(errOut.String(), "no log of Machine default/w: plunder has run nothing at its address") {
			t.Errorf("%s%s", out, errOut)
		}
	})
}

// There is one deadline, and Ctrl-C is nobody's mistake.
func TestLogsFollowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := logReaderOf(logsOptions{}, false, logOf(wire.StateRunning, prep))
		ctx, cancel := wait.WithLimit(t.Context(), time.Minute, "--timeout")
		defer cancel()
		err := r.followed(ctx)
		var timeout *wait.TimeoutError
		if !errors.As(err, &timeout) || exitCode(err) != exitTimeout || !strings.Contains(err.Error(), "--timeout is 1m0s") {
			t.Errorf("%v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, out, _ := logReaderOf(logsOptions{}, false, logOf(wire.StateRunning, prep))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		err := r.followed(ctx)
		var silent *silentError
		if !errors.As(err, &silent) || exitCode(err) != exitInterrupted || out.String() != shownOfPrep {
			t.Errorf("%v, %s", err, out)
		}
	})
	r, _, _ := logReaderOf(logsOptions{}, false, logFails(&wire.RefusedError{Message: "no"}))
	if err := r.followed(t.Context()); exitCode(err) != exitPlunder {
		t.Errorf("%v", err)
	}
}

func TestLogsOnce(t *testing.T) {
	secret := wire.LogEntry{Created: began, Task: "kubeconfig.read#ccccc", Entry: "a\nCAPPLUNDER-PLAIN-BEGIN\naHVudGVyMg==\nCAPPLUNDER-PLAIN-END\nb"}
	cut := wire.LogEntry{Created: began, Task: "kubeconfig.read#ddddd", Entry: "CAPPLUNDER-SEALED-BEGIN\naHVudGVyMg=="}
	for name, tt := range map[string]struct {
		options        logsOptions
		log            func() (wire.Log, error)
		stdout, stderr string
	}{
		"running": {
			logsOptions{}, logOf(wire.StateRunning, prep), shownOfPrep,
			"Machine default/w at 10.1.0.1: the job is running, actions that have ended: 1; --follow shows the rest\n",
		},
		"a kubeconfig": {
			logsOptions{}, logOf(wire.StateCompleted, secret, cut),
			"2026-11-23T09:00:00Z kubeconfig.read ok\n  a\n  CAPPLUNDER-PLAIN-BEGIN *** CAPPLUNDER-PLAIN-END\n  b\n2026-11-23T09:00:00Z kubeconfig.read ok\n  CAPPLUNDER-SEALED-BEGIN *** \n",
			"Machine default/w at 10.1.0.1: the job is completed, actions: 2\n",
		},
		"a task": {
			logsOptions{task: "init"}, logOf(wire.StateFailed, prep, wrong), "2026-11-23T09:02:00Z init failed: Process exited with status 1\n  no\n",
			"Machine default/w at 10.1.0.1: the job is failed, actions: 2\n",
		},
		"no such task": {
			logsOptions{task: "inti"}, logOf(wire.StateFailed, prep, again, wrong), "",
			"no action \"inti\" in the log of Machine default/w, there are prep, init; did you mean \"init\"?\nMachine default/w at 10.1.0.1: the job is failed, actions: 3\n",
		},
		"JSON": {
			logsOptions{output: formatJSON}, logOf(wire.StateCompleted, again), `{
  "machine": "default/w",
  "address": "10.1.0.1",
  "server": "https://plunder.example.com",
  "state": "Completed",
  "entries": [
    {
      "machine": "default/w",
      "time": "2026-11-23T09:01:00Z",
      "task": "prep",
      "job": "bbbbb",
      "output": "done"
    }
  ]
}
`, "",
		},
		"nothing": {
			logsOptions{}, logFails(wire.ErrNoLog), "",
			"no log of Machine default/w: plunder has run nothing at its address since the server was started, or the first action has not ended yet\nnext: capplunder get machines w -n default -o yaml\n",
		},
	} {
		r, out, errOut := logReaderOf(tt.options, false, tt.log)
		if err := r.once(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(tt.stdout, out.String()); d != "" {
			t.Errorf("%s: (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(tt.stderr, errOut.String()); d != "" {
			t.Errorf("%s: stderr (-want +got):\n%s", name, d)
		}
	}
}
