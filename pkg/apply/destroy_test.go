package apply_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

var clusterC = capi.Key{Namespace: "default", Name: "c"}

// destroy deletes the cluster c as a whole.
func (r *rack) destroy(ctx context.Context, opts apply.DeleteOptions) (apply.Result, error) {
	return r.engine().Delete(ctx, apply.Targets{Clusters: []capi.Key{clusterC}}, opts, yes)
}

// deleteWith deletes machines with options.
func (r *rack) deleteWith(ctx context.Context, opts apply.DeleteOptions, names ...string) (apply.Result, error) {
	t := apply.Targets{}
	for _, n := range names {
		t.Machines = append(t.Machines, capi.ParseKey(n, "default"))
	}
	return r.engine().Delete(ctx, t, opts, yes)
}

// wiped are the machines whose disk has nothing to boot and had a system once.
func (r *rack) wiped() (n int) {
	for _, m := range r.sim.Machines() {
		if m.Installs > 0 && m.Wiped {
			n++
		}
	}
	return n
}

// order is when the machines reached the end of a step, in the order of the events.
func (r *rack) order(step event.Step) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Type == event.Done && e.Step == step {
			names = append(names, strings.TrimPrefix(e.Machine, "default/"))
		}
	}
	return names
}

func TestDestroyCluster(t *testing.T) {
	for _, version := range simulator.Versions() {
		t.Run(version, func(t *testing.T) {
			bubble(t, simulator.Config{Version: version, Machines: 6}, func(ctx context.Context, r *rack) {
				for round := range 3 {
					if _, err := r.apply(ctx, ha("", 3, 2)); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
					r.mu.Lock()
					r.events = nil
					r.mu.Unlock()
					res, err := r.destroy(ctx, apply.DeleteOptions{})
					if err != nil || res.Counts.Deleted != 5 || !slices.Equal(res.Clusters, []capi.Key{clusterC}) {
						t.Fatalf("round %d: %+v %v", round, res, err)
					}
					order := r.order(event.StepWipe)
					if len(order) != 5 || !strings.HasPrefix(order[0], "w") || !strings.HasPrefix(order[1], "w") {
						t.Errorf("workers go first: %v", order)
					}
					if d := r.order(event.StepDrain); len(d) > 0 {
						t.Errorf("a cluster that ends is not drained: %v", d)
					}
					if all, err := r.store.ClusterRecords(ctx); len(all) > 0 || err != nil {
						t.Errorf("the cluster is still there: %v %v", all, err)
					}
					if all, err := r.store.Records(ctx); len(all) > 0 || err != nil {
						t.Errorf("machines are still there: %v %v", all, err)
					}
					if _, ok, err := r.store.Kubeconfig(ctx, clusterC); ok || err != nil {
						t.Errorf("the kubeconfig is still there: %v", err)
					}
				}
				var missing *apply.NoRecordError
				if _, err := r.destroy(ctx, apply.DeleteOptions{}); !errors.As(err, &missing) || len(missing.Clusters) != 1 {
					t.Errorf("a second time: %v", err)
				}
			})
		})
	}
}

func TestWorkerLeavesItsCluster(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(2)); err != nil {
			t.Fatal(err)
		}
		name := r.record("w001").HostName
		if _, err := r.delete(ctx, "w001"); err != nil {
			t.Fatal(err)
		}
		if nodes := r.sim.Host(r.record("cp").MAC).Nodes(); len(nodes) != 2 || slices.Contains(nodes, name) {
			t.Errorf("%s is still a node: %v", name, nodes)
		}
		steps := r.all(event.Done, "w001")
		if !strings.Contains(steps, "drain node "+name+" is drained and deleted") {
			t.Error(steps)
		}
		var noted bool
		events, err := r.store.Events(ctx)
		for _, e := range events {
			noted = noted || e.Reason == capi.ReasonDelete && strings.Contains(e.Message, "wiped (quick) and read back")
		}
		if err != nil || !noted {
			t.Errorf("no event about the wipe: %v %v", events, err)
		}
	})
}

func TestControlPlaneLeavesItsCluster(t *testing.T) {
	for _, name := range []string{"cp1", "cp3"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 5}, func(ctx context.Context, r *rack) {
				r.sim.World().KeepJournals()
				if _, err := r.apply(ctx, ha("", 3, 1)); err != nil {
					t.Fatal(err)
				}
				if _, err := r.delete(ctx, name); err != nil {
					t.Fatal(err)
				}
				if n := len(r.state().Members); n != 2 {
					t.Errorf("%d members of etcd", n)
				}
				res, err := r.apply(ctx, ha("", 3, 1))
				if err != nil || res.Counts.Ready != 1 {
					t.Fatalf("%+v %v", res.Counts, err)
				}
				r.joined(res, 3, 1)
			})
		})
	}
}

