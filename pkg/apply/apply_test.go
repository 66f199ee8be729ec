package apply_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

// bubble runs f with a rack on a virtual clock.
func bubble(t *testing.T, cfg simulator.Config, f func(ctx context.Context, r *rack)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t, cfg)
		defer r.close()
		defer func() {
			if t.Failed() {
				r.dump()
			}
		}()
		f(t.Context(), r)
	})
}

func TestApplyTwoMachines(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		began := time.Now()
		res, err := r.apply(ctx, fleet(1))
		if err != nil {
			t.Fatal(err)
		}
		if res.Counts.Ready != 2 {
			t.Fatalf("counts %+v", res.Counts)
		}
		t.Logf("two machines in %s of virtual time, %d POST /parlay", time.Since(began), r.sim.Count("POST /parlay"))
		for _, name := range []string{"cp", "w001"} {
			rec := r.record(name)
			if rec.ProviderID != "plunder://"+rec.MAC || !rec.Ready || rec.Phase != capi.PhaseRunning || rec.NodeName != rec.HostName || rec.NodeUID == "" || rec.Kubernetes != "v1.34.1" || rec.JobID != "" {
				t.Errorf("%s: %+v", name, rec)
			}
			if !strings.HasPrefix(rec.HostName, name+"-") || rec.BootID == "" || len(rec.Disks) == 0 {
				t.Errorf("%s: host name %q, boot %q, disks %v", name, rec.HostName, rec.BootID, rec.Disks)
			}
		}
		if r.record("cp").MAC == r.record("w001").MAC {
			t.Error("one MAC was given twice")
		}

		r.sim.ForgetCalls()
		before := r.record("cp")
		res, err = r.apply(ctx, fleet(1))
		if err != nil || res.Counts.Skipped != 2 {
			t.Fatalf("second run: %+v, %v", res.Counts, err)
		}
		if m := r.sim.Mutations(); len(m) != 0 {
			t.Errorf("a second run changes nothing, but sent %v", m)
		}
		if after := r.record("cp"); !after.UpdatedAt.Equal(before.UpdatedAt) {
			t.Error("a second run wrote the record")
		}
	})
}

func TestApplyEvents(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		events, err := r.store.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, e := range events {
			b.WriteString(e.Type + " " + e.Reason + " " + e.Object.String() + " " + e.Message + "\n")
		}
		for _, want := range []string{
			"Normal PlunderProvision default/cp Plunder has begun provisioning the Operating System",
			"Normal PlunderProvision default/w001 Host has been successfully provisioned OS in ",
			"Normal PlunderInstall default/w001 Machine is ready as plunder://",
		} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
	})
}

// Kubernetes after the fact: a machine that was made with --skip-kubernetes is not
// installed again, it only gets what it lacks.
func TestApplySkipKubernetesThenWithout(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		boot := r.record("cp").BootID
		if rec := r.record("cp"); rec.Kubernetes != "" || !rec.Ready {
			t.Fatalf("%+v", rec)
		}
		posts := r.sim.Count("POST /deployment")
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		if rec := r.record("cp"); rec.Kubernetes != "v1.34.1" || rec.BootID != boot || r.sim.Count("POST /deployment") != posts {
			t.Fatalf("installed again? %+v, %d posts", rec, r.sim.Count("POST /deployment")-posts)
		}
	})
}

func TestApplyStrangerAtTheAddress(t *testing.T) {
	bubble(t, simulator.Config{Faults: []simulator.Fault{{Machine: "192.168.1.10", Step: "ssh", Kind: simulator.KindStranger}}}, func(ctx context.Context, r *rack) {
		res, err := r.apply(ctx, fleet(1))
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || !strings.Contains(err.Error(), "a stranger answers at 192.168.1.10") {
			t.Fatalf("err %v", err)
		}
		if res.Counts.Ready != 1 || res.Counts.Failed != 1 {
			t.Errorf("counts %+v", res.Counts)
		}
		for _, c := range r.sim.Calls() {
			if c.Method == http.MethodPost && strings.Contains(string(c.Body), "192.168.1.10\"") && strings.Contains(string(c.Body), "kube") && !strings.Contains(string(c.Body), "capplunder-probe") {
				t.Errorf("something was posted to the stranger: %.200s", c.Body)
			}
		}
	})
}

