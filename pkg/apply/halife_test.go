package apply_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

// A cluster whose record is lost is not initialised a second time.
func TestClusterRecordLost(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		if _, err := r.apply(ctx, ha("", 2, 1)); err != nil {
			t.Fatal(err)
		}
		lost := capi.ClusterRecord{Key: capi.Key{Namespace: "default", Name: "c"}}
		if err := r.store.SaveClusterRecord(ctx, lost); err != nil {
			t.Fatal(err)
		}
		res, err := r.apply(ctx, haCluster("")+"\n"+machineYAML("cp3", "192.168.0.12", true, ""))
		if n := r.times("kubeadm init --config"); n != 1 {
			t.Errorf("kubeadm init ran %d times", n)
		}
		if err != nil || res.Counts.Ready != 1 {
			t.Errorf("%+v %v", res.Counts, err)
		}
		if n := len(r.state().Members); n != 3 {
			t.Errorf("%d members", n)
		}
	})
}

// Kubernetes comes later to machines that were installed without.
func TestHighlyAvailableAfterSkipKubernetes(t *testing.T) {
	bubble(t, simulator.Config{Machines: 5}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		if _, err := r.apply(ctx, ha("", 3, 2), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		res, err := r.apply(ctx, ha("", 3, 2))
		if err != nil {
			t.Fatal(err)
		}
		r.whole(res, 3, 2)
	})
}

// A control plane machine that was given up is to come back as a member of its cluster,
// the one that initialised it, too, and never beside it. etcd still counts on the old
// one, so a person has to take that out first, and is told so.
func TestControlPlaneReplaced(t *testing.T) {
	for _, name := range []string{"cp1", "cp2"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 5}, func(ctx context.Context, r *rack) {
				r.sim.World().KeepJournals()
				if _, err := r.apply(ctx, ha("", 3, 1)); err != nil {
					t.Fatal(err)
				}
				r.sim.PowerOff(r.record(name).MAC)
				if _, err := r.deleteWith(ctx, apply.DeleteOptions{ForceRemove: true}, name); err != nil {
					t.Fatal(err)
				}
				_, err := r.apply(ctx, ha("", 3, 1))
				if err == nil || !strings.Contains(err.Error(), "remove its member on another one") {
					t.Errorf("err %v", err)
				}
				for _, line := range r.sim.Host(r.record(name).MAC).Journal() {
					if strings.HasPrefix(line, "kubeadm init --config") {
						t.Error("it was initialised beside its cluster")
					}
				}
			})
		})
	}
}

// While the init machine is paused nobody else initialises, and when it goes on all do.
func TestInitMachinePaused(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		r.inject(simulator.Fault{Machine: "cp1", Step: "phase:init certs", Kind: simulator.KindFail, Times: 1})
		if _, err := r.apply(ctx, ha("", 2, 1)); err == nil {
			t.Fatal("it failed")
		}
		paused := strings.Replace(ha("", 2, 1), "kind: Machine\nmetadata: {name: cp1,", "kind: Machine\nmetadata: {name: cp1, annotations: {cluster.x-k8s.io/paused: \"\"},", 1)
		_, err := r.apply(ctx, paused)
		if err == nil || !strings.Contains(err.Error(), "cp1 is not being worked on: paused") {
			t.Errorf("err %v", err)
		}
		res, err := r.apply(ctx, ha("", 2, 1))
		if err != nil {
			t.Fatal(err)
		}
		r.joined(res, 2, 1)
	})
}

// Two clusters on one server have nothing to do with each other.
func TestTwoClusters(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		r.sim.World().KeepJournals()
		other := strings.NewReplacer("name: c}", "name: d}", "cluster-name: c", "cluster-name: d", "name: cp1", "name: dp1", "name: w1", "name: dw1",
			"192.168.0.250", "192.168.0.251", "192.168.0.10}", "192.168.0.20}", "192.168.0.10 ", "192.168.0.20 ", "192.168.0.100", "192.168.0.120", "192.168.0.10", "192.168.0.20").Replace(ha("", 1, 1))
		res, err := r.apply(ctx, ha("", 1, 1)+"\n---\n"+other)
		if err != nil || res.Counts.Ready != 4 {
			t.Fatalf("%+v %v", res.Counts, err)
		}
		if n := r.times("kubeadm init --config"); n != 2 {
			t.Errorf("kubeadm init ran %d times", n)
		}
		if n := len(r.state().Nodes); n != 2 {
			t.Errorf("%d nodes in a cluster", n)
		}
	})
}

// Who interrupts the program while it reads the kubeconfig leaves nothing of it behind.
func TestInterruptedWhileTheKubeconfigIsRead(t *testing.T) {
	for _, after := range []time.Duration{0, 2 * time.Second, 3 * time.Second, 5 * time.Second} {
		bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
			interrupted, cancel := context.WithCancel(ctx)
			defer cancel()
			set, plan := planOf(t, ha("", 1, 0))
			_, err := r.engineWith(func(e event.Event) {
				if e.Type == event.Waiting && e.Observation == "reading the kubeconfig" {
					time.AfterFunc(after, cancel)
				}
			}).Apply(interrupted, set, plan)
			if err == nil && after < 3*time.Second {
				t.Errorf("after %s it was too late", after)
			}
			time.Sleep(time.Minute)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://plunder.test/parlay/logs/192-168-0-10", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := r.sim.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || strings.Contains(string(body), "SEALED") {
				t.Errorf("after %s the log is still there: %v\n%s", after, err, body)
			}
		})
	}
}