func TestLastControlPlaneStays(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		var safety *apply.SafetyError
		if _, err := r.delete(ctx, "cp"); !errors.As(err, &safety) || !strings.Contains(err.Error(), "--force-quorum") || r.wiped() > 0 {
			t.Fatalf("%v", err)
		}
		if rec := r.record("cp"); !rec.Ready || rec.Phase == capi.PhaseDeleting {
			t.Errorf("it was touched: %+v", rec)
		}
		if _, err := r.deleteWith(ctx, apply.DeleteOptions{ForceQuorum: true}, "cp"); err != nil || r.wiped() != 1 {
			t.Fatalf("forced: %v", err)
		}
	})
}

func TestQuorumIsKept(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, ha("", 3, 0)); err != nil {
			t.Fatal(err)
		}
		r.sim.PowerOff(r.record("cp2").MAC)
		_, err := r.delete(ctx, "cp3")
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || r.wiped() > 0 || !r.record("cp3").Claimed() {
			t.Fatalf("two of three: %v", err)
		}
	})
}

// A worker of a cluster that does not answer is wiped all the same, and a control plane
// is not.
func TestClusterThatDoesNotAnswer(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, ha("", 2, 2)); err != nil {
			t.Fatal(err)
		}
		r.sim.PowerOff(r.record("cp1").MAC)
		var safety *apply.SafetyError
		if _, err := r.delete(ctx, "cp2"); !errors.As(err, &safety) || r.wiped() > 0 {
			t.Fatalf("control plane: %v", err)
		}
		if _, err := r.delete(ctx, "w1"); err != nil || r.wiped() != 1 {
			t.Fatalf("worker: %v", err)
		}
		if w := r.all(event.Warning, "w1"); !strings.Contains(w, "does not answer") {
			t.Errorf("no warning: %s", w)
		}
	})
}

func TestProtectedIsRefusedOthersGo(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, ha("", 1, 3)); err != nil {
			t.Fatal(err)
		}
		if err := r.store.Protect(ctx, capi.ParseKey("w2", "default"), true); err != nil {
			t.Fatal(err)
		}
		res, err := r.destroy(ctx, apply.DeleteOptions{})
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || res.Counts.Deleted != 2 || res.Counts.Failed != 2 {
			t.Fatalf("%+v %v", res.Counts, err)
		}
		if !r.record("w2").Ready || !r.record("cp1").Ready || r.record("w1").Name != "" {
			t.Error("the protected worker and its control plane stay, and nobody else")
		}
		if err := r.store.Protect(ctx, capi.ParseKey("w2", "default"), false); err != nil {
			t.Fatal(err)
		}
		if res, err := r.destroy(ctx, apply.DeleteOptions{}); err != nil || len(res.Clusters) != 1 {
			t.Fatalf("%+v %v", res, err)
		}
	})
}

// One control plane that is protected needs the others: none of them is wiped.
func TestProtectedControlPlaneKeepsTheOthers(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, ha("", 3, 1)); err != nil {
			t.Fatal(err)
		}
		if err := r.store.Protect(ctx, capi.ParseKey("cp2", "default"), true); err != nil {
			t.Fatal(err)
		}
		res, err := r.destroy(ctx, apply.DeleteOptions{})
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || res.Counts.Deleted != 1 || res.Counts.Failed != 3 || r.record("w1").Name != "" {
			t.Fatalf("%+v %v", res.Counts, err)
		}
		if !r.record("cp1").Ready || len(r.state().Members) != 3 {
			t.Error("the control planes are not what they were")
		}
	})
}

func TestPreviewShowsAndTouchesNothing(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(2)); err != nil {
			t.Fatal(err)
		}
		r.sim.PowerOff(r.record("w002").MAC)
		if err := r.store.Protect(ctx, capi.ParseKey("cp", "default"), true); err != nil {
			t.Fatal(err)
		}
		before := fmt.Sprint(first(r.store.Records(ctx)))
		r.sim.ForgetCalls()
		p, err := r.engine().Preview(ctx, apply.Targets{All: true}, apply.DeleteOptions{})
		if err != nil || len(p.Machines) != 3 || !slices.Equal(p.Clusters, []capi.Key{clusterC}) {
			t.Fatalf("%+v %v", p, err)
		}
		cp, up, off := p.Machines[0], p.Machines[1], p.Machines[2]
		if cp.Fate != apply.FateRefuse || !strings.Contains(cp.Reason, "protected") {
			t.Errorf("cp: %+v", cp)
		}
		if up.Fate != apply.FateWipe || !up.Looked || up.HostName != up.Record.HostName || len(up.Disks) != 1 || !up.Disks[0].Wiped {
			t.Errorf("w001: %+v", up)
		}
		if off.Fate != apply.FateWipe || off.Looked || !strings.Contains(off.Reason, "not seen") {
			t.Errorf("w002: %+v", off)
		}
		for _, c := range r.sim.Mutations() {
			if c.Function != "POST /parlay" || !strings.Contains(string(c.Body), "capplunder p") {
				t.Errorf("%s %s", c.Function, c.Body)
			}
		}
		if after := fmt.Sprint(first(r.store.Records(ctx))); after != before {
			t.Errorf("records changed:\n%s\n%s", before, after)
		}
	})
}

