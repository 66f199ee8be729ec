package translate_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// leaveMaps are the maps with which a machine leaves its cluster.
func (in *input) leaveMaps(add func(string, wire.Map, error)) {
	t := in.target()
	m, err := translate.LookMap("job", t)
	add("look", m, err)
	m, err = translate.DrainMap("job", t, in.Host, 90*time.Second+time.Nanosecond)
	add("drain", m, err)
	m, err = translate.ResetMap("job", t)
	add("reset", m, err)
	gone := "10.9.9.9"
	if in.Address == gone {
		gone = "10.9.9.8"
	}
	m, err = translate.RemoveMemberMap("job", t, gone)
	add("member", m, err)
	m, err = translate.DeleteNodeMap("job", t, in.Host)
	add("node", m, err)
}

func TestLeaveRefusals(t *testing.T) {
	in := harmless()
	build := map[string]func(translate.Target, string) (wire.Map, error){
		"drain": func(t translate.Target, v string) (wire.Map, error) {
			return translate.DrainMap("j", t, v, time.Minute)
		},
		"node":   func(t translate.Target, v string) (wire.Map, error) { return translate.DeleteNodeMap("j", t, v) },
		"member": func(t translate.Target, v string) (wire.Map, error) { return translate.RemoveMemberMap("j", t, v) },
	}
	for _, evil := range []string{"", "-A", "a b", "a;reboot", "$(reboot)", "A", "a\nb", "a'", "--all", "fe80::1", "10.0.0.1:2380", in.Address} {
		for name, f := range build {
			if _, err := f(in.target(), evil); err == nil && (evil != in.Address || name == "member") { // an address is the form of a node's name, too
				t.Errorf("%s of %q is taken", name, evil)
			}
		}
	}
	// At least a second, in whole ones, and a minute more for the action.
	for limit, want := range map[time.Duration]int{0: 61, -time.Hour: 61, time.Millisecond: 61, 90 * time.Second: 150, time.Hour + 1: 3661} {
		m, err := translate.DrainMap("j", in.target(), "w", limit)
		if err != nil || m.Deployments[0].Actions[1].Timeout != want || !strings.Contains(m.Deployments[0].Actions[1].Command, fmt.Sprintf("--timeout=%ds", want-60)) {
			t.Errorf("%v: %d s, %v", limit, m.Deployments[0].Actions[1].Timeout, err)
		}
	}
}

func leaveLog(task, text, problem string) wire.Log {
	return wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{{Task: "guard#j", Entry: "capplunder-guard ok"}, {Task: task + "#j", Entry: text, Error: problem}}}
}

