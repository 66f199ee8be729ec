package host

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// object is a pod as the API shows it.
func (p podView) object() map[string]any {
	labels := map[string]any{}
	for k, v := range p.Labels {
		labels[k] = v
	}
	meta := map[string]any{"name": p.Name, "namespace": p.Namespace, "labels": labels}
	if p.Controller != "" {
		meta["ownerReferences"] = []any{map[string]any{"kind": p.Controller, "controller": true}}
	}
	if p.Mirror {
		meta["annotations"] = map[string]any{"kubernetes.io/config.mirror": "0"}
	}
	if !p.Deleted.IsZero() {
		meta["deletionTimestamp"] = p.Deleted.UTC().Format(time.RFC3339)
	}
	status, spec := map[string]any{"phase": "Pending"}, map[string]any{}
	if p.Node != "" {
		status["phase"], status["hostIP"], spec["nodeName"] = "Running", p.Address, p.Node
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}
}

// everywhere says that objects of all namespaces are asked for.
func (k *kubectl) everywhere() bool { return has(k.flags, "--all-namespaces", "-A") }

func (k *kubectl) getPods(names []string, format string) int {
	var objects []map[string]any
	selector := value(k.flags, "-l", "--selector")
	key, want, _ := strings.Cut(selector, "=")
	field, node, _ := strings.Cut(value(k.flags, "--field-selector"), "=")
	if field != "" && field != "spec.nodeName" {
		return k.kubectlError("error: the simulator only knows the field selector spec.nodeName")
	}
	for _, p := range k.cluster.pods(k.h.world) {
		switch {
		case !k.everywhere() && p.Namespace != k.namespace,
			selector != "" && p.Labels[key] != want,
			field != "" && p.Node != node,
			len(names) > 0 && !slices.Contains(names, p.Name):
			continue
		}
		objects = append(objects, p.object())
	}
	if len(names) > len(objects) && !has(k.flags, "--ignore-not-found") {
		return k.kubectlError(fmt.Sprintf("Error from server (NotFound): pods %q not found", names[0]))
	}
	return k.show("pod", objects, len(names) == 1, format, k.podTable)
}

func (k *kubectl) podTable(objects []map[string]any) {
	rows := [][]string{{"NAMESPACE", "NAME", "STATUS", "NODE"}}
	if has(k.flags, "--no-headers") {
		rows = nil
	}
	for _, o := range objects {
		var row []string
		for _, path := range []string{".metadata.namespace", ".metadata.name", ".status.phase", ".spec.nodeName"} {
			s, err := evaluate("{"+path+"}", o, true)
			if err != nil || s == "" {
				s = "<none>"
			}
			row = append(row, s)
		}
		rows = append(rows, row)
	}
	k.table(rows)
}

func (k *kubectl) getBudgets(format string) int {
	pods := k.cluster.pods(k.h.world)
	var objects []map[string]any
	for _, b := range look(k.cluster, func(d *clusterData) []budget { return slices.Clone(d.Budgets) }) {
		if k.everywhere() || b.Namespace == k.namespace {
			objects = append(objects, map[string]any{
				"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": map[string]any{"name": b.Name, "namespace": b.Namespace},
				"status": map[string]any{"disruptionsAllowed": b.allowed(pods, time.Now())},
			})
		}
	}
	return k.show("poddisruptionbudget.policy", objects, false, format, func(objects []map[string]any) {
		k.columns(objects, "NAMESPACE:.metadata.namespace,NAME:.metadata.name,ALLOWED:.status.disruptionsAllowed")
	})
}

// cordon says whether a node takes new pods. As with kubectl, a failure shows in the
// text alone.
func (k *kubectl) cordon(verb, name string) int {
	want, changed := verb == "cordon", false
	found := k.cluster.changeNode(name, func(n *clusterNode) { changed, n.Unschedulable = n.Unschedulable != want, want })
	switch {
	case !found:
		return k.kubectlError(fmt.Sprintf("Error from server (NotFound): nodes %q not found", name))
	case changed:
		k.printf("node/%s %sed\n", name, verb)
	default:
		k.printf("node/%s already %sed\n", name, verb)
	}
	return 0
}

// drainFlags are the flags of kubectl drain with which pods with local data go, of the
// kubectl that a host has: the new one came with 1.20, the old one is not in 1.37 any more.
func (c *call) drainFlags() []string {
	var out []string
	m := minorOf(c.h.version("kubectl"))
	if m < 37 {
		out = append(out, "--delete-local-data")
	}
	if m >= 20 {
		out = append(out, "--delete-emptydir-data")
	}
	return out
}