func TestApplyNoHardware(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		began := time.Now()
		res, err := r.apply(ctx, fleet(1), skipKubernetes)
		if !errors.Is(err, apply.ErrNoHardware) || res.Counts.Ready != 1 || res.Counts.NoHardware != 1 {
			t.Fatalf("counts %+v, err %v", res.Counts, err)
		}
		if took := time.Since(began); took < 10*time.Minute || took > 11*time.Minute {
			t.Errorf("took %s, want the hardware time-out", took)
		}
		if rec := r.record("w001"); rec.Phase != capi.PhasePending || rec.Reason != capi.ReasonNoHardware {
			t.Errorf("record %+v", rec)
		}
		if got := r.all(event.NoHardware, "w001"); !strings.Contains(got, "No Hardware found") {
			t.Errorf("events %q", got)
		}
		events, _ := r.store.Events(ctx)
		n := 0
		for _, e := range events {
			if e.Reason == capi.ReasonNoHardware {
				n += e.Count
			}
		}
		if n < 9 || n > 11 {
			t.Errorf("the store counted %d NoHardwareFound in ten minutes, want one a minute", n)
		}
	})
}

func TestApplyServerRestartsEmpty(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"while the OS installs": 3 * time.Minute, "while Kubernetes installs": 9 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
				time.AfterFunc(after, func() { r.sim.Crash(20 * time.Second) })
				res, err := r.apply(ctx, fleet(2))
				if err != nil || res.Counts.Ready != 3 {
					t.Fatalf("counts %+v, err %v", res.Counts, err)
				}
				all, err := r.client.Deployments(ctx)
				if err != nil || len(all.Deployments) != 3 {
					t.Errorf("the server must have its deployments again: %d, %v", len(all.Deployments), err)
				}
			})
		})
	}
}

func TestApplyMachineNeverComesUp(t *testing.T) {
	bubble(t, simulator.Config{Faults: []simulator.Fault{{Machine: "w001", Step: "install", Kind: simulator.KindHang}}}, func(ctx context.Context, r *rack) {
		res, err := r.apply(ctx, fleet(1))
		var te *wait.TimeoutError
		if !errors.As(err, &te) || te.LimitName != "--os-timeout" || te.Last == "" {
			t.Fatalf("err %v", err)
		}
		if res.Counts.Ready != 1 || res.Counts.TimedOut != 1 {
			t.Errorf("counts %+v", res.Counts)
		}
		if rec := r.record("w001"); rec.Phase != capi.PhaseFailed || rec.MAC == "" {
			t.Errorf("the claim must stay: %+v", rec)
		}
		if n := r.sim.Count("POST /parlay"); n > 200 {
			t.Errorf("%d POST /parlay for one machine that never answers are too many", n)
		}
	})
}

func TestApplyInterruptedAndResumed(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 2*time.Minute + 300*time.Millisecond, 3 * time.Minute, 8 * time.Minute, 10 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
				cut, cancel := context.WithTimeout(ctx, time.Hour)
				time.AfterFunc(after, cancel)
				res, err := r.apply(cut, fleet(1))
				if !errors.Is(err, context.Canceled) || res.Counts.Cancelled == 0 {
					t.Fatalf("counts %+v, err %v", res.Counts, err)
				}
				for _, m := range res.Machines {
					if m.Err != nil && strings.Count(m.Err.Error(), "interrupted after") > 1 {
						t.Errorf("the last thing seen is not the interruption itself: %v", m.Err)
					}
				}
				cp := r.record("cp")
				if cp.Phase == capi.PhaseFailed {
					t.Errorf("an interruption is not a failure: %+v", cp)
				}
				if _, err := r.apply(ctx, fleet(1)); err != nil {
					t.Fatal(err)
				}
				if again := r.record("cp"); again.MAC != cp.MAC || again.HostName != cp.HostName {
					t.Errorf("claimed %s %s, then %s %s", cp.MAC, cp.HostName, again.MAC, again.HostName)
				}
			})
		})
	}
}

