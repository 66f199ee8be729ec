package apply_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/state"
)

// colleague is another person with a client and a store of their own, at the same rack.
func (r *rack) colleague() *rack {
	r.t.Helper()
	c := &rack{t: r.t, sim: r.sim, store: state.NewMemory(), opts: r.opts}
	client, err := plunder.New(plunder.Config{URL: "http://plunder.test", AllowHTTP: true}, plunder.WithTransport(r.sim))
	if err != nil {
		r.t.Fatal(err)
	}
	c.client = client
	return c
}

// team is a set of workers without a cluster of its own on 192.168.net.x.
func team(name string, net, n int) string {
	parts := []string{clusterYAML}
	for i := range n {
		parts = append(parts, machineYAML(fmt.Sprintf("%s%d", name, i+1), fmt.Sprintf("192.168.%d.%d", net, 10+i), false, ""))
	}
	return strings.Join(parts, "\n")
}

// Two people apply at the same moment, against a server that loses writes which
// overlap and now and then dies of them. Whoever is told that a machine is ready
// has it alone; the other one is told of the conflict.
func TestTwoPeopleAtOneServer(t *testing.T) {
	for _, crash := range []int{0, 4} {
		for seed := range int64(3) {
			t.Run(fmt.Sprintf("crash %d/seed %d", crash, seed), func(t *testing.T) {
				cfg := simulator.Config{Machines: 8, Seed: seed, RaceWindow: 15 * time.Millisecond, RaceCrash: crash}
				bubble(t, cfg, func(ctx context.Context, a *rack) {
					b := a.colleague()
					defer b.client.Close()
					for round := range 3 {
						var wg sync.WaitGroup
						var errA, errB error
						wg.Go(func() { _, errA = a.apply(ctx, team("a", 1, 3), skipKubernetes) })
						wg.Go(func() {
							time.Sleep(time.Duration(seed) * 7 * time.Millisecond)
							_, errB = b.apply(ctx, team("b", 2, 3), skipKubernetes)
						})
						wg.Wait()
						for _, err := range []error{errA, errB} {
							var conflict *wire.ConflictError
							if err != nil && !errors.As(err, &conflict) {
								t.Errorf("round %d: %v", round, err)
							}
						}
						readyA, readyB := a.ready(), b.ready()
						for mac := range readyA {
							if _, both := readyB[mac]; both {
								t.Errorf("round %d: both believe that they have %s", round, mac)
							}
						}
						if round == 2 && len(readyA)+len(readyB) != 6 {
							t.Errorf("%d and %d ready; %v; %v", len(readyA), len(readyB), errA, errB)
						}
					}
				})
			})
		}
	}
}

// A machine that one person deletes is free as soon as it is in the pool; what
// another person then makes of it stays.
func TestDeleteLeavesWhatOthersTook(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, a *rack) {
		if _, err := a.apply(ctx, team("a", 1, 1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		mac := a.record("a1").MAC
		cut, cancel := context.WithCancel(ctx)
		_, err := a.engineWith(func(e event.Event) {
			if e.Type == event.Started && e.Step == event.StepReturn {
				time.AfterFunc(15*time.Second, cancel) // wiped and reset, not yet seen
			}
		}).Delete(cut, apply.Targets{Machines: []capi.Key{capi.ParseKey("a1", "default")}}, apply.DeleteOptions{}, yes)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("err %v", err)
		}
		time.Sleep(time.Minute) // the machine is in the pool by now

		b := a.colleague()
		defer b.client.Close()
		if _, err := b.apply(ctx, team("b", 2, 1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := a.delete(ctx, "a1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %s", took)
		}
		d, err := b.client.Deployment(ctx, mac)
		if err != nil || d.Config.Address != "192.168.2.10" || a.record("a1").Name != "" || b.box(mac).HostName != b.record("b1").HostName {
			t.Errorf("deployment %+v, %v, record %+v, machine %+v", d.BootConfigName, err, a.record("a1"), b.box(mac))
		}
	})
}

