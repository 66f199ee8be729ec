package translate

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// How a machine leaves its cluster before it is wiped. A control plane machine does what
// has to be asked of the cluster, with its own kubectl, as it does for joins; so nobody
// needs a way to the API server but the machines themselves. In this order: LookMap and
// Quorum, DrainMap, ResetMap on the machine itself, RemoveMemberMap if it was a control
// plane, DeleteNodeMap. Each may run again.
const (
	taskLook   = "leave.look"
	taskDrain  = "leave.drain"
	taskReset  = "leave.reset"
	taskMember = "leave.member"
	taskDelete = "leave.node"
)

// ClusterView is what a control plane says of its cluster.
type ClusterView struct {
	Nodes   []Node   // by name
	Members []Member // of etcd, as it lists them
	// MembersKnown: Members are all members of etcd. They are not known when etcd runs
	// elsewhere (External), or does not answer.
	MembersKnown bool
	// External: there is no etcd on the control plane machines.
	External bool
}

// Member is a member of etcd.
type Member struct {
	ID      string // hex
	Name    string // of its node; empty until it has started
	Address string // IPv4 of its peer URL; empty if that has none
	Learner bool   // has no vote
	Healthy bool   // answers, and sees a majority
}

// Quorum says why the member of etcd at an address (IPv4) must not go now, or nil: what
// is left must have a majority of healthy members that vote. A machine that is no member
// may go.
func Quorum(v ClusterView, leaving string) error {
	switch {
	case v.External:
		return nil
	case !v.MembersKnown:
		return errors.New("etcd does not say who its members are, so nobody knows whether it outlives this one")
	}
	var left, ill []string
	found := false
	for _, m := range v.Members {
		switch {
		case m.Address == leaving:
			found = true
		case m.Learner:
		default:
			left = append(left, m.who())
			if !m.Healthy {
				ill = append(ill, m.who())
			}
		}
	}
	switch healthy := len(left) - len(ill); {
	case !found:
		return nil
	case len(left) == 0:
		return errors.New("it is the last member of etcd that has a vote: without it the cluster is lost")
	case healthy <= len(left)/2:
		return fmt.Errorf("etcd would be left with %d of %d members that answer and lose its majority (no answer from %s): bring them up first, or remove them", healthy, len(left), strings.Join(ill, ", "))
	}
	return nil
}

// who is a member for people.
func (m Member) who() string {
	if m.Name == "" {
		return m.Address
	}
	return m.Name
}

const (
	lookLimit   = 90 * time.Second
	memberLimit = 4 * time.Minute
	deleteLimit = 3 * time.Minute
)

