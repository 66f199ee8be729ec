package apply_test

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// haCluster is a cluster with an endpoint of its own, extra fields of the
// PlunderCluster's spec, and no machines.
func haCluster(extra string) string {
	return fmt.Sprintf(`apiVersion: cluster.x-k8s.io/v1alpha2
kind: Cluster
metadata: {name: c}
spec:
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster, name: c}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: c}
spec: {controlPlaneEndpoint: {host: 192.168.0.250, port: 6443}%s}`, extra)
}

// ha is a cluster with so many control planes ("cp1" and on) and workers ("w1" and on).
func ha(extra string, controlPlanes, workers int) string {
	parts := []string{haCluster(extra)}
	for i := range controlPlanes {
		parts = append(parts, machineYAML(fmt.Sprintf("cp%d", i+1), fmt.Sprintf("192.168.0.%d", 10+i), true, ""))
	}
	for i := range workers {
		parts = append(parts, machineYAML(fmt.Sprintf("w%d", i+1), fmt.Sprintf("192.168.0.%d", 100+i), false, ""))
	}
	return strings.Join(parts, "\n")
}

// times is how often a program was run with arguments that begin so, on all hosts.
func (r *rack) times(command string) int {
	n := 0
	for _, line := range r.executed() {
		if strings.HasPrefix(line, command) {
			n++
		}
	}
	return n
}

// executed is every program that ran on a host, with its arguments.
func (r *rack) executed() []string {
	var all []string
	r.sim.EachHost(func(_ string, h *host.Host) { all = append(all, h.Journal()...) })
	return all
}

// state is what the cluster on the rack says of itself.
func (r *rack) state() host.ClusterState {
	r.t.Helper()
	var state *host.ClusterState
	r.sim.EachHost(func(_ string, h *host.Host) {
		if c := h.Cluster(); c != nil && state == nil {
			state = c
		}
	})
	if state == nil {
		r.t.Fatal("no API server answers")
	}
	return *state
}

// whole checks that a cluster is what it should be: every machine is a node of one
// cluster that was initialised once, and etcd has exactly the control planes.
func (r *rack) whole(res apply.Result, controlPlanes, workers int) {
	r.t.Helper()
	if got := r.times("kubeadm init --config"); got != 1 {
		r.t.Errorf("kubeadm init ran %d times", got)
	}
	r.joined(res, controlPlanes, workers)
}

// joined is whole, however often kubeadm init had to run.
func (r *rack) joined(res apply.Result, controlPlanes, workers int) {
	r.t.Helper()
	n := controlPlanes + workers
	if res.Counts.Ready+res.Counts.Skipped != n {
		r.t.Errorf("%+v", res.Counts)
	}
	uids := map[string]bool{}
	var planes []string
	for _, m := range res.Machines {
		rec := r.record(m.Record.Name)
		if rec.Phase != capi.PhaseRunning || rec.NodeName != rec.HostName {
			r.t.Errorf("%s: phase %s, node %q", rec.Name, rec.Phase, rec.NodeName)
		}
		uids[rec.NodeUID] = true
		if rec.ControlPlane {
			planes = append(planes, rec.HostName)
		}
	}
	if len(uids) != n {
		r.t.Errorf("%d machines have %d nodes", n, len(uids))
	}
	slices.Sort(planes)
	state := r.state()
	var members []string
	for _, m := range state.Members {
		if !m.Learner && m.Up {
			members = append(members, m.Name)
		}
	}
	if slices.Sort(members); !slices.Equal(members, planes) || len(state.Members) != len(planes) {
		r.t.Errorf("etcd has the members %+v, the control planes are %v", state.Members, planes)
	}
	if len(state.Nodes) != n {
		r.t.Errorf("%d nodes for %d machines", len(state.Nodes), n)
	}
	for _, n := range state.Nodes {
		if n.ProviderID == "" || n.Version != "1.34.1" {
			r.t.Errorf("node %+v", n)
		}
	}
	for _, tok := range state.Tokens { // kubeadm's own proxies of a Secret's life let nobody in
		if !strings.HasPrefix(tok.Description, "Proxy") {
			r.t.Errorf("a bootstrap token is left: %+v", tok)
		}
	}
	if data, ok, err := r.store.Kubeconfig(context.Background(), capi.Key{Namespace: "default", Name: "c"}); err != nil || !ok || !strings.Contains(string(data), "https://192.168.0.250:6443") {
		r.t.Errorf("kubeconfig: there %v, %v", ok, err)
	}
}

