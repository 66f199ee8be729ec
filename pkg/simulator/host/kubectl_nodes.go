package host

import (
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/yaml"
)

// object is a node as the API shows it.
func (n clusterNode) object(ready, reason string) map[string]any {
	labels := map[string]any{"kubernetes.io/hostname": n.Name}
	spec := map[string]any{}
	if n.ControlPlane {
		// kubeadm set the old label until 1.23, and has set the new one since 1.20.
		if m := minorOf(n.Version); m < 24 {
			labels["node-role.kubernetes.io/master"] = ""
		}
		if m := minorOf(n.Version); m >= 20 {
			labels["node-role.kubernetes.io/control-plane"] = ""
		}
	}
	if n.Unschedulable {
		spec["unschedulable"] = true
	}
	if n.ProviderID != "" {
		spec["providerID"] = n.ProviderID
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": n.Name, "uid": n.UID, "labels": labels, "creationTimestamp": n.Joined.UTC().Format(time.RFC3339)},
		"spec":     spec,
		"status": map[string]any{
			"conditions": []any{map[string]any{"type": "Ready", "status": ready, "reason": reason}},
			"addresses":  []any{map[string]any{"type": "InternalIP", "address": n.Address}, map[string]any{"type": "Hostname", "address": n.Name}},
			"nodeInfo":   map[string]any{"kubeletVersion": "v" + n.Version},
		},
	}
}

func (k *kubectl) getNodes(names []string, format string) int {
	all := k.cluster.nodes()
	status := 0
	if len(names) > 0 {
		var wanted []clusterNode
		for _, name := range names {
			i := slices.IndexFunc(all, func(n clusterNode) bool { return n.Name == name })
			if i < 0 {
				if !has(k.flags, "--ignore-not-found") {
					status = k.kubectlError(fmt.Sprintf("Error from server (NotFound): nodes %q not found", name))
				}
				continue
			}
			wanted = append(wanted, all[i])
		}
		if all = wanted; len(all) == 0 {
			return status
		}
	}
	objects := make([]map[string]any, len(all))
	for i, n := range all {
		objects[i] = n.object(k.cluster.condition(n, k.h.world))
	}
	return max(status, k.show("node", objects, len(names) == 1, format, k.nodeTable))
}

func (k *kubectl) nodeTable(objects []map[string]any) {
	rows := [][]string{{"NAME", "STATUS", "ROLES", "AGE", "VERSION"}}
	if has(k.flags, "--no-headers") {
		rows = nil
	}
	for _, o := range objects {
		field := func(path string) string {
			s, err := evaluate("{"+path+"}", o, true)
			if err != nil {
				return ""
			}
			return s
		}
		ready, roles := "NotReady", "<none>"
		if field(`.status.conditions[0].status`) == "True" {
			ready = "Ready"
		}
		labels, _ := o["metadata"].(map[string]any)["labels"].(map[string]any)
		for _, r := range []string{"master", "control-plane"} {
			if _, ok := labels["node-role.kubernetes.io/"+r]; ok {
				roles = r
			}
		}
		if field(".spec.unschedulable") == "true" {
			ready += ",SchedulingDisabled"
		}
		age := "0s"
		if t, err := time.Parse(time.RFC3339, field(".metadata.creationTimestamp")); err == nil {
			age = time.Since(t).Truncate(time.Second).String()
		}
		rows = append(rows, []string{field(".metadata.name"), ready, roles, age, field(".status.nodeInfo.kubeletVersion")})
	}
	k.table(rows)
}

// patchNode sets a node's provider ID. The API server lets nobody change one.
func (k *kubectl) patchNode(name, patch string) int {
	var p struct {
		Spec struct {
			ProviderID *string `json:"providerID"`
		} `json:"spec"`
	}
	if err := yaml.UnmarshalStrict([]byte(patch), &p); err != nil || p.Spec.ProviderID == nil {
		return k.kubectlError("error: the simulator only knows patches of a node's spec.providerID")
	}
	problem, changed := "", false
	found := k.cluster.changeNode(name, func(n *clusterNode) {
		if n.ProviderID != "" && n.ProviderID != *p.Spec.ProviderID {
			problem = fmt.Sprintf("The Node %q is invalid: spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid", name)
			return
		}
		changed = n.ProviderID != *p.Spec.ProviderID
		n.ProviderID = *p.Spec.ProviderID
	})
	switch {
	case !found:
		return k.kubectlError(fmt.Sprintf("Error from server (NotFound): nodes %q not found", name))
	case problem != "":
		return k.kubectlError(problem)
	case changed:
		k.printf("node/%s patched\n", name)
	default:
		k.printf("node/%s patched (no change)\n", name)
	}
	return 0
}