// Who agreed did so to what was shown.
func TestWhatCameWhileAskedIsNotDeleted(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		_, err := r.engine().Delete(ctx, apply.Targets{Clusters: []capi.Key{clusterC}}, apply.DeleteOptions{}, func(apply.Preview) error {
			_, err := r.apply(ctx, fleet(2))
			return err
		})
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || r.wiped() > 0 {
			t.Fatalf("%v", err)
		}
	})
}

func TestNoWait(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		mac := r.record("w001").MAC
		if _, err := r.deleteWith(ctx, apply.DeleteOptions{NoWait: true}, "w001"); err != nil {
			t.Fatal(err)
		}
		if d := r.order(event.StepReturn); len(d) > 0 || r.record("w001").Name != "" {
			t.Error("it waited, or the record is still there")
		}
		time.Sleep(5 * time.Minute)
		for _, m := range r.sim.Machines() {
			if m.MAC == mac && (m.Phase != "looping" || m.Installs != 1) {
				t.Errorf("%+v", m)
			}
		}
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
	})
}

// Whoever writes receipts is told of each machine while its record is still there, and
// told again after an error.
func TestWipedIsToldBeforeTheRecordGoes(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(2)); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		told := map[string]capi.Wipe{}
		full := errors.New("disk full")
		opts := apply.DeleteOptions{RunID: "run", By: "ann@desk", Wiped: func(rec capi.Record) error {
			mu.Lock()
			defer mu.Unlock()
			told[rec.Name] = rec.Wipe
			return full
		}}
		if _, err := r.deleteWith(ctx, opts, "w001", "w002"); !errors.Is(err, full) {
			t.Fatal(err)
		}
		w := told["w001"]
		if len(told) != 2 || w.RunID != "run" || w.By != "ann@desk" || w.Mode != capi.WipeQuick || w.StartedAt.IsZero() || w.ProvedAt.Before(w.StartedAt) ||
			len(w.Disks) != 1 || w.Disks[0].Method != capi.WipeQuick {
			t.Fatalf("%+v", told)
		}
		if rec := r.record("w001"); rec.WipedAt.IsZero() || rec.Dirty {
			t.Errorf("%+v", rec)
		}
		full = nil
		if _, err := r.deleteWith(ctx, opts, "w001", "w002"); err != nil || r.record("w001").Name != "" {
			t.Fatal(err)
		}
		if fmt.Sprint(told["w001"]) != fmt.Sprint(w) {
			t.Errorf("the second time: %+v", told["w001"])
		}
	})
}

// A wipe that is not proved leaves the machine Dirty: not free, with what to type next,
// and wiped by the next run.
func TestDirty(t *testing.T) {
	bubble(t, simulator.Config{
		Machines: 2, Faults: []simulator.Fault{{Step: "action:wipe.erase", Kind: simulator.KindFail, Times: 1}},
	}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		res, err := r.delete(ctx, "w001")
		if err == nil || res.Counts.Failed != 1 {
			t.Fatalf("%+v %v", res.Counts, err)
		}
		rec := r.record("w001")
		if !rec.Dirty || rec.Reason != "Dirty" || !rec.Claimed() || rec.Phase != capi.PhaseDeleting {
			t.Fatalf("%+v", rec)
		}
		if _, err := r.delete(ctx, "w001"); err != nil || r.record("w001").Name != "" {
			t.Fatal(err)
		}
	})
}

func TestApplyWhileTheClusterIsDeleted(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1)); err != nil {
			t.Fatal(err)
		}
		r.sim.PowerOff(r.record("w001").MAC)
		r.opts.WipeTimeout = 5 * time.Minute
		if _, err := r.destroy(ctx, apply.DeleteOptions{}); err == nil {
			t.Fatal("deleted")
		}
		var ce *apply.ClusterError
		if _, err := r.apply(ctx, fleet(2)); !errors.As(err, &ce) || !strings.Contains(ce.Next, "delete cluster") || r.record("w002").Claimed() {
			t.Fatalf("%v", err)
		}
		// The host comes back, and the cluster goes.
		r.sim.Reset(r.record("w001").MAC)
		if res, err := r.destroy(ctx, apply.DeleteOptions{}); err != nil || len(res.Clusters) != 1 {
			t.Fatalf("%+v %v", res, err)
		}
	})
}

// ESXi has no shell that could wipe its disks: it is refused, before anything is done.
func TestESXiIsRefused(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2, BootConfigs: []wire.BootConfig{
		{ConfigName: "preseed", ConfigType: "preseed"}, {ConfigName: "vsphere", ConfigType: "vsphere"},
	}}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		rec := r.record("w001")
		rec.DeploymentType = "vsphere"
		if err := r.store.SaveRecord(ctx, rec); err != nil {
			t.Fatal(err)
		}
		var safety *apply.SafetyError
		_, err := r.delete(ctx, "w001")
		if !errors.As(err, &safety) || !strings.Contains(err.Error(), "ESXi") || r.wiped() > 0 || r.record("w001").Phase == capi.PhaseDeleting {
			t.Fatal(err)
		}
	})
}