func TestApplyOneFailureDoesNotStopTheOthers(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4, Faults: []simulator.Fault{{Machine: "w002", Step: "action:base", Kind: simulator.KindFail}}}, func(ctx context.Context, r *rack) {
		res, err := r.apply(ctx, fleet(3))
		var run *apply.RunError
		if !errors.As(err, &run) || len(run.Machines) != 1 || run.Machines[0].Key.Name != "w002" || run.Machines[0].Step != event.StepPackages {
			t.Fatalf("err %v", err)
		}
		if res.Counts.Ready != 3 || res.Counts.Failed != 1 {
			t.Errorf("counts %+v", res.Counts)
		}
	})
}

// A failed step is done again by the next run, and nothing before it.
func TestApplyContinuesFromTheFailedStep(t *testing.T) {
	bubble(t, simulator.Config{Faults: []simulator.Fault{{Machine: "cp", Step: "action:kube.images", Kind: simulator.KindFail, Times: 1}}}, func(ctx context.Context, r *rack) {
		_, err := r.apply(ctx, fleet(1))
		if err == nil || !strings.Contains(err.Error(), "cannot join: control plane Machine default/cp") {
			t.Fatalf("the worker must say why it cannot join: %v", err)
		}
		if r.record("cp").Step != string(event.StepPackages) {
			t.Fatalf("record %+v", r.record("cp"))
		}
		r.events = nil
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		if got := r.all(event.Started, ""); strings.Contains(got, "packages") || !strings.Contains(got, "init") {
			t.Errorf("steps of the second run:\n%s", got)
		}
	})
}

func TestApplyRecordFails(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		boom := errors.New("disk full")
		time.AfterFunc(3*time.Minute, func() { r.store.FailSaveRecord = boom })
		_, err := r.apply(ctx, fleet(0), skipKubernetes)
		var re *apply.RecordError
		if !errors.As(err, &re) || !errors.Is(err, boom) {
			t.Fatalf("err %v", err)
		}
		r.store.FailSaveRecord = nil
		posts := r.sim.Count("POST /deployment")
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil || r.sim.Count("POST /deployment") != posts {
			t.Fatalf("the machine was deployed again, or: %v", err)
		}
	})
}

func TestApplyUnknownBootConfigTouchesNothing(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		manifest := strings.Join([]string{clusterYAML, machineYAML("cp", "192.168.0.10", true, ", deploymentType: presede")}, "\n")
		_, err := r.apply(ctx, manifest)
		var unknown *wire.UnknownBootConfigError
		if !errors.As(err, &unknown) || unknown.Name != "presede" {
			t.Fatalf("err %v", err)
		}
		if len(r.sim.Mutations()) != 0 || r.record("cp").Name != "" {
			t.Error("something was touched")
		}
	})
}

func TestApplyAddressInUse(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		other := wire.Deployment{MAC: "00:50:56:ff:ff:01", BootConfigName: "preseed", Config: wire.HostConfig{Address: "192.168.0.10", Hostname: "theirs"}}
		if err := r.client.EnsureDeployment(ctx, other); err != nil {
			t.Fatal(err)
		}
		_, err := r.apply(ctx, fleet(0))
		var conflict *wire.ConflictError
		if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "192.168.0.10") {
			t.Fatalf("err %v", err)
		}
		if rec := r.record("cp"); rec.Claimed() {
			t.Errorf("hardware that was never written to must be free again: %+v", rec)
		}
	})
}

func TestApplyLostUpdatesAreRepeated(t *testing.T) {
	bubble(t, simulator.Config{Machines: 8, Faults: []simulator.Fault{
		{Step: "post", Kind: simulator.KindLose, Times: 3}, {Step: "post", Kind: simulator.KindDrop, Times: 2},
	}}, func(ctx context.Context, r *rack) {
		res, err := r.apply(ctx, fleet(7), skipKubernetes)
		if err != nil || res.Counts.Ready != 8 {
			t.Fatalf("counts %+v, err %v", res.Counts, err)
		}
	})
}

func TestApplyFreshBootIsDemanded(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		// The machine is up with an old system; its record is lost and its deployment stays.
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		old := r.record("cp")
		if err := r.store.DeleteRecord(ctx, old.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		res, err := r.apply(ctx, fleet(0), skipKubernetes)
		if !errors.Is(err, apply.ErrNoHardware) || res.Counts.NoHardware != 1 {
			t.Fatalf("a machine with a deployment is not free: %+v %v", res.Counts, err)
		}
	})
}