func TestHighlyAvailable(t *testing.T) {
	for _, extra := range []string{"", ", pki: tool", ", vip: {}"} {
		t.Run(extra, func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 8}, func(ctx context.Context, r *rack) {
				r.sim.World().KeepJournals()
				res, err := r.apply(ctx, ha(extra, 3, 5))
				if err != nil {
					t.Fatal(err)
				}
				r.whole(res, 3, 5)

				// etcd takes one member after the other, so they join one at a time.
				joining := ""
				for _, e := range r.events {
					m := strings.TrimPrefix(e.Machine, "default/")
					switch {
					case !strings.HasPrefix(m, "cp"):
					case e.Type == event.Waiting && e.Step == event.StepJoin && strings.Contains(e.Observation, "actions done"):
						if joining != "" && joining != m {
							t.Errorf("%s joins while %s does", m, joining)
						}
						joining = m
					case e.Type == event.Done && e.Step == event.StepNode && m == joining:
						joining = ""
					}
				}

				r.sim.ForgetCalls()
				res, err = r.apply(ctx, ha(extra, 3, 5))
				if err != nil || res.Counts.Skipped != 8 || len(r.sim.Mutations()) != 0 {
					t.Errorf("the second run: %+v, %v, %v", res.Counts, err, r.sim.Mutations())
				}
			})
		})
	}
}

// Machines that come later join the cluster that is there.
func TestMachinesAddedLater(t *testing.T) {
	bubble(t, simulator.Config{Machines: 5}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		for _, size := range [][2]int{{1, 1}, {1, 2}, {2, 2}, {3, 2}} {
			res, err := r.apply(ctx, ha("", size[0], size[1]))
			if err != nil {
				t.Fatal(size, err)
			}
			r.whole(res, size[0], size[1])
		}
	})
}

// Wherever a run is interrupted, the next one goes on, and nobody initialises twice.
func TestHighlyAvailableInterrupted(t *testing.T) {
	for seed := range max(4, 12/sample) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 5}, func(ctx context.Context, r *rack) {
				r.sim.World().KeepJournals()
				rnd := rand.New(rand.NewSource(int64(seed)))
				for range 4 {
					limited, cancel := context.WithTimeout(ctx, 7*time.Minute+time.Duration(rnd.Int63n(int64(14*time.Minute))))
					_, _ = r.apply(limited, ha("", 3, 2))
					cancel()
				}
				res, err := r.apply(ctx, ha("", 3, 2))
				if err != nil {
					t.Fatal(err)
				}
				r.whole(res, 3, 2)
			})
		})
	}
}

// The control plane goes on where it was begun, whatever other machines there are now.
func TestInitialisedWhereItWasBegun(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		interrupted, cancel := context.WithCancel(ctx)
		_, err := r.engineWith(func(e event.Event) {
			if e.Type == event.Started && e.Step == event.StepInit {
				cancel()
			}
		}).Apply(interrupted, first(planOf(t, ha("", 1, 0))), second(planOf(t, ha("", 1, 0))))
		if err == nil {
			t.Fatal("it was interrupted")
		}
		other := strings.ReplaceAll(ha("", 2, 0), "cp2", "cp0")
		res, err := r.apply(ctx, other)
		if err != nil {
			t.Fatal(err)
		}
		r.whole(res, 2, 0)
		if rec, _, _ := r.store.ClusterRecord(ctx, capi.Key{Namespace: "default", Name: "c"}); rec.InitMachine != "cp1" {
			t.Errorf("initialised on %s", rec.InitMachine)
		}
	})
}