// TestReadLook reads what kubectl and etcdctl of different years print.
func TestReadLook(t *testing.T) {
	const nodes = `capplunder-node cp-1|6a0f|v1.34.1|plunder://00:50:56:a5:11:20|True|KubeletReady||10.0.0.10 fd00::10|{"kubernetes.io/hostname":"cp-1","node-role.kubernetes.io/control-plane":""}
capplunder-node w-1|6a10|v1.34.1||Unknown|NodeStatusUnknown|true|10.0.0.21|{"node-role.kubernetes.io/control-plane-not":"","x.node-role.kubernetes.io/master":""}
capplunder-node cp-0|6a11|v1.14.2||False|KubeletNotReady|||map[kubernetes.io/hostname:cp-1 node-role.kubernetes.io/master:]
Warning: something is deprecated
`
	for name, tt := range map[string]struct {
		text, members   string
		known, external bool
	}{
		"etcd 3.6": {nodes + `capplunder-member 8e9e05c52164694d, started, cp-1, https://10.0.0.10:2380, https://10.0.0.10:2379, false
capplunder-member 91bc3c398fb3c146, unstarted, , https://10.0.0.11:2380, , true
capplunder-member ade526d28b1f92f7, started, cp-2, https://10.0.0.12:2380, https://10.0.0.12:2379, false
capplunder-health {"level":"warn","msg":"retrying of unary invoker failed"}
capplunder-health https://10.0.0.10:2379 is healthy: successfully committed proposal: took = 9.6ms
capplunder-health https://10.0.0.12:2379 is unhealthy: failed to commit proposal: context deadline exceeded
capplunder-health Error: unhealthy cluster
capplunder-health command terminated with exit code 1
capplunder-look ok members=known external=`, "cp-1 10.0.0.10 healthy=true learner=false;  10.0.0.11 healthy=false learner=true; cp-2 10.0.0.12 healthy=false learner=false", true, false},
		"etcd 3.2": {nodes + `capplunder-member 8e9e05c52164694d, started, cp-1, https://10.0.0.10:2380, https://10.0.0.10:2379
capplunder-health https://10.0.0.10:2379 is healthy: successfully committed proposal: took = 1.9ms
capplunder-look ok members=known external=`, "cp-1 10.0.0.10 healthy=true learner=false", true, false},
		"another etcd":         {nodes + "etcd: no member was found\ncapplunder-look ok members= external=yes", "", false, true},
		"etcd does not answer": {nodes + "etcd: context deadline exceeded\ncapplunder-look ok members= external=", "", false, false},
		"no list":              {nodes + "capplunder-member \ncapplunder-look ok members=known external=yes", "", false, true},
	} {
		v, done, err := translate.ReadLook(leaveLog("leave.look", tt.text, ""), "j")
		if err != nil || !done {
			t.Errorf("%s: %v, %v", name, done, err)
		}
		if got := memberText(v.Members); got != tt.members || v.MembersKnown != tt.known || v.External != tt.external {
			t.Errorf("%s: members %q, known %v, external %v", name, got, v.MembersKnown, v.External)
		}
		var got []string
		for _, n := range v.Nodes {
			got = append(got, fmt.Sprintf("%s %s %s %s ready=%t plane=%t cordoned=%t", n.Name, n.Version, n.ProviderID, n.Address, n.Ready, n.ControlPlane, n.Unschedulable))
		}
		if want := []string{"cp-0 v1.14.2   ready=false plane=true cordoned=false", "cp-1 v1.34.1 plunder://00:50:56:a5:11:20 10.0.0.10 ready=true plane=true cordoned=false", "w-1 v1.34.1  10.0.0.21 ready=false plane=false cordoned=true"}; !slices.Equal(got, want) {
			t.Errorf("%s: nodes\n got %q\nwant %q", name, got, want)
		}
	}
	if _, done, err := translate.ReadLook(wire.Log{State: wire.StateRunning}, "j"); done || err != nil {
		t.Errorf("an empty log: %v, %v", done, err)
	}
	if _, done, err := translate.ReadLook(leaveLog("leave.look", "capplunder-node x", "Command Timed out"), "j"); !done || err == nil || !strings.Contains(err.Error(), "Command Timed out") {
		t.Errorf("cut off: %v, %v", done, err)
	}
	_, _, err := translate.ReadLook(leaveLog("leave.look", "capplunder-error the API server does not answer: dial https://me:secret@10.0.0.10: connection refused", "Process exited with status 1"), "j")
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "likely:") {
		t.Errorf("got %v", err)
	}
}

func TestQuorum(t *testing.T) {
	const a, b, c, d, e = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"
	members := func(text string) translate.ClusterView {
		v := translate.ClusterView{MembersKnown: true}
		for i, r := range text {
			v.Members = append(v.Members, translate.Member{Address: fmt.Sprintf("10.0.0.%d", i+1), Healthy: r == 'h', Learner: r == 'l'})
		}
		return v
	}
	for _, tt := range []struct {
		members, leaving string
		may              bool
	}{
		{"hhh", a, true}, {"hh", a, true}, {"h", a, false}, {"hhhhh", e, true},
		{"hhx", c, true}, {"hhx", a, false}, {"hxx", b, false}, {"hhhxx", a, false}, {"hhhxx", d, true},
		{"hhl", a, true}, {"hl", a, false}, {"hl", b, true}, {"hx", b, true}, {"hx", a, false},
		{"hhh", "10.0.0.99", true}, {"x", "10.0.0.99", true}, {"xxh", c, false},
	} {
		if err := translate.Quorum(members(tt.members), tt.leaving); (err == nil) != tt.may {
			t.Errorf("%s without %s: %v", tt.members, tt.leaving, err)
		}
	}
	if err := translate.Quorum(translate.ClusterView{External: true}, a); err != nil {
		t.Error(err)
	}
	if err := translate.Quorum(translate.ClusterView{}, a); err == nil {
		t.Error("nobody knows the members")
	}
}

