package translate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// drainSpare is how much longer than the drain itself its action may take.
const drainSpare = time.Minute

// drainScript cordons a node and evicts its pods. What goes wrong is told by what is left
// on the node, because what kubectl says of it differs from year to year; of its output,
// only errors are printed, each once (it tries again every five seconds).
const (
	drainScript = `n={{NODE}}; o=$(k get node $n --ignore-not-found -o name 2>&1) || { echo "capplunder-error the API server does not say whether there is a node $n: $(echo "$o" | tail -n 1)"; exit 1; }
[ -n "$o" ] || { echo 'capplunder-drain gone'; exit 0; }
o=$(k cordon $n 2>&1); [ "$(k get node $n -o 'jsonpath={.spec.unschedulable}' 2>/dev/null)" = true ] || { echo "capplunder-error node $n could not be cordoned: $(echo "$o" | tail -n 1)"; exit 1; }
f=--delete-emptydir-data; kubectl drain --help 2>/dev/null | grep -q -e $f || f=--delete-local-data
if o=$(timeout {{LIMIT}} $K drain $n --ignore-daemonsets $f --force --timeout={{SECONDS}}s 2>&1); then echo 'capplunder-drain ok'; exit 0; fi
echo "$o" | grep -v '^evicting pod' | sort -u | tail -n 20
k get pods --all-namespaces --field-selector=spec.nodeName=$n --no-headers -o 'custom-columns=S:.metadata.namespace,N:.metadata.name,O:.metadata.ownerReferences[0].kind,D:.metadata.deletionTimestamp,M:.metadata.annotations.kubernetes\.io/config\.mirror' 2>/dev/null | sed 's/^/capplunder-left /'
k get poddisruptionbudgets --all-namespaces --no-headers -o 'custom-columns=S:.metadata.namespace,N:.metadata.name,A:.status.disruptionsAllowed' 2>/dev/null | sed 's/^/capplunder-budget /'
echo 'capplunder-drain failed'; exit 1`

	deleteNodeScript = `n={{NODE}}; o=; for i in 1 2 3; do o=$($K --request-timeout=30s delete node $n --ignore-not-found --timeout=30s 2>&1); s=$?
r=$(k get node $n --ignore-not-found -o name 2>&1) && [ -z "$r" ] && { echo 'capplunder-node gone'; exit 0; }; if [ $i -lt 3 ]; then sleep 5; fi; done
if [ $s = 0 ]; then o="it is there again: its kubelet is still running, or a finalizer holds it"; fi
echo "capplunder-error node $n could not be deleted: $(echo "$o" | tail -n 1)"; exit 1`
)

// DrainMap has a control plane cordon a node and evict its pods, those of DaemonSets left
// out, within timeout (seconds; at least one). Data in emptyDir volumes is lost, as it is with
// the machine. A PodDisruptionBudget is respected. A node that is not there is fine.
func DrainMap(job string, t Target, node string, timeout time.Duration) (wire.Map, error) {
	b := newMap(job, t)
	b.match("node name", node, domainForm)
	seconds := max(1, int((timeout+time.Second-1)/time.Second))
	b.sh(taskDrain, time.Duration(seconds)*time.Second+drainSpare, b.leaveScript(needAPIScript+drainScript, map[string]string{
		"NODE": quote(node), "SECONDS": strconv.Itoa(seconds), "LIMIT": strconv.Itoa(seconds + 10),
	}))
	return b.done("drain")
}

// ReadDrain is nil when the node is drained, or gone. Else it says which pods are still on
// the node, and what holds them.
func ReadDrain(l wire.Log, job string) error {
	e, ok, err := leaveEntry(l, taskDrain, job)
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("the node was not drained: the job did not get that far")
	}
	switch how, _ := said(e, "capplunder-drain "); how {
	case "ok", "gone":
		return nil
	case "failed":
	default:
		return leaveError(e)
	}
	pods, refused := podsLeft(e)
	if len(pods) == 0 {
		return leaveError(e)
	}
	text := "the node is not drained, still there: " + list(pods)
	if budgets := tight(e, refused); len(budgets) > 0 {
		text += "; no disruption is allowed now by PodDisruptionBudget " + list(budgets)
	} else if last := lastError(e); last != "" {
		text += "; " + last
	}
	return errors.New(text)
}

// podsLeft are the pods that a drain should have taken off a node, as NAMESPACE/NAME, and
// the namespaces of those whose deletion has not even begun.
func podsLeft(e wire.LogEntry) (pods, refused []string) {
	for line := range strings.Lines(e.Entry) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != "capplunder-left" || f[3] == "DaemonSet" || f[3] == "Node" || f[5] != noValue {
			continue // those of DaemonSets, and what kubelet runs by itself, stay
		}
		pod := f[1] + "/" + f[2]
		if f[4] == noValue {
			refused = append(refused, f[1])
		} else {
			pod += " (being deleted since " + f[4] + ")"
		}
		pods = append(pods, pod)
	}
	return pods, refused
}

// tight are the budgets in the given namespaces that allow no disruption.
func tight(e wire.LogEntry, namespaces []string) []string {
	var out []string
	for line := range strings.Lines(e.Entry) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "capplunder-budget" && (f[3] == "0" || f[3] == noValue) && slices.Contains(namespaces, f[1]) {
			out = append(out, f[1]+"/"+f[2])
		}
	}
	return out
}

// lastError is the last error that kubectl printed, or "".
func lastError(e wire.LogEntry) (last string) {
	for line := range strings.Lines(Mask(readable(e.Entry))) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "error") {
			last = line
		}
	}
	return last
}

// list is a list for people, of ten at most.
func list(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// DeleteNodeMap has a control plane delete a node, and look whether it is gone. The kubelet
// of the machine must not run any more, or it makes the node anew when it starts again.
func DeleteNodeMap(job string, t Target, node string) (wire.Map, error) {
	b := newMap(job, t)
	b.match("node name", node, domainForm)
	b.sh(taskDelete, deleteLimit, b.leaveScript(needAPIScript+deleteNodeScript, map[string]string{"NODE": quote(node)}))
	return b.done("delete node")
}

// ReadDeleteNode is nil when the node was seen to be gone.
func ReadDeleteNode(l wire.Log, job string) error {
	e, ok, err := leaveEntry(l, taskDelete, job)
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("the node was not deleted: the job did not get that far")
	}
	if how, _ := said(e, "capplunder-node "); how == "gone" {
		return nil
	}
	return leaveError(e)
}
