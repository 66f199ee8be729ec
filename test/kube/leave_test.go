package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// plane runs scripts that are meant for a control plane machine here, in a shell of this
// machine: kubectl and the API server are real; kubelet, and so whatever needs one, is not.
type plane struct {
	t      *testing.T
	env    *kubetest.Env
	config string
	dir    string // the search path; kubectl is in it
	shell  []string
}

func newPlane(t *testing.T, env *kubetest.Env, shell ...string) *plane {
	t.Helper()
	p := &plane{t: t, env: env, config: env.Kubeconfig(t), dir: t.TempDir(), shell: shell}
	kubectl, err := filepath.Abs("../../.cache/bin/kubectl")
	if err != nil {
		t.Fatal(err)
	}
	// What kubectl would print if etcd ran in a pod; without a kubelet none does.
	fake := fmt.Sprintf(`#!/bin/sh
export HOME=%[1]s; case "$*" in *' exec '*) case "$*" in *'member list'*) echo '8e9e05c52164694d, started, p1, https://127.0.0.1:2380, https://127.0.0.1:2379, false';; *) echo 'https://127.0.0.1:2379 is healthy: successfully committed proposal: took = 1ms';; esac; exit;; esac
exec %[2]s "$@"
`, p.dir, kubectl)
	if err := os.WriteFile(filepath.Join(p.dir, "kubectl"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs the last action of a map, in the folder's search path.
func (p *plane) run(m wire.Map, err error) wire.Log {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	actions := m.Deployments[0].Actions
	a := actions[len(actions)-1]
	text, ok := strings.CutPrefix(a.Command, "sh -c '")
	if !ok {
		p.t.Fatalf("%.40s", a.Command)
	}
	text = strings.ReplaceAll(strings.TrimSuffix(text, "'"), `'\''`, "'")
	const path = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; "
	_, text, ok = strings.Cut(text, path) // the guard is before it
	if !ok {
		p.t.Fatalf("the search path is not set in %q", text)
	}
	text = strings.NewReplacer("/etc/kubernetes/admin.conf", p.config, "/etc/kubernetes", p.dir, ":6443", ":1").Replace(text)
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Duration(a.Timeout)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.shell[0], append(p.shell[1:], "-c", "set -u; "+text)...)
	cmd.Env = []string{"PATH=" + p.dir + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	e := wire.LogEntry{Task: a.Name, Entry: string(out)}
	if err != nil {
		e.Error = err.Error()
	}
	return wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{e}}
}

func (p *plane) target() translate.Target {
	return translate.Target{Address: "127.0.0.1", HostName: "p1", Guard: translate.Guard{MAC: "00:50:56:a5:11:20"}}
}

func (p *plane) apply(text string) {
	p.t.Helper()
	f := filepath.Join(p.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.env.Kubectl(p.t, p.config, "apply", "-f", f)
}

// pod makes a pod that runs on a node.
func (p *plane) pod(namespace, name, node, more string) {
	p.t.Helper()
	p.apply(fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, %s}\nspec: {nodeName: %s, terminationGracePeriodSeconds: 0, containers: [{name: c, image: x}], volumes: [{name: v, emptyDir: {}}]}\n", name, namespace, more, node))
	p.env.Kubectl(p.t, p.config, "patch", "pod", "-n", namespace, name, "--subresource=status", "-p", `{"status":{"phase":"Running","hostIP":"127.0.0.1","conditions":[{"type":"Ready","status":"True"}]}}`)
}

// TestLeaveWithRealKubectl has a real kubectl and a real API server do what is asked of a
// control plane when machines leave.
func TestLeaveWithRealKubectl(t *testing.T) {
	env := kubetest.Server(t)
	for _, shell := range [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}} {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("there is no %s", shell[0])
			}
			p := newPlane(t, env, shell...)
			leave(t, p, env.Namespace(t))
		})
	}
}