// The server dies between the wipe and the moment when its proof is read. Nobody
// can say any more that the disk was wiped, so nobody does.
func TestDeleteWipeWithoutProof(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		host := r.sim.Host(r.record("w001").MAC)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !host.Wiped() {
				time.Sleep(10 * time.Millisecond)
			}
			r.sim.Crash(5 * time.Second)
		}()
		for run := range 2 {
			began := time.Now()
			_, err := r.delete(ctx, "w001")
			<-done
			var safety *apply.SafetyError
			if took := time.Since(began); !errors.As(err, &safety) && run > 0 || err == nil || took > 20*time.Minute {
				t.Errorf("run %d: %v after %s", run, err, took)
			}
			if r.record("w001").Name == "" {
				t.Fatal("the record is gone")
			}
			r.sane(err)
		}
	})
}

// A server that restarts while wiped machines are on their way back has no reboot
// loop until it has a deployment.
func TestDeleteServerRestartsBeforeTheReturn(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1, DefaultBoot: "none"}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		r.opts.ReturnTimeout = 5 * time.Minute
		_, err := r.engineWith(func(e event.Event) {
			if e.Type == event.Started && e.Step == event.StepReturn {
				r.sim.Crash(20 * time.Second)
			}
		}).Delete(ctx, apply.Targets{Machines: []capi.Key{capi.ParseKey("cp", "default")}}, apply.DeleteOptions{}, yes)
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Hosts that accept connections and say nothing do not keep the others waiting.
func TestApplySilentHostsDoNotStopTheOthers(t *testing.T) {
	const silent = 4
	cfg := simulator.Config{Machines: 16}
	for i := range silent {
		cfg.Faults = append(cfg.Faults, simulator.Fault{Machine: fmt.Sprintf("a%d", i+1), Step: "ssh", Kind: simulator.KindHang})
	}
	bubble(t, cfg, func(ctx context.Context, r *rack) {
		res, err := r.apply(ctx, team("a", 1, 16), skipKubernetes)
		r.sane(err)
		if res.Counts.Ready != 16-silent || res.Counts.TimedOut != silent {
			t.Errorf("%+v", res.Counts)
		}
		for _, m := range res.Machines {
			if m.Outcome == event.Ready && m.Record.OSReadyAt.Sub(m.Record.ClaimedAt) > 13*time.Minute {
				t.Errorf("%s took %s", m.Record.Key, m.Record.OSReadyAt.Sub(m.Record.ClaimedAt))
			}
		}
	})
}

// skewed is a server whose clock is wrong.
type skewed struct {
	http.RoundTripper
	by time.Duration
}