// TestReadDrain reads what is left on nodes, as kubectl of different years tells it.
func TestReadDrain(t *testing.T) {
	const left = `capplunder-left shop          web-6d5f-1           ReplicaSet   <none>                 <none>
capplunder-left default       debug                <none>       2026-01-02T03:04:05Z   <none>
capplunder-left kube-system   kube-proxy-x         DaemonSet    <none>                 <none>
capplunder-left kube-system   etcd-w               Node         <none>                 6a0f
capplunder-left kube-system   old-mirror           <none>       <none>                 6a0f
capplunder-budget other   web    0
capplunder-budget shop    roomy   1
capplunder-budget shop    web     0
capplunder-drain failed`
	const problem = "Process exited with status 1"
	for name, tt := range map[string]struct {
		text, problem string
		want          []string // nothing: no error
		never         string
	}{
		"drained": {"capplunder-drain ok", "", nil, ""},
		"gone":    {"capplunder-drain gone", "", nil, ""},
		"v1.37": {`error when evicting pods/"web-6d5f-1" -n "shop" (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.` + "\n" + left, problem,
			[]string{"shop/web-6d5f-1", "default/debug (being deleted since 2026-01-02T03:04:05Z)", "no disruption is allowed now by PodDisruptionBudget shop/web"}, "mirror"},
		"v1.14": {`error when evicting pod "web-6d5f-1" (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.` + "\n" + left, problem,
			[]string{"no disruption is allowed now by PodDisruptionBudget shop/web"}, "roomy"},
		"no budget":  {strings.ReplaceAll("error when evicting: x\n"+left, "   0", "   1"), problem, []string{"still there: shop/web-6d5f-1", "; error when evicting: x"}, "Budget"},
		"many":       {strings.Repeat("capplunder-left a b ReplicaSet <none> <none>\n", 30) + "capplunder-drain failed", problem, []string{"and 20 more"}, ""},
		"no list":    {"error: cannot delete Pods: x\ncapplunder-drain failed", problem, []string{"cannot delete Pods: x"}, ""},
		"timed out":  {wire.NoOutput, "Command Timed out", []string{"Command Timed out"}, ""},
		"API":        {"capplunder-error the API server does not answer: x", problem, []string{"the API server does not answer: x"}, "exited"},
		"not enough": {"something", "", []string{"did not say what it should"}, ""},
	} {
		err := translate.ReadDrain(leaveLog("leave.drain", tt.text, tt.problem), "j")
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range tt.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %v", name, w, err)
			}
		}
		if err != nil && tt.never != "" && strings.Contains(err.Error(), tt.never) {
			t.Errorf("%s: %q is in %v", name, tt.never, err)
		}
	}
}

// TestLeaveReaders: an answer that is not there is no success.
func TestLeaveReaders(t *testing.T) {
	readers := map[string]func(wire.Log) error{
		"leave.drain": func(l wire.Log) error { return translate.ReadDrain(l, "j") },
		"leave.reset": func(l wire.Log) error { return translate.ReadReset(l, "j") },
		"leave.node":  func(l wire.Log) error { return translate.ReadDeleteNode(l, "j") },
		"leave.member": func(l wire.Log) error {
			_, err := translate.ReadRemoveMember(l, "j")
			return err
		},
	}
	for task, read := range readers {
		stranger := wire.Log{State: wire.StateFailed, Entries: []wire.LogEntry{{Task: "guard#j", Entry: "capplunder-stranger macs=x", Error: "Process exited with status 9"}}}
		if err := read(stranger); err == nil || !strings.Contains(err.Error(), "another machine") {
			t.Errorf("%s, a stranger: %v", task, err)
		}
		old := leaveLog(task, "capplunder-drain ok\ncapplunder-reset ok\ncapplunder-node gone\ncapplunder-removed none", "")
		old.Entries[1].Task = task + "#yesterday"
		for what, l := range map[string]wire.Log{"nothing": {}, "another job's": old, "a word in a line": leaveLog(task, "x capplunder-drain ok capplunder-reset ok capplunder-node gone capplunder-removed none", "")} {
			if err := read(l); err == nil {
				t.Errorf("%s: %s is taken for success", task, what)
			}
		}
		if err := read(leaveLog(task, "capplunder-drain ok\ncapplunder-reset none\ncapplunder-node gone\ncapplunder-removed id=8e9e", "")); err != nil {
			t.Errorf("%s: %v", task, err)
		}
	}
}

