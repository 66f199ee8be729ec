package translate_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

func (c *haCluster) look(from string) (translate.ClusterView, error) {
	c.t.Helper()
	job := c.job()
	m, err := translate.LookMap(job, c.target0(from))
	v, done, err := translate.ReadLook(c.sent(m, c.post(m, err)), job)
	if !done {
		c.t.Fatal("it did not look")
	}
	return v, err
}

func (c *haCluster) mustLook(from string) translate.ClusterView {
	c.t.Helper()
	v, err := c.look(from)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *haCluster) drain(from, node string, limit time.Duration) error {
	job := c.job()
	m, err := translate.DrainMap(job, c.target0(from), node, limit)
	return translate.ReadDrain(c.sent(m, c.post(m, err)), job)
}

func (c *haCluster) reset(address string) error {
	job := c.job()
	m, err := translate.ResetMap(job, c.target0(address))
	return translate.ReadReset(c.sent(m, c.post(m, err)), job)
}

func (c *haCluster) removeMember(from, address string) (bool, error) {
	job := c.job()
	m, err := translate.RemoveMemberMap(job, c.target0(from), address)
	return translate.ReadRemoveMember(c.sent(m, c.post(m, err)), job)
}

func (c *haCluster) deleteNode(from, node string) error {
	job := c.job()
	m, err := translate.DeleteNodeMap(job, c.target0(from), node)
	return translate.ReadDeleteNode(c.sent(m, c.post(m, err)), job)
}

// apply applies documents with a control plane's kubectl.
func (c *haCluster) apply(from, documents string) {
	c.t.Helper()
	if out := c.on(from, "kubectl --kubeconfig=/etc/kubernetes/admin.conf apply -f - <<'E'\n"+documents+"\nE"); !strings.Contains(out, "created") && !strings.Contains(out, "configured") {
		c.t.Fatal(out)
	}
}

// onNode are the pods on a node, without those that stay.
func (c *haCluster) onNode(from, node string) []string {
	var out []string
	for _, p := range c.hosts[from].Cluster().Pods {
		if p.Node == node && p.Controller != "DaemonSet" && p.Controller != "Node" {
			out = append(out, p.Namespace+"/"+p.Name)
		}
	}
	return out
}

func memberText(m []translate.Member) string {
	var out []string
	for _, x := range m {
		out = append(out, fmt.Sprintf("%s %s healthy=%t learner=%t", x.Name, x.Address, x.Healthy, x.Learner))
	}
	return strings.Join(out, "; ")
}