// drainUsage prints the help of kubectl drain, or refuses a flag that it does not know.
func (c *call) drainUsage(flags map[string][]string) (status int, done bool) {
	local := c.drainFlags()
	if has(flags, "--help", "-h") {
		c.printf("Drain node in preparation for maintenance.\n\nOptions:\n    --force=false: ...\n    --ignore-daemonsets=false: ...\n")
		for _, f := range local {
			c.printf("    %s=false: Continue even if there are pods using emptyDir\n", f)
		}
		return 0, true
	}
	for _, f := range []string{"--delete-local-data", "--delete-emptydir-data"} {
		if has(flags, f) && !slices.Contains(local, f) {
			return c.kubectlError("error: unknown flag: " + f + "\nSee 'kubectl drain --help' for usage."), true
		}
	}
	return 0, false
}

// drain is kubectl drain: what it must not delete stops it before it begins; what is
// protected is tried again every five seconds.
func (k *kubectl) drain(name string) int {
	if status := k.cordon("cordon", name); status != 0 {
		return status
	}
	limit, err := time.ParseDuration(value(k.flags, "--timeout"))
	if err != nil && value(k.flags, "--timeout") != "" {
		return k.kubectlError(fmt.Sprintf("error: invalid argument %q for \"--timeout\" flag: %v", value(k.flags, "--timeout"), err))
	}
	doomed, problem := k.doomed(name)
	if problem != "" {
		return k.undrained(name, problem)
	}
	evicted := map[string]bool{}
	for second := 0; ; second++ {
		left := 0
		for _, p := range k.cluster.pods(k.h.world) {
			id := p.Namespace + "/" + p.Name
			if p.Node != name || !slices.ContainsFunc(doomed, func(d podView) bool { return d.Namespace == p.Namespace && d.Name == p.Name }) {
				continue
			}
			left++
			if evicted[id] || second%5 != 0 {
				continue
			}
			k.printf("evicting pod %s\n", id)
			if evicted[id] = k.cluster.evict(p); !evicted[id] {
				k.errf("error when evicting %s (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.", k.podName(p))
			}
		}
		if left == 0 {
			break
		}
		if limit > 0 && time.Duration(second)*time.Second >= limit {
			return k.undrained(name, k.stillThere(name, doomed, evicted, limit))
		}
		if !k.spend(time.Second) {
			return 1
		}
		if !k.cluster.quorum() {
			return k.kubectlError("Error from server: etcdserver: request timed out")
		}
	}
	for _, p := range doomed {
		k.printf("pod/%s evicted\n", p.Name)
	}
	k.printf("node/%s drained\n", name)
	return 0
}

// podName is a pod in the errors of kubectl drain.
func (k *kubectl) podName(p podView) string {
	if minorOf(k.h.version("kubectl")) < 20 {
		return fmt.Sprintf("pod %q", p.Name)
	}
	return fmt.Sprintf("pods/%q -n %q", p.Name, p.Namespace)
}

// doomed are the pods that a drain deletes, and what keeps it from beginning.
func (k *kubectl) doomed(node string) (out []podView, problem string) {
	var daemons, local, bare []string
	for _, p := range k.cluster.pods(k.h.world) {
		id := p.Namespace + "/" + p.Name
		switch {
		case p.Node != node || p.Mirror:
			continue
		case p.Controller == "DaemonSet":
			daemons = append(daemons, id)
			continue
		case p.EmptyDir:
			local = append(local, id)
		case p.Controller == "":
			bare = append(bare, id)
		}
		out = append(out, p)
	}
	flag := k.drainFlags()[len(k.drainFlags())-1]
	switch {
	case len(daemons) > 0 && !has(k.flags, "--ignore-daemonsets"):
		return nil, "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): " + strings.Join(daemons, ", ")
	case len(local) > 0 && !has(k.flags, k.drainFlags()...):
		return nil, "cannot delete Pods with local storage (use " + flag + " to override): " + strings.Join(local, ", ")
	case len(bare) > 0 && !has(k.flags, "--force"):
		return nil, "cannot delete Pods that declare no controller (use --force to override): " + strings.Join(bare, ", ")
	}
	if len(daemons) > 0 {
		k.errf("Warning: ignoring DaemonSet-managed Pods: %s", strings.Join(daemons, ", "))
	}
	return out, ""
}

// stillThere is the error for the first pod that is left when the time is over.
func (k *kubectl) stillThere(node string, doomed []podView, evicted map[string]bool, limit time.Duration) string {
	for _, p := range k.cluster.pods(k.h.world) {
		if p.Node != node || !slices.ContainsFunc(doomed, func(d podView) bool { return d.Namespace == p.Namespace && d.Name == p.Name }) {
			continue
		}
		if evicted[p.Namespace+"/"+p.Name] {
			return fmt.Sprintf("error when waiting for pod %q in namespace %q to terminate: global timeout reached: %v", p.Name, p.Namespace, limit)
		}
		return fmt.Sprintf("error when evicting %s: global timeout reached: %v", k.podName(p), limit)
	}
	return "global timeout reached"
}

func (k *kubectl) undrained(name, problem string) int {
	k.errf("error: unable to drain node %q due to error: %s, continuing command...\nThere are pending nodes to be drained:\n %s", name, problem, name)
	return k.kubectlError("error: " + problem)
}
