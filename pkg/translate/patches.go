package translate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"
)

// Arguments of kubelet that are written for every node.
const (
	argNodeIP     = "node-ip"
	argProviderID = "provider-id"
)

// protected are the fields of a kind that no patch may touch: who the node is, how it
// gets into the cluster, and what the rest of the work relies on.
func protected(kind string) []string {
	switch kind {
	case kindInit:
		return []string{"bootstrapTokens", "certificateKey", "localAPIEndpoint", "nodeRegistration.name"}
	case kindJoin:
		return []string{"discovery", "controlPlane", "caCertPath", "nodeRegistration.name"}
	case kindCluster:
		return []string{"kubernetesVersion", "clusterName", "controlPlaneEndpoint", "certificatesDir"}
	case kindKubelet:
		return []string{"providerID"}
	}
	return nil
}

// checkPatches are the problems of the patches that the objects alone show, beside
// those that have nothing to do with a version (capi.InstallOptions.Problems).
func checkPatches(k *Kubernetes) []optionError {
	var out []optionError
	for i, p := range k.KubeadmPatches {
		bad := func(format string, args ...any) {
			out = append(out, optionError{fmt.Sprintf("kubeadmPatches[%d]", i), fmt.Sprintf(format, args...)})
		}
		kind, _ := p["kind"].(string)
		for _, path := range protected(kind) {
			if touched(p, strings.Split(path, ".")) {
				bad("%s of %s is capplunder's to write", path, kind)
			}
		}
		registration, _ := p["nodeRegistration"].(map[string]any)
		if args, ok := registration["kubeletExtraArgs"]; ok && args != nil {
			names, fits := argumentNames(args, k.listArgs())
			if !fits {
				bad("nodeRegistration.kubeletExtraArgs is not %s, as %s has it", map[bool]string{true: "a list of name and value", false: "an object"}[k.listArgs()], k.kubeadmAPI())
			}
			for _, name := range []string{argProviderID, "hostname-override"} {
				if slices.Contains(names, name) {
					bad("%s in nodeRegistration.kubeletExtraArgs is capplunder's to write", name)
				}
			}
		}
	}
	return out
}

// touched reports whether a merge patch has something to say about a path: a value
// there, or something that is no object on the way to it.
func touched(p map[string]any, path []string) bool {
	v, ok := p[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	m, ok := v.(map[string]any)
	return !ok || touched(m, path[1:])
}

// argumentNames are the names of extra arguments; fits is false if they are not in the
// form that is asked for.
func argumentNames(args any, list bool) (names []string, fits bool) {
	switch args := args.(type) {
	case map[string]any:
		return slices.Sorted(maps.Keys(args)), !list
	case []any:
		for _, a := range args {
			m, _ := a.(map[string]any)
			name, ok := m["name"].(string)
			if !ok {
				return names, false
			}
			names = append(names, name)
		}
		return names, list
	}
	return nil, false
}

// documents are objects as one YAML text, each with the patches of its kind merged over
// it. A list in a patch replaces the whole list (RFC 7386), so what a node cannot do
// without is put back.
func (b *mapBuilder) documents(k *Kubernetes, docs ...any) string {
	parts := make([]string, len(docs))
	for i, d := range docs {
		raw, err := json.Marshal(d)
		b.check(err)
		raw, err = yaml.JSONToYAML(b.patched(k, raw))
		b.check(err)
		parts[i] = string(raw)
	}
	return strings.Join(parts, "---\n")
}

// patched is a document, in JSON, with the patches of its kind.
func (b *mapBuilder) patched(k *Kubernetes, doc []byte) []byte {
	var before map[string]any
	if err := json.Unmarshal(doc, &before); err != nil {
		b.check(err)
		return doc
	}
	out := doc
	for i, p := range k.KubeadmPatches {
		if p["kind"] != before["kind"] {
			continue
		}
		patch, err := mergePatch(p)
		if err == nil {
			out, err = jsonpatch.MergePatch(out, patch)
		}
		if err != nil {
			// The library's error may quote the document, which has a token in it.
			b.check(optionError{fmt.Sprintf("kubeadmPatches[%d]", i), "it cannot be merged"})
			return doc
		}
	}
	var after map[string]any
	if err := json.Unmarshal(out, &after); err != nil {
		b.check(err)
		return doc
	}
	keepArguments(before, after)
	keepSANs(before, after)
	out, err := json.Marshal(after)
	b.check(err)
	return out
}

// mergePatch is a patch without what only says what it is for. The version of a
// document is not the patch's to choose.
func mergePatch(p map[string]any) ([]byte, error) {
	rest := maps.Clone(p)
	delete(rest, "kind")
	delete(rest, "apiVersion")
	return json.Marshal(rest)
}

// keepArguments puts kubelet's arguments back that a patch has dropped: all if it drops
// them together, else those that its list leaves out. Of an object it may drop node-ip.
func keepArguments(before, after map[string]any) {
	old, _ := before["nodeRegistration"].(map[string]any)
	now, _ := after["nodeRegistration"].(map[string]any)
	if now == nil || old["kubeletExtraArgs"] == nil {
		return
	}
	switch theirs := now["kubeletExtraArgs"].(type) {
	case nil:
		now["kubeletExtraArgs"] = old["kubeletExtraArgs"]
	case []any:
		names, _ := argumentNames(theirs, true)
		ours, _ := old["kubeletExtraArgs"].([]any)
		now["kubeletExtraArgs"] = append(slices.DeleteFunc(ours, func(a any) bool {
			m, _ := a.(map[string]any)
			name, _ := m["name"].(string)
			return slices.Contains(names, name)
		}), theirs...)
	}
}

// keepSANs puts names back that a patch's list left out: without them nobody could
// reach the API server by its endpoint.
func keepSANs(before, after map[string]any) {
	old, _ := before["apiServer"].(map[string]any)
	ours, _ := old["certSANs"].([]any)
	if len(ours) == 0 {
		return
	}
	now, _ := after["apiServer"].(map[string]any)
	if now == nil {
		now = map[string]any{}
		after["apiServer"] = now
	}
	theirs, _ := now["certSANs"].([]any)
	for _, s := range theirs {
		if !slices.Contains(ours, s) {
			ours = append(ours, s)
		}
	}
	now["certSANs"] = ours
}

// kubeletPatch is what this machine's options say about the kubelet's configuration,
// as JSON for kubeadm join, or "".
func (b *mapBuilder) kubeletPatch(k *Kubernetes) string {
	if k.Minor < kubeletPatchMinor {
		return ""
	}
	out := []byte("{}")
	if k.allowsCgroupV1() {
		out = []byte(`{"failCgroupV1":false}`)
	}
	for i, p := range k.KubeadmPatches {
		if p["kind"] != kindKubelet {
			continue
		}
		patch, err := mergePatch(p)
		if err == nil {
			// Not MergePatch: a null must still be there when kubeadm merges.
			out, err = jsonpatch.MergeMergePatches(out, patch)
		}
		if err != nil {
			b.check(optionError{fmt.Sprintf("kubeadmPatches[%d]", i), "it cannot be merged"})
			return ""
		}
	}
	if string(out) == "{}" {
		return ""
	}
	return string(out) + "\n"
}