func leave(t *testing.T, p *plane, ns string) {
	t.Helper()
	plane, worker := "p-"+ns, "w-"+ns
	p.apply(fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s, labels: {node-role.kubernetes.io/control-plane: "", a: b}}
---
apiVersion: v1
kind: Node
metadata: {name: %s}
spec: {providerID: "plunder://00:50:56:a5:11:21"}
`, plane, worker))
	p.env.Kubectl(t, p.config, "patch", "node", plane, "--subresource=status", "-p", `{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"},{"type":"InternalIP","address":"::1"}],"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}]}}`)
	look := func() translate.ClusterView {
		t.Helper()
		v, _, err := translate.ReadLook(p.run(translate.LookMap("j", p.target())), "j")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	node := func(name string) (n translate.Node) {
		t.Helper()
		for _, x := range look().Nodes {
			if x.Name == name {
				n = x
			}
		}
		return n
	}
	if v := look(); !v.External || v.MembersKnown {
		t.Errorf("no etcd in pods: %+v", v)
	}
	if n := node(plane); !n.ControlPlane || n.Address != "127.0.0.1" || !n.Ready || n.Reason != "KubeletReady" || n.Unschedulable || n.UID == "" {
		t.Errorf("node %+v", n)
	}
	if n := node(worker); n.ControlPlane || n.Address != "" || n.Ready || n.ProviderID != "plunder://00:50:56:a5:11:21" {
		t.Errorf("node %+v", n)
	}

	p.pod("kube-system", "etcd-"+plane, plane, "labels: {component: etcd}")
	v := look()
	p.env.Kubectl(t, p.config, "delete", "pod", "-n", "kube-system", "etcd-"+plane, "--force", "--grace-period=0")
	if !v.MembersKnown || v.External || len(v.Members) != 1 || v.Members[0] != (translate.Member{ID: "8e9e05c52164694d", Name: "p1", Address: "127.0.0.1", Healthy: true}) {
		t.Errorf("members %+v", v)
	}

	drain := func(limit time.Duration) error {
		return translate.ReadDrain(p.run(translate.DrainMap("j", p.target(), worker, limit)), "j")
	}
	p.pod(ns, "free", worker, "labels: {app: free}")
	p.pod(ns, "web", worker, "labels: {app: web}")
	p.pod(ns, "daemon", worker, "ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, uid: 0b1c, controller: true}]")
	p.pod(ns, "stuck", worker, "finalizers: [example.com/never]")
	p.apply(fmt.Sprintf("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: guard, namespace: %s}\nspec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n", ns))
	// As the controller would, who is not here; before that the API server says that it is
	// too busy, and kubectl waits longer than the drain may take.
	p.env.Kubectl(t, p.config, "patch", "pdb", "-n", ns, "guard", "--subresource=status", "-p", `{"status":{"observedGeneration":1,"disruptionsAllowed":0,"currentHealthy":1,"desiredHealthy":1,"expectedPods":1}}`)
	err := drain(3 * time.Second)
	for _, want := range []string{ns + "/web", ns + "/stuck (being deleted since 2", "no disruption is allowed now by PodDisruptionBudget " + ns + "/guard"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	// kubectl asks whether there is a DaemonSet of that name before it leaves its pods alone,
	// and takes those of one that is gone.
	if err != nil && strings.Contains(err.Error(), "/free") {
		t.Errorf("what may go is still there: %v", err)
	}
	if !node(worker).Unschedulable {
		t.Error("the node is not cordoned")
	}
	p.env.Kubectl(t, p.config, "delete", "pdb", "-n", ns, "guard")
	p.env.Kubectl(t, p.config, "patch", "pod", "-n", ns, "stuck", "-p", `{"metadata":{"finalizers":null}}`)
	if err := drain(20 * time.Second); err != nil {
		t.Errorf("nothing is in the way: %v", err)
	}

	gone := func() error {
		return translate.ReadDeleteNode(p.run(translate.DeleteNodeMap("j", p.target(), worker)), "j")
	}
	for range 2 {
		if err := gone(); err != nil {
			t.Error(err)
		}
	}
	if err := drain(time.Second); err != nil {
		t.Errorf("a node that is gone: %v", err)
	}
	if n := node(worker); n.Name != "" {
		t.Errorf("it is still there: %+v", n)
	}
	p.env.Kubectl(t, p.config, "delete", "node", plane)
}