// Scripts for a control plane need a POSIX shell, grep, sed, tr, sort, head, tail and
// timeout.
const (
	// apiScript finds the API server: that of this machine, else the cluster's endpoint, which
	// may be on a machine that is leaving. K is kubectl for it, or empty; k is one short request.
	apiScript = `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; C={{CONF}}; K=; e="there is no $C"
if [ -s $C ]; then for s in --server=https://{{IP}}:6443 ''; do x="kubectl --kubeconfig=$C $s"; if e=$($x --request-timeout=8s get --raw /healthz 2>&1 >/dev/null); then K=$x; break; fi; done; fi
k() { $K --request-timeout=8s "$@"; }
`
	needAPIScript = `[ -n "$K" ] || { echo "capplunder-error the API server does not answer: $(echo "$e" | tail -n 1)"; exit 1; }
`
	// etcdScript finds a member of etcd that answers: that of this machine, another one, or
	// that of this machine through its container runtime, because the API server reaches pods
	// by way of kubelet. got is empty if there is none, external is set if there can't be one.
	// l is the list of members. etcdctl up to 3.3 speaks API 2 unless it is told otherwise,
	// and images from 3.5 on have no shell to tell it.
	etcdScript = `P=/etc/kubernetes/pki/etcd; F="--cacert=$P/ca.crt --cert=$P/server.crt --key=$P/server.key --command-timeout=8s"; H=--endpoints=https://127.0.0.1:2379; M=; c=
X() { if [ -n "$c" ]; then timeout 12 crictl exec "$c" "$@"; else timeout 12 $K -n kube-system exec "$p" -- "$@"; fi; }
ctl() { if [ -z "$M" ]; then X etcdctl $F "$@"; else X sh -c "ETCDCTL_API=3 exec etcdctl $F $*"; fi; }
list() { l=$(ctl $H member list 2>&1) && return 0; case $l in *'not defined'*|*'ncorrect Usage'*) M=2; l=$(ctl $H member list 2>&1);; *) return 1;; esac; }
a=; z=; external=; l=$e; [ -z "$K" ] || l='no member was found'
if [ -n "$K" ]; then if o=$(k -n kube-system get pods -l component=etcd --no-headers -o 'custom-columns=N:.metadata.name,I:.status.hostIP' 2>/dev/null); then
while read -r n i _; do case $i in '') ;; {{IP}}) a=$n;; {{SKIP}}) ;; *) z=${z:-$n};; esac; done <<X
$o
X
[ -n "$o" ] || [ -e /etc/kubernetes/manifests/etcd.yaml ] || external=1; fi; fi
got=; for p in $a $z -; do if [ "$p" = - ]; then c=$(crictl ps -q --label io.kubernetes.container.name=etcd 2>/dev/null | head -n 1); [ -n "$c" ] || break; fi
if list; then got=1; break; fi; done
`
	// A field that is not there is empty between its bars: kubectl's columns can't tell an
	// empty text from the space around it.
	lookScript = `n=$(k get nodes -o 'jsonpath={range .items[*]}{.metadata.name}|{.metadata.uid}|{.status.nodeInfo.kubeletVersion}|{.spec.providerID}|{.status.conditions[?(@.type=="Ready")].status}|{.status.conditions[?(@.type=="Ready")].reason}|{.spec.unschedulable}|{.status.addresses[?(@.type=="InternalIP")].address}|{.metadata.labels}{"\n"}{end}' 2>&1) || { echo "capplunder-error the API server does not say which nodes there are: $(echo "$n" | tail -n 1)"; exit 1; }
echo "$n" | sed 's/^/capplunder-node /'
{{ETCD}}if [ -n "$got" ]; then echo "$l" | sed 's/^/capplunder-member /'
h=$(echo "$l" | sed -n 's/^[0-9a-f]*, started, [^,]*, [^,]*, \([^ ,]*\).*/\1/p' | tr '\n' ,); ctl --endpoints="${h%,}" endpoint health 2>&1 | sed 's/^/capplunder-health /'
else echo "etcd: $(echo "$l" | tail -n 1)"; fi; echo "capplunder-look ok members=${got:+known} external=${external:+yes}"`
)

// leaveScript is a script of this file with its values.
func (b *mapBuilder) leaveScript(script string, more map[string]string) string {
	v := map[string]string{"CONF": adminConf, "IP": b.target.Address, "SKIP": "-"}
	for name, value := range more {
		v[name] = value
	}
	v["ETCD"] = fill(etcdScript, v)
	return fill(apiScript, v) + fill(script, v)
}

// LookMap asks a control plane which nodes its cluster has, and who the members of its etcd are
// and whether they are well. It changes nothing.
func LookMap(job string, t Target) (wire.Map, error) {
	b := newMap(job, t)
	b.sh(taskLook, lookLimit, b.leaveScript(needAPIScript+lookScript, nil))
	return b.done("look")
}

// leaveEntry is the entry of an action; ok is false while the job has come to nothing yet.
// A job that ended before the action did has err say how.
func leaveEntry(l wire.Log, task, job string) (e wire.LogEntry, ok bool, err error) {
	if e, ok = entry(l, TaskName(task, job)); ok {
		return e, true, nil
	}
	if g, there := entry(l, TaskName("guard", job)); there && g.Error != "" {
		return g, true, errors.New(Explain(g))
	}
	return wire.LogEntry{}, false, nil
}

