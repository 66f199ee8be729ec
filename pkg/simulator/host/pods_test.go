package host

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// workers makes a cluster of one control plane and two workers, with a network add-on.
func (l *lab) workers(version string) (a, w1, w2 *Host) {
	l.t.Helper()
	a = l.first(version, "")
	w1, w2 = l.host(21, version), l.host(22, version)
	for _, w := range []*Host{w1, w2} {
		l.must(w, l.join(a, w, "10.0.0.10:6443", token, ""))
	}
	l.apply(a, "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: network, namespace: kube-system}\n")
	time.Sleep(time.Minute)
	return a, w1, w2
}

func (l *lab) apply(h *Host, documents string) string {
	l.t.Helper()
	return l.must(h, kubectlAs+"apply -f - <<'E'\n"+documents+"\nE")
}

// podsOn are the pods on a node, "" for those that wait for one, as CONTROLLER NAMESPACE/NAME with the
// parts of names that are made up left out.
func podsOn(h *Host, node string) []string {
	var out []string
	for _, p := range h.Cluster().Pods {
		if p.Node == node {
			name := p.Name
			if p.Controller == "ReplicaSet" || p.Controller == "DaemonSet" {
				name, _, _ = strings.Cut(name, "-")
			}
			text := p.Controller + " " + p.Namespace + "/" + name
			if p.Terminating {
				text += " terminating"
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

const shop = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec: {replicas: 2, template: {metadata: {labels: {app: db}}, spec: {volumes: [{name: v, emptyDir: {}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}}
`

func TestPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a, w1, w2 := l.workers("1.34.1")
		// The two of CoreDNS are where there was a place first.
		dns := func(p string) bool { return p == "ReplicaSet kube-system/coredns" }
		count := 0
		for _, n := range []string{"host-10", "host-21", "host-22"} {
			for _, p := range podsOn(a, n) {
				if dns(p) {
					count++
				}
			}
		}
		if count != 2 {
			t.Errorf("CoreDNS has %d pods", count)
		}
		if got, want := slices.DeleteFunc(podsOn(a, "host-10"), dns), []string{
			"DaemonSet kube-system/kube", "DaemonSet kube-system/network", "Node kube-system/etcd-host-10", "Node kube-system/kube-apiserver-host-10",
			"Node kube-system/kube-controller-manager-host-10", "Node kube-system/kube-scheduler-host-10",
		}; !slices.Equal(got, want) {
			t.Errorf("a control plane: %q", got)
		}
		for _, w := range []string{"host-21", "host-22"} {
			if got, want := slices.DeleteFunc(podsOn(a, w), dns), []string{"DaemonSet kube-system/kube", "DaemonSet kube-system/network"}; !slices.Equal(got, want) {
				t.Errorf("%s: %q", w, got)
			}
		}
		before := len(podsOn(a, "host-21")) + len(podsOn(a, "host-22"))
		l.apply(a, shop)
		if got := len(podsOn(a, "host-21")) + len(podsOn(a, "host-22")); got != before+5 {
			t.Errorf("%d more pods on the workers", got-before)
		}
		columns := "-o custom-columns=N:.metadata.name,I:.status.hostIP,M:'.metadata.annotations.kubernetes\\.io/config\\.mirror' --no-headers"
		if got := l.must(a, kubectlAs+"-n kube-system get pods -l component=etcd "+columns); got != "etcd-host-10   10.0.0.10   0" {
			t.Errorf("etcd: %q", got)
		}
		if got := l.must(a, kubectlAs+"get pods --field-selector spec.nodeName=host-99; "+kubectlAs+"get pods -o name | sort"); got != "No resources found\npod/bare\npod/db-0\npod/db-1" {
			t.Errorf("got %q", got)
		}

		// Two cordoned workers: what is drained waits for a node, but is not lost.
		l.must(a, kubectlAs+"cordon host-22; "+kubectlAs+"get nodes | grep host-22 | grep -q Ready,SchedulingDisabled")
		l.fails(a, kubectlAs+"drain host-21", "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): kube-system/kube-proxy-")
		l.fails(a, kubectlAs+"drain host-21 --ignore-daemonsets", "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/db-")
		if got := l.must(a, kubectlAs+"drain host-21 --ignore-daemonsets --delete-emptydir-data --force --timeout=1m"); !strings.HasSuffix(got, "node/host-21 drained") {
			t.Errorf("drain: %s", got)
		}
		if got := podsOn(a, "host-21"); len(got) != 2 {
			t.Errorf("after the drain: %q", got)
		}
		for _, p := range podsOn(a, "") {
			if strings.Contains(p, "bare") {
				t.Error("nobody replaces a pod without a controller")
			}
		}
		l.must(a, kubectlAs+"uncordon host-22")
		if got := podsOn(a, ""); len(got) > 0 {
			t.Errorf("pods wait in vain: %q", got)
		}

		// A machine that is restored knows them, too.
		names := func(h *Host) string {
			var out []string
			for _, p := range h.Cluster().Pods {
				out = append(out, fmt.Sprint(p))
			}
			return strings.Join(out, "\n")
		}
		want := names(a)
		w := NewWorld()
		var back *Host
		for _, h := range []*Host{w1, w2, a} {
			var snap Snapshot
			if err := json.Unmarshal(mustJSON(t, h.Snapshot()), &snap); err != nil {
				t.Fatal(err)
			}
			back = Restore(snap, w)
			t.Cleanup(back.Close)
		}
		if got := names(back); got != want {
			t.Errorf("restored:\n%s\nwant:\n%s", got, want)
		}
	})
}

// TestBudgets: a drain takes as many pods at a time as budgets allow, and gives up in time.
func TestBudgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a, w1, _ := l.workers("1.34.1")
		l.must(a, kubectlAs+"cordon host-22")
		l.apply(a, shop+"---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web, namespace: shop}\nspec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}\n")
		_ = podsOn(a, "")
		time.Sleep(time.Minute)
		allowed := kubectlAs + "get pdb -A --no-headers | tr -s ' '"
		if got := l.must(a, allowed); got != "shop web 1" {
			t.Errorf("allowed: %q", got)
		}
		drain := kubectlAs + "drain host-21 --ignore-daemonsets --delete-emptydir-data --force --timeout="
		// Nothing can take the first one's place, so the second must stay.
		start := time.Now()
		l.fails(a, drain+"20s", `error when evicting pods/"web-`)
		if took := time.Since(start); took < 20*time.Second || took > 22*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := l.must(a, allowed); got != "shop web 0" {
			t.Errorf("allowed: %q", got)
		}
		l.must(a, kubectlAs+"uncordon host-22; "+drain+"1m")

		// What nobody finishes deleting holds a drain, and so does a kubelet that is dead.
		l.apply(a, "apiVersion: v1\nkind: Pod\nmetadata: {name: stuck, finalizers: [x/y]}\n")
		l.must(a, kubectlAs+"cordon host-22; "+kubectlAs+"uncordon host-21")
		if got := podsOn(a, "host-21"); !slices.Contains(got, " default/stuck") {
			t.Fatalf("pods %q", got)
		}
		l.fails(a, drain+"10s", `error when waiting for pod "stuck" in namespace "default" to terminate: global timeout reached: 10s`)
		if got := podsOn(a, "host-21"); !slices.Contains(got, " default/stuck terminating") {
			t.Errorf("pods %q", got)
		}
		l.must(a, kubectlAs+"uncordon host-21; "+kubectlAs+"cordon host-22")
		l.apply(a, "apiVersion: v1\nkind: Pod\nmetadata: {name: late}\n")
		_ = podsOn(a, "")
		w1.stop()
		l.fails(a, drain+"10s", "global timeout reached")
		l.must(a, kubectlAs+"delete node host-21")
		if got := podsOn(a, "host-21"); len(got) > 0 {
			t.Errorf("pods of a node that is gone: %q", got)
		}
	})
}

// TestDrainOfAllTimes knows the flags and words of each kubectl.
func TestDrainOfAllTimes(t *testing.T) {
	for version, want := range map[string]struct{ knows, not string }{
		"1.14.2": {"--delete-local-data", "--delete-emptydir-data"},
		"1.37.0": {"--delete-emptydir-data", "--delete-local-data"},
	} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				h := l.host(10, version)
				if got := l.must(h, "kubectl drain --help"); !strings.Contains(got, want.knows) || strings.Contains(got, want.not) {
					t.Errorf("help: %s", got)
				}
				l.fails(h, "kubectl drain x "+want.not, "unknown flag: "+want.not)
			})
		})
	}
}