func (s skewed) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := s.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Header.Set("Date", time.Now().Add(s.by).UTC().Format(http.TimeFormat))
	if !strings.HasPrefix(req.URL.Path, "/dhcp/") {
		return resp, nil
	}
	var env struct {
		Payload []wire.Lease `json:"payload"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		return nil, err
	}
	for i := range env.Payload {
		env.Payload[i].Time = env.Payload[i].Time.Add(s.by)
	}
	data, err := json.Marshal(env)
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return resp, err
}

func TestServerClockIsWrong(t *testing.T) {
	for _, by := range []time.Duration{-50 * time.Hour, -40 * time.Second, 40 * time.Second, 50 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
				client, err := plunder.New(plunder.Config{URL: "http://plunder.test", AllowHTTP: true}, plunder.WithTransport(skewed{r.sim, by}))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				r.client.Close()
				r.client = client
				r.sim.PowerOff(r.sim.Machines()[0].MAC)
				time.Sleep(11 * time.Minute) // it is still listed, and gone
				res, err := r.apply(ctx, fleet(1), skipKubernetes)
				if !errors.Is(err, apply.ErrNoHardware) || res.Counts.Ready != 1 || res.Counts.NoHardware != 1 {
					t.Fatalf("%+v %v", res.Counts, err)
				}
				if !strings.Contains(err.Error(), "1 not seen for 10m") {
					t.Errorf("err %v", err)
				}
				if _, err := r.delete(ctx, "cp"); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Somebody has deployed a machine by hand, in capital letters: to the server's API
// that is another MAC, to DHCP and to us it is the same machine.
func TestApplyUpperCaseDeployments(t *testing.T) {
	for _, boot := range []string{"preseed", wire.RebootConfigName} {
		t.Run(boot, func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
				if err := r.client.EnsurePlaceholder(ctx); err != nil { // makes the boot configuration "reboot"
					t.Fatal(err)
				}
				free := r.sim.Machines()[1].MAC
				body, err := json.Marshal(wire.Deployment{MAC: strings.ToUpper(free), BootConfigName: boot, Config: wire.HostConfig{Address: "192.168.9.9", Hostname: "by-hand"}})
				if err != nil {
					t.Fatal(err)
				}
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plunder.test/deployment", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := r.sim.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if err := resp.Body.Close(); err != nil {
					t.Fatal(err)
				}
				res, err := r.apply(ctx, fleet(1), skipKubernetes)
				if !errors.Is(err, apply.ErrNoHardware) || res.Counts.Ready != 1 || res.Counts.NoHardware != 1 {
					t.Fatalf("%+v %v", res.Counts, err)
				}
			})
		})
	}
}

// Interrupted at any moment, a run ends at once and the next one finishes the work.
func TestInterruptedAtRandom(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("apply ", seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
				random := rand.New(rand.NewPCG(seed, 1))
				for range 3 {
					r.interrupted(ctx, time.Duration(random.Int64N(int64(13*time.Minute))), func(ctx context.Context) error {
						_, err := r.apply(ctx, fleet(1))
						return err
					})
				}
				ready := r.ready()
				if _, err := r.apply(ctx, fleet(1)); err != nil {
					t.Error(err)
				}
				r.sane(nil)
				r.untouched(ready)
				for _, m := range r.sim.Machines() {
					if m.Installs != 1 {
						t.Errorf("%+v", m)
					}
				}
			})
		})
		t.Run(fmt.Sprint("delete ", seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
				random := rand.New(rand.NewPCG(seed, 2))
				if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
					t.Fatal(err)
				}
				ready := r.record("cp")
				mac := r.record("w001").MAC
				for range 3 {
					r.interrupted(ctx, time.Duration(random.Int64N(int64(40*time.Second))), func(ctx context.Context) error {
						_, err := r.delete(ctx, "w001")
						var gone *apply.NoRecordError
						if errors.As(err, &gone) {
							return nil
						}
						return err
					})
				}
				var gone *apply.NoRecordError
				if _, err := r.delete(ctx, "w001"); err != nil && !errors.As(err, &gone) {
					t.Error(err)
				}
				r.sane(nil)
				if m := r.box(mac); !m.Wiped || m.Installs != 1 {
					t.Errorf("%+v", m)
				}
				if m := r.box(ready.MAC); m.Wiped || m.Installs != 1 {
					t.Errorf("%+v", m)
				}
			})
		})
	}
}

// interrupted runs f until a moment from now and checks that it stops then.
func (r *rack) interrupted(ctx context.Context, after time.Duration, f func(context.Context) error) {
	r.t.Helper()
	cut, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := time.AfterFunc(after, cancel)
	defer stop.Stop()
	began := time.Now()
	err := f(cut)
	if err != nil && !errors.Is(err, context.Canceled) {
		r.t.Errorf("interrupted after %s: %v", after, err)
	}
	if late := time.Since(began) - after; late > time.Second {
		r.t.Errorf("it ended %s after the interruption", late)
	}
	if err != nil {
		r.sane(err)
	}
}

// Each limit governs its part of the work, and the error names it.
func TestLimitsAreNamed(t *testing.T) {
	stuck := func(machine, step, kind string) []simulator.Fault {
		return []simulator.Fault{{Machine: machine, Step: step, Kind: kind}}
	}
	for _, tt := range []struct {
		name   string
		faults []simulator.Fault
		set    func(*apply.Options)
		delete bool
		least  time.Duration // how long the run must take
	}{
		{name: "--timeout", set: func(o *apply.Options) { o.Timeout = 3 * time.Minute }, least: 3 * time.Minute},
		{name: "--timeout", set: func(o *apply.Options) { o.Timeout = 9 * time.Minute }, least: 9 * time.Minute},
		{name: "--os-timeout", set: func(o *apply.Options) { o.OSTimeout = 4 * time.Minute }, least: 4 * time.Minute},
		{name: "--kubernetes-timeout", set: func(o *apply.Options) { o.KubernetesTimeout = time.Minute }, least: 7 * time.Minute},
		{name: "--hardware-timeout", set: func(o *apply.Options) { o.HardwareTimeout, o.MaxAge = 2*time.Minute, 1 }, least: 2 * time.Minute},
		{name: "--wipe-timeout", faults: stuck("w001", "ssh", simulator.KindLose), set: func(o *apply.Options) { o.WipeTimeout = 2 * time.Minute }, delete: true, least: 2 * time.Minute},
		{name: "--return-timeout", set: func(o *apply.Options) { o.ReturnTimeout = 5 * time.Second }, delete: true, least: 5 * time.Second},
		{name: "--timeout", faults: stuck("w001", "ssh", simulator.KindLose), set: func(o *apply.Options) { o.Timeout = time.Minute }, delete: true, least: time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
				run := func() error { _, err := r.apply(ctx, fleet(1)); return err }
				if tt.delete {
					if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
						t.Fatal(err)
					}
					run = func() error { _, err := r.delete(ctx, "w001"); return err }
				}
				for _, f := range tt.faults {
					r.inject(f)
				}
				tt.set(&r.opts)
				began := time.Now()
				err := run()
				var te *wait.TimeoutError
				if !errors.As(err, &te) || te.LimitName != tt.name || !strings.Contains(err.Error(), tt.name+" is ") {
					t.Errorf("err %v", err)
				}
				if took := time.Since(began); took < tt.least || took > tt.least+2*time.Minute {
					t.Errorf("it took %s", took)
				}
				r.sane(err)
			})
		})
	}
}

// Images whose only user is root may lack sudo, so nothing is run with it.
func TestApplyAsRoot(t *testing.T) {
	cfg := simulator.Config{Machines: 2, Global: &wire.HostConfig{Username: "root", SSHKeyPath: "/root/.ssh/id_rsa.pub"}}
	bubble(t, cfg, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.apply(ctx, fleet(1)); err != nil { // joins a control plane of an earlier run
			t.Fatal(err)
		}
		for _, c := range r.sim.Calls() {
			if c.Function == "POST /parlay" && bytes.Contains(c.Body, []byte(`"commandSudo":"`)) {
				t.Fatalf("sudo: %.200s", c.Body)
			}
		}
	})
}