// said is the line of an entry that begins with a word, without it.
func said(e wire.LogEntry, word string) (rest string, ok bool) {
	for line := range strings.Lines(e.Entry) {
		if rest, ok = strings.CutPrefix(strings.TrimSpace(line), word); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// leaveError is what an action of this file said was wrong, or else how it ended.
func leaveError(e wire.LogEntry) error {
	if text, ok := said(e, "capplunder-error "); ok {
		text = Mask(readable(text))
		return errors.New(text + Likely(text))
	}
	return errors.New(Explain(e))
}

// ReadLook gives what LookMap came to; done is false while the log does not say. err is
// that the cluster does not answer, and why.
func ReadLook(l wire.Log, job string) (v ClusterView, done bool, err error) {
	e, ok, err := leaveEntry(l, taskLook, job)
	if !ok || err != nil {
		return ClusterView{}, ok, err
	}
	end, ok := said(e, "capplunder-look ok")
	if !ok {
		return ClusterView{}, true, leaveError(e)
	}
	healthy := map[string]bool{}
	for line := range strings.Lines(e.Entry) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch what {
		case "capplunder-node":
			if n, ok := readNode(rest); ok {
				v.Nodes = append(v.Nodes, n)
			}
		case "capplunder-member":
			if m, ok := readMember(rest); ok {
				v.Members = append(v.Members, m)
			}
		case "capplunder-health":
			if u, found := strings.CutSuffix(strings.SplitAfterN(rest+" ", " ", 2)[0], " "); found && strings.Contains(rest, " is healthy") {
				healthy[hostOf(u)] = true
			}
		}
	}
	slices.SortFunc(v.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	for i := range v.Members {
		v.Members[i].Healthy = v.Members[i].Address != "" && healthy[v.Members[i].Address]
	}
	how := fields(end)
	v.MembersKnown = how["members"] == "known" && len(v.Members) > 0
	v.External = how["external"] == "yes" && !v.MembersKnown
	return v, true, nil
}

// roleForm is the label of a control plane among others: kubectl prints them as JSON, or, up
// to 1.17, as map[name:value name:value].
var roleForm = regexp.MustCompile(`[\[{ ,"]node-role\.kubernetes\.io/(?:control-plane|master)"?:`)

// readNode reads the fields of lookScript.
func readNode(line string) (n Node, ok bool) {
	f := strings.SplitN(line, "|", 9)
	if len(f) < 9 || !domainForm.MatchString(f[0]) {
		return Node{}, false
	}
	n = Node{
		Name: f[0], UID: f[1], Version: f[2], ProviderID: f[3], Ready: f[4] == "True", Reason: f[5],
		Unschedulable: f[6] == "true", ControlPlane: roleForm.MatchString(f[8]),
	}
	for _, a := range strings.Fields(f[7]) {
		if n.Address == "" && addresses4(a) == nil {
			n.Address = a
		}
	}
	return n, true
}

var memberForm = regexp.MustCompile(`^([0-9a-f]{1,16}), (?:started|unstarted), ([^,]*), ([^ ]*?),(?: ([^ ]*))?(?:, (true|false))?$`)

// readMember reads a line of etcdctl member list; up to etcd 3.3 it does not say whether
// the member is a learner, because there were none.
func readMember(line string) (m Member, ok bool) {
	f := memberForm.FindStringSubmatch(line)
	if f == nil {
		return Member{}, false
	}
	return Member{ID: f[1], Name: f[2], Address: hostOf(f[3]), Learner: f[5] == "true"}, true
}

// hostOf is the IPv4 address in the first of a list of URLs, or "".
func hostOf(urls string) string {
	first, _, _ := strings.Cut(urls, ",")
	_, rest, _ := strings.Cut(first, "://")
	if a, err := netip.ParseAddrPort(strings.TrimSuffix(rest, "/")); err == nil && a.Addr().Is4() {
		return a.Addr().String()
	}
	return ""
}