// TestEtcdctl: what etcd and its images of each time understand, by way of the API server and of
// the container runtime.
func TestEtcdctl(t *testing.T) {
	const flags = " --endpoints=https://127.0.0.1:2379 --cacert=/a --cert=/b --key=/c --command-timeout=8s "
	for version, shell := range map[string]bool{"1.15.1": true, "1.18.2": true, "1.34.1": false} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				a := l.first(version, "")
				id := l.must(a, "crictl ps -q --label io.kubernetes.container.name=etcd")
				if len(id) != 64 {
					t.Fatalf("the container is %q", id)
				}
				for _, exec := range []string{kubectlAs + "exec -n kube-system etcd-host-10 -- ", "crictl exec " + id + " "} {
					plain := run(t, a, exec+"etcdctl"+flags+"member list")
					if want := minorOf(version) >= 17; (plain.Exit == 0) != want || !want && !strings.Contains(plain.Output, "flag provided but not defined: -cacert") {
						t.Errorf("%s: %+v", exec, plain)
					}
					old := run(t, a, exec+"sh -c 'ETCDCTL_API=3 exec etcdctl"+flags+"endpoint health'")
					if (old.Exit == 0) != shell || shell && !strings.Contains(old.Output, "https://127.0.0.1:2379 is healthy: ") || !shell && !strings.Contains(old.Output, `exec: "sh": executable file not found`) {
						t.Errorf("%s: %+v", exec, old)
					}
				}
				l.fails(a, "crictl exec nobody etcdctl member list", "NotFound")
				l.must(a, "systemctl stop kubelet")
				if got := l.must(a, "crictl ps -q --label io.kubernetes.container.name=etcd"); got != "" {
					t.Errorf("etcd is down, and its container is %q", got)
				}
			})
		})
	}
}

// TestKubeletMakesItsNodeAnew: a node that was deleted comes back when its kubelet is started, and
// only then; what kubeadm gave it does not.
func TestKubeletMakesItsNodeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a, w1, w2 := l.workers("1.34.1")
		uid := a.Cluster().Nodes[1].UID
		l.must(a, kubectlAs+"delete node host-21 host-22")
		time.Sleep(time.Minute)
		if got := a.Nodes(); len(got) != 1 {
			t.Errorf("nodes %q", got)
		}
		l.must(w1, "systemctl restart kubelet")
		l.must(w2, "kubeadm reset -f; systemctl start kubelet")
		w2.Reboot()
		n := a.Cluster().Nodes
		if len(n) != 2 || n[1].Name != "host-21" || n[1].UID == uid || n[1].ProviderID != "plunder://"+w1.cfg.MAC || n[1].ControlPlane {
			t.Errorf("nodes %+v", n)
		}
	})
}