const (
	web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: web}}
    spec: {volumes: [{name: cache, emptyDir: {}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: debug, namespace: default}
`
	webBudget = `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
`
)

// TestLeave takes a worker and two of three control planes out of clusters of all times.
func TestLeave(t *testing.T) {
	for _, tt := range []struct {
		version, profile string
		change           func(*translate.Kubernetes)
	}{
		{version: "1.36.4", profile: host.ProfileNoble},
		{version: "1.34.1", profile: host.ProfileRocky9, change: func(k *translate.Kubernetes) { k.VIP = &capi.VIP{} }},
		{version: "1.23.17", profile: host.ProfileNoble},
		{version: "1.19.16", profile: host.ProfileBionic},
		{version: "1.14.2", profile: host.ProfileBionic},
	} {
		t.Run(tt.version+" on "+tt.profile, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const a, b, c, w1, w2 = "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.21", "10.0.0.22"
				ha := newHA(t, tt.version, tt.profile, func(k *translate.Kubernetes) {
					if k.Minor < 24 {
						k.Repo = &capi.PackageRepo{Apt: "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://mirror.example/kubernetes kubernetes-xenial main", Key: "https://mirror.example/kubernetes.gpg"}
					}
					if tt.change != nil {
						tt.change(k)
					}
				}, a, b, c, w1, w2)
				if ha.k.VIP != nil {
					ha.world.NoLoadBalancer()
				}
				ha.must(ha.init(a))
				ha.addPlane(a, b)
				ha.addPlane(a, c)
				ha.addWorkers(a, w1, w2)
				ha.ready(a, a, b, c, w1, w2)
				ha.apply(a, web)

				v := ha.mustLook(b)
				if got := memberText(v.Members); !v.MembersKnown || v.External || got != "host-10 10.0.0.10 healthy=true learner=false; host-11 10.0.0.11 healthy=true learner=false; host-12 10.0.0.12 healthy=true learner=false" {
					t.Errorf("members %s", got)
				}
				for i, want := range []struct {
					name, address string
					plane         bool
				}{{"host-10", a, true}, {"host-11", b, true}, {"host-12", c, true}, {"host-21", w1, false}, {"host-22", w2, false}} {
					n := v.Nodes[i]
					if n.Name != want.name || n.Address != want.address || n.ControlPlane != want.plane || !n.Ready || n.Unschedulable || n.Version != "v"+tt.version || n.ProviderID != capi.ProviderID(macOf(want.address)) || n.UID == "" {
						t.Errorf("node %+v, want %+v", n, want)
					}
				}
				if err := translate.Quorum(v, c); err != nil {
					t.Error(err)
				}

				// A worker.
				if err := ha.drain(b, "host-21", 5*time.Minute); err != nil {
					t.Errorf("drain: %v", err)
				}
				if left := ha.onNode(a, "host-21"); len(left) > 0 {
					t.Errorf("pods are left: %q", left)
				}
				if !ha.mustLook(a).Nodes[3].Unschedulable {
					t.Error("the node is not cordoned")
				}
				if err := ha.reset(w1); err != nil {
					t.Errorf("reset: %v", err)
				}
				for range 2 {
					if err := ha.deleteNode(c, "host-21"); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
				if err := ha.drain(b, "host-21", time.Minute); err != nil {
					t.Errorf("drain of a node that is gone: %v", err)
				}
				ha.hosts[w1].Reboot()
				if n := len(ha.mustLook(a).Nodes); n != 4 {
					t.Errorf("%d nodes", n)
				}

				// The first control plane, which has the virtual address; then another one.
				for _, x := range []struct{ leaves, asked, node string }{{a, b, "host-10"}, {b, c, "host-11"}} {
					if err := ha.drain(x.asked, x.node, time.Minute); err != nil {
						t.Errorf("drain: %v", err)
					}
					if err := ha.reset(x.leaves); err != nil {
						t.Errorf("reset: %v", err)
					}
					if err := ha.reset(x.leaves); err != nil {
						t.Errorf("a second reset: %v", err)
					}
					if removed, err := ha.removeMember(x.asked, x.leaves); removed || err != nil {
						t.Errorf("kubeadm has removed the member: %v, %v", removed, err)
					}
					if err := ha.deleteNode(x.asked, x.node); err != nil {
						t.Errorf("delete: %v", err)
					}
					ha.hosts[x.leaves].Reboot()
				}
				v = ha.mustLook(c)
				if got := memberText(v.Members); got != "host-12 10.0.0.12 healthy=true learner=false" || len(v.Nodes) != 2 {
					t.Errorf("members %s, nodes %+v", got, v.Nodes)
				}
				if err := translate.Quorum(v, c); err == nil || !strings.Contains(err.Error(), "the last member") {
					t.Errorf("the last one may go: %v", err)
				}
				ha.clean()
			})
		})
	}
}

// leaving is a cluster of two control planes and two workers.
func leaving(t *testing.T, addresses ...string) *haCluster {
	t.Helper()
	ha := newHA(t, "1.34.1", host.ProfileNoble, nil, append([]string{first, other}, addresses...)...)
	ha.must(ha.init(first))
	ha.addPlane(first, other)
	if len(addresses) > 0 {
		ha.addWorkers(first, addresses...)
	}
	ha.ready(first, append([]string{first, other}, addresses...)...)
	return ha
}

// TestDrainHeld: what holds a drain is said by name, and the drain ends in time.
func TestDrainHeld(t *testing.T) {
	const w1 = "10.0.0.21"
	for name, tt := range map[string]struct{ documents, want string }{
		"a budget":    {web + "---\n" + webBudget, "no disruption is allowed now by PodDisruptionBudget shop/web"},
		"a finalizer": {"apiVersion: v1\nkind: Pod\nmetadata: {name: stuck, namespace: default, finalizers: [example.com/never]}\n", "still there: default/stuck (being deleted since 2000-01-01T"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ha := leaving(t, w1)
				ha.apply(first, tt.documents)
				_ = ha.onNode(first, "host-21")
				time.Sleep(10 * time.Second)
				start := time.Now()
				err := ha.drain(first, "host-21", 30*time.Second)
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "kube-proxy") {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took < 30*time.Second || took > 45*time.Second {
					t.Errorf("it took %v", took)
				}
				if !ha.mustLook(first).Nodes[2].Unschedulable {
					t.Error("the node is not cordoned")
				}
			})
		})
	}
}

// TestClusterDoesNotAnswer: everything that is asked of a dead cluster ends soon, with the cause.
func TestClusterDoesNotAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		trouble host.Trouble
		want    string
	}{
		"refused": {host.Trouble{Exit: 7}, "was refused"},
		"hangs":   {host.Trouble{Exit: 28}, "i/o timeout"},
		"errors":  {host.Trouble{Exit: 22}, "currently unable to handle the request"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ha := leaving(t)
				for _, h := range ha.hosts {
					h.Sabotage(func(s host.Step) *host.Trouble {
						if s.Is("api:*") || s.Is("endpoint:*") {
							return &tt.trouble
						}
						return nil
					})
				}
				start := time.Now()
				_, look := ha.look(first)
				for what, err := range map[string]error{"look": look, "drain": ha.drain(first, "host-11", time.Hour), "delete": ha.deleteNode(first, "host-11")} {
					if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "the API server does not answer") {
						t.Errorf("%s: %v", what, err)
					}
				}
				if took := time.Since(start); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				// etcd is well all the same, and is asked through the container runtime.
				if removed, err := ha.removeMember(first, other); !removed || err != nil {
					t.Errorf("removed %v, %v", removed, err)
				}
			})
		})
	}
}

// TestQuorumLost: of two control planes one is dead. Nothing can be changed, and nothing
// hangs; with three, the dead one is removed by another.
func TestQuorumLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const third = "10.0.0.12"
		ha := newHA(t, "1.34.1", host.ProfileNoble, nil, first, other, third)
		ha.must(ha.init(first))
		ha.addPlane(first, other)
		ha.addPlane(first, third)
		ha.hosts[third].Close()
		time.Sleep(time.Minute)
		v := ha.mustLook(first)
		if got := memberText(v.Members); !strings.HasSuffix(got, "host-12 10.0.0.12 healthy=false learner=false") {
			t.Errorf("members %s", got)
		}
		if err := translate.Quorum(v, third); err != nil {
			t.Errorf("the dead one may go: %v", err)
		}
		if err := translate.Quorum(v, other); err == nil || !strings.Contains(err.Error(), "left with 1 of 2 members that answer and lose its majority (no answer from host-12)") {
			t.Errorf("a healthy one may not: %v", err)
		}
		if removed, err := ha.removeMember(first, third); !removed || err != nil {
			t.Errorf("removed %v, %v", removed, err)
		}
		if removed, err := ha.removeMember(first, third); removed || err != nil {
			t.Errorf("a second time: removed %v, %v", removed, err)
		}
		if err := ha.deleteNode(first, "host-12"); err != nil {
			t.Error(err)
		}

		ha.hosts[other].Close()
		start := time.Now()
		if _, err := ha.look(first); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("look: %v", err)
		}
		if _, err := ha.removeMember(first, other); err == nil || !strings.Contains(err.Error(), "no member of etcd answers on this machine: Error: context deadline exceeded") {
			t.Errorf("remove: %v", err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestResetOfMachines: whatever state a machine is in, its kubelet is off afterwards.
func TestResetOfMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const w1, w2, bare = "10.0.0.21", "10.0.0.22", "10.0.0.30"
		ha := leaving(t, w1, w2)
		ha.add(bare, "host-30")
		if err := ha.reset(bare); err != nil {
			t.Errorf("a host without kubeadm: %v", err)
		}
		// A kubelet that is still there brings its node back when it starts.
		if err := ha.deleteNode(first, "host-21"); err != nil {
			t.Error(err)
		}
		if n := len(ha.mustLook(first).Nodes); n != 3 {
			t.Errorf("%d nodes", n)
		}
		ha.hosts[w1].Reboot()
		if n := len(ha.mustLook(first).Nodes); n != 4 {
			t.Errorf("%d nodes after the kubelet's restart", n)
		}
		// kubeadm hangs, and fails.
		for _, trouble := range []host.Trouble{{Hang: true}, {Exit: 1, Text: "error: unknown"}} {
			ha.hosts[w2].Sabotage(func(s host.Step) *host.Trouble {
				if s.Is("run:kubeadm reset") {
					return &trouble
				}
				return nil
			})
			if err := ha.reset(w2); err == nil || !strings.Contains(err.Error(), "kubeadm reset ended with status") {
				t.Errorf("got %v", err)
			}
			if got := ha.on(w2, "systemctl is-active kubelet; systemctl is-enabled kubelet"); got != "inactive\ndisabled" {
				t.Errorf("kubelet: %q", got)
			}
		}
	})
}

// TestLeaveOtherHost: a stranger at the address is not touched.
func TestLeaveOtherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ha := leaving(t)
		target := ha.target0(first)
		target.Guard.MAC = "52:54:00:00:00:77"
		job := ha.job()
		m, err := translate.ResetMap(job, target)
		l := ha.post(m, err)
		if err := translate.ReadReset(l, job); l.State != wire.StateFailed || err == nil || !strings.Contains(err.Error(), "another machine") {
			t.Errorf("%s: %v", l.State, err)
		}
		if len(ha.mustLook(first).Nodes) != 2 {
			t.Error("it was touched")
		}
		m, err = translate.LookMap(job, target)
		if _, done, err := translate.ReadLook(ha.post(m, err), job); !done || err == nil {
			t.Errorf("look: done %v, %v", done, err)
		}
	})
}