// TestResetInShells runs the reset in real shells: every path of the script is replaced by
// one of the test, and what would touch a machine by a function.
func TestResetInShells(t *testing.T) {
	in := harmless()
	m, err := translate.ResetMap("job", in.target())
	if err != nil {
		t.Fatal(err)
	}
	_, text := script(t, m.Deployments[0].Actions[1])
	_, text, _ = strings.Cut(text, "exit 9; }; ") // after the guard
	if i := strings.LastIndex(text, "export PATH="); i >= 0 {
		text = text[i:]
	}
	_, text, _ = strings.Cut(text, "; ") // and the search path
	for _, shell := range []string{"dash", "bash", "busybox sh"} {
		name := strings.Fields(shell)
		if _, err := exec.LookPath(name[0]); err != nil {
			t.Logf("there is no %s", name[0])
			continue
		}
		// kubeadm, systemctl and umount are functions; the mounts are in a file.
		const stubs = `timeout() { shift; "$@"; }; systemctl() { echo "systemctl $*" >>$D/log; [ "$1" != is-active ]; }; flock() { [ ! -e $D/busy ]; }; sleep() { :; }
umount() { echo "umount $*" >>$D/log; [ "$1" = -l ] || return 1; [ ! -e $D/busymount ] || return 1; grep -v " $2 " $D/proc/mounts >$D/m; cat $D/m >$D/proc/mounts; }
kubeadm() { echo "kubeadm $*" >>$D/log; [ ! -e $D/fails ] || { echo 'error: no'; return 3; }; }
mkdir -p $D/run $D/proc $D/var/lib/kubelet; echo 'KUBELET_KUBEADM_ARGS="--a=b --container-runtime-endpoint=unix:///run/containerd/containerd.sock --c"' >$D/var/lib/kubelet/kubeadm-flags.env
echo "tmpfs $D/var/lib/kubelet/pods/1/volumes/s tmpfs rw 0 0" >$D/proc/mounts; echo "/dev/sda1 / ext4 rw 0 0" >>$D/proc/mounts; `
		const nfs = `echo "server:/a $D/var/lib/kubelet/pods/1/volumes/n nfs4 rw 0 0" >>$D/proc/mounts; `
		for what, tt := range map[string]struct{ before, want, log string }{
			"no kubeadm, no systemd": {"command() { return 1; }; systemctl() { return 127; }; ", "capplunder-reset none\n", ""},
			"kubelet stays":          {"command() { return 1; }; systemctl() { return 0; }; ", "capplunder-error kubelet can not be stopped\n", ""},
			"a node":                 {stubs, "capplunder-reset ok\n", "kubeadm reset -f --cri-socket=unix:///run/containerd/containerd.sock\nsystemctl stop kubelet\nsystemctl disable kubelet\nsystemctl is-active --quiet kubelet\n"},
			"kubeadm fails":          {stubs + ": >$D/fails; ", "error: no\ncapplunder-error kubeadm reset ended with status 3\n", ""},
			"a busy volume": {
				stubs + nfs, "capplunder-reset ok\n",
				"systemctl stop kubelet\nsystemctl disable kubelet\nsystemctl is-active --quiet kubelet\numount DIR/var/lib/kubelet/pods/1/volumes/n\numount -l DIR/var/lib/kubelet/pods/1/volumes/n\nkubeadm reset -f --cri-socket=unix:///run/containerd/containerd.sock\nsystemctl stop kubelet\nsystemctl disable kubelet\nsystemctl is-active --quiet kubelet\n",
			},
			"a volume that stays": {stubs + nfs + ": >$D/busymount; ", "capplunder-error a volume can not be unmounted, and kubeadm reset might delete what is on it: DIR/var/lib/kubelet/pods/1/volumes/n\n", ""},
			"another job":         {stubs + ": >$D/busy; ", "capplunder-error another job is still running on this host; if it does not end, restart the machine\n", ""},
		} {
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
				t.Fatal(err)
			}
			body := strings.NewReplacer("/run/", dir+"/run/", "/var/", dir+"/var/", "/etc/", dir+"/etc/", "/proc/", dir+"/proc/").Replace(text)
			cmd := exec.CommandContext(t.Context(), name[0], append(name[1:], "-c", "set -u; "+tt.before+body)...)
			cmd.Env = []string{"PATH=/usr/bin:/bin", "D=" + dir}
			unprivileged(t, cmd, dir)
			out, err := cmd.CombinedOutput()
			if got := strings.ReplaceAll(string(out), dir, "DIR"); got != tt.want || (err == nil) != strings.HasPrefix(tt.want, "capplunder-reset") {
				t.Errorf("%s, %s: %v: %s", shell, what, err, got)
			}
			log, err := os.ReadFile(filepath.Join(dir, "log"))
			if got := strings.ReplaceAll(string(log), dir, "DIR"); tt.log != "" && (err != nil || got != tt.log) {
				t.Errorf("%s, %s: it ran\n%s(%v), want\n%s", shell, what, got, err, tt.log)
			}
			if strings.Contains(tt.want, "volume") && strings.Contains(string(log), "kubeadm") {
				t.Errorf("%s, %s: kubeadm ran", shell, what)
			}
		}
	}
}