func TestDeleteAndApplyAgain(t *testing.T) {
	for _, version := range simulator.Versions() {
		t.Run(version, func(t *testing.T) {
			bubble(t, simulator.Config{Version: version, Machines: 2}, func(ctx context.Context, r *rack) {
				for round := range 3 {
					if _, err := r.apply(ctx, fleet(1)); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
					mac := r.record("w001").MAC
					r.sim.ForgetCalls()
					res, err := r.delete(ctx, "w001")
					if err != nil || res.Counts.Deleted != 1 {
						t.Fatalf("round %d: %+v %v", round, res.Counts, err)
					}
					if rec := r.record("w001"); rec.Name != "" {
						t.Errorf("the record is still there: %+v", rec)
					}
					if _, err := r.client.Deployment(ctx, mac); !errors.Is(err, wire.ErrNotFound) {
						t.Errorf("the deployment is still there: %v", err)
					}
					var free bool
					leases, now, err := r.client.Unleased(ctx)
					for _, l := range leases {
						free = free || l.MAC == mac && now.Sub(l.Time) < time.Minute
					}
					if err != nil || !free {
						t.Errorf("round %d: %s is not back in the pool: %v %v", round, mac, leases, err)
					}
				}
				if _, err := r.delete(ctx, "cp"); err != nil {
					t.Fatalf("the last one: %v", err)
				}
				if _, err := r.apply(ctx, fleet(1)); err != nil {
					t.Fatalf("a new control plane: %v", err)
				}
			})
		})
	}
}

func TestDeleteWhatWasNeverInstalled(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		cut, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		if _, err := r.apply(cut, fleet(0)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := r.delete(ctx, "cp"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDeleteStranger(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		// Another machine takes the worker's address.
		r.opts.WipeTimeout = 5 * time.Minute
		rec := r.record("w001")
		rec.MAC = "00:50:56:ff:ff:01"
		if err := r.store.SaveRecord(ctx, rec); err != nil {
			t.Fatal(err)
		}
		_, err := r.delete(ctx, "w001")
		if err == nil {
			t.Fatal("deleted")
		}
		for _, c := range r.sim.Calls() {
			if strings.Contains(string(c.Body), "wipe.erase") {
				t.Errorf("a wipe was posted: %.300s", c.Body)
			}
		}
		if r.record("w001").Name == "" {
			t.Error("the record is gone")
		}
	})
}

func TestDeleteUnknown(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		_, err := r.delete(ctx, "nobody", "nothing")
		var missing *apply.NoRecordError
		if !errors.As(err, &missing) || len(missing.Keys) != 2 || len(r.sim.Calls()) != 0 {
			t.Fatalf("err %v, calls %v", err, r.sim.Calls())
		}
	})
}

func TestDeleteDeclinedChangesNothing(t *testing.T) {
	bubble(t, simulator.Config{}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		r.sim.ForgetCalls()
		declined := errors.New("no")
		_, err := r.engine().Delete(ctx, apply.Targets{Machines: []capi.Key{{Namespace: "default", Name: "cp"}}}, apply.DeleteOptions{}, func(apply.Preview) error { return declined })
		if !errors.Is(err, declined) || r.record("cp").Phase != capi.PhaseProvisioned {
			t.Fatalf("err %v", err)
		}
		for _, c := range r.sim.Mutations() {
			if c.Function != "POST /parlay" || !strings.Contains(string(c.Body), "capplunder probe#") {
				t.Errorf("%s %s", c.Function, c.Body)
			}
		}
	})
}

// A server without any deployment has no reboot loop: blank machines show up only
// when they happen to boot. The placeholder deployment starts the loop.
func TestApplyWakesAServerThatHasNoLoop(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1, FirmwareRetry: 5 * time.Minute, BootLoop: 30 * time.Second}, func(ctx context.Context, r *rack) {
		r.sim.Crash(time.Minute) // it comes back with nothing, and the machine finds nothing to boot
		time.Sleep(2 * time.Minute)
		res, err := r.apply(ctx, fleet(0), skipKubernetes)
		if err != nil || res.Counts.Ready != 1 {
			t.Fatalf("counts %+v, err %v", res.Counts, err)
		}
		if _, err := r.client.Deployment(ctx, "00:00:00:00:00:00"); err != nil {
			t.Errorf("no placeholder: %v", err)
		}
	})
}