// Two people give the same address to two machines. One of them gets it; the other
// one is told by the server's list, or, if both wrote at once, by the stranger.
func TestTwoPeopleOneAddress(t *testing.T) {
	for seed := range int64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 4, Seed: seed, RaceWindow: 15 * time.Millisecond}, func(ctx context.Context, a *rack) {
				b := a.colleague()
				defer b.client.Close()
				var wg sync.WaitGroup
				var errA, errB error
				wg.Go(func() { _, errA = a.apply(ctx, team("a", 1, 1), skipKubernetes) })
				wg.Go(func() {
					time.Sleep(time.Duration(seed) * 9 * time.Millisecond)
					_, errB = b.apply(ctx, team("b", 1, 1), skipKubernetes)
				})
				wg.Wait()
				if len(a.ready())+len(b.ready()) != 1 {
					t.Errorf("%d and %d ready", len(a.ready()), len(b.ready()))
				}
				var conflict *wire.ConflictError
				var safety *apply.SafetyError
				if err := errors.Join(errA, errB); !errors.As(err, &conflict) && !errors.As(err, &safety) {
					t.Errorf("err %v", err)
				}
			})
		})
	}
}

func yes(apply.Preview) error { return nil }

// The machine loses its power during an action whose failure does not matter, and
// another one answers at its address. Every action is an SSH session of its own, so
// each looks anew who it is talking to.
func TestStrangerInTheMiddleOfAJob(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		r.inject(simulator.Fault{Machine: "cp", Step: "action:prep.firewall", Kind: simulator.KindDie})
		var once sync.Once
		set, plan := planOf(t, fleet(0))
		_, err := r.engineWith(func(e event.Event) {
			if e.Step == event.StepPackages {
				once.Do(func() { r.inject(simulator.Fault{Machine: "cp", Step: "ssh", Kind: simulator.KindStranger}) })
			}
		}).Apply(ctx, set, plan)
		if err == nil || !strings.Contains(err.Error(), "another machine") {
			t.Errorf("err %v", err)
		}
		h := r.sim.World().At("192.168.0.10")
		if h == nil || len(h.History()) == 0 {
			t.Fatal("no stranger has seen anything, so this shows nothing")
		}
		for _, line := range h.History() {
			if strings.HasPrefix(line, "apt") || strings.HasPrefix(line, "systemctl") || strings.HasPrefix(line, "tee") {
				t.Errorf("the stranger ran %q", line)
			}
		}
	})
}