// Only part of the machines, and not the one on which it was begun.
func TestNotInitialisedTwice(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		interrupted, cancel := context.WithCancel(ctx)
		_, _ = r.engineWith(func(e event.Event) {
			if e.Type == event.Waiting && e.Step == event.StepInit {
				cancel()
			}
		}).Apply(interrupted, first(planOf(t, ha("", 1, 0))), second(planOf(t, ha("", 1, 0))))
		only := haCluster("") + "\n" + machineYAML("cp2", "192.168.0.11", true, "")
		_, err := r.apply(ctx, only)
		if err == nil || !strings.Contains(err.Error(), "is being initialised on Machine default/cp1") {
			t.Fatalf("err %v", err)
		}
	})
}

// A second control plane needs an endpoint that outlives the first.
func TestSecondControlPlaneWithoutEndpoint(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		if _, err := r.apply(ctx, fleet(0)); err != nil {
			t.Fatal(err)
		}
		r.sim.ForgetCalls()
		_, err := r.apply(ctx, clusterYAML+"\n"+machineYAML("cp2", "192.168.0.11", true, ""))
		if err == nil || !strings.Contains(err.Error(), "is the address of its Machine cp") || len(r.sim.Mutations()) != 0 {
			t.Fatalf("err %v, %v", err, r.sim.Mutations())
		}
	})
}

// A join of an earlier run is followed to its end, even where the cluster's CA is not on
// record: who joins with bootstrap data leaves none.
func TestJoinGoesOnWithoutTheCA(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		interrupted, cancel := context.WithCancel(ctx)
		set, plan := planOf(t, ha("", 1, 1))
		_, _ = r.engineWith(func(e event.Event) {
			if e.Type == event.Waiting && e.Step == event.StepJoin && strings.Contains(e.Observation, "running join") {
				cancel()
			}
		}).Apply(interrupted, set, plan)
		key := capi.Key{Namespace: "default", Name: "c"}
		rec, _, err := r.store.ClusterRecord(ctx, key)
		rec.CAHash = ""
		if err != nil || r.record("w1").JobStep != string(event.StepJoin) || r.store.SaveClusterRecord(ctx, rec) != nil {
			t.Fatalf("%v, %+v", err, r.record("w1"))
		}
		res, err := r.apply(ctx, ha("", 1, 1))
		if err != nil {
			t.Fatal(err)
		}
		r.whole(res, 1, 1)
		if n := r.times("kubeadm join"); n != 1 {
			t.Errorf("joined %d times", n)
		}
	})
}

// A control plane that is not gone yet is not replaced by a new one.
func TestNoNewClusterBesideOneBeingDeleted(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, ha("", 2, 0)); err != nil {
			t.Fatal(err)
		}
		interrupted, cancel := context.WithCancel(ctx)
		keys := []capi.Key{{Namespace: "default", Name: "cp1"}, {Namespace: "default", Name: "cp2"}}
		_, _ = r.engineWith(func(e event.Event) {
			if e.Type == event.Started && e.Step == event.StepWipe {
				cancel()
			}
		}).Delete(interrupted, apply.Targets{Machines: keys}, apply.DeleteOptions{}, func(apply.Preview) error { return nil })
		other := strings.ReplaceAll(ha("", 3, 0), "cp3", "cp0")
		res, err := r.apply(ctx, other)
		if err == nil || !strings.Contains(err.Error(), "is being deleted, and may still run it") || res.Counts.Ready != 0 {
			t.Fatalf("%+v, %v", res.Counts, err)
		}
	})
}

// With a network add-on a machine is ready when its node is.
func TestNodesGetReady(t *testing.T) {
	const cni = `, cni: {manifest: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: net, namespace: kube-system}\n"}`
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		res, err := r.apply(ctx, ha(cni, 1, 1))
		if err != nil {
			t.Fatal(err)
		}
		r.whole(res, 1, 1)
		if done := r.all(event.Done, "w1"); !strings.Contains(done, "(ready)") {
			t.Error(done)
		}
	})
}

func first[A, B any](a A, _ B) A  { return a }
func second[A, B any](_ A, b B) B { return b }
