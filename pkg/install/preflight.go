package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// replaceable refuses to replace what is not ours, or newer than we are.
func replaceable(found, with *unstructured.Unstructured) error {
	if found == nil || !isDefinition(with) {
		return nil
	}
	switch {
	case found.GetDeletionTimestamp() != nil:
		return &RefusedError{
			Reason: Name(found) + " is being deleted, with all its objects: wait until it is gone",
			Next:   "kubectl wait --for=delete crd/" + found.GetName(),
		}
	case with.GetLabels()[capi.LabelStandalone] != "" && found.GetLabels()[capi.LabelStandalone] == "":
		return &RefusedError{
			Reason: Name(found) + " is there, and Cluster API's own: --standalone is for clusters without Cluster API",
			Next:   "capplunder init",
		}
	case ours(found):
		if lost := missing(found, with); len(lost) > 0 {
			return &RefusedError{Reason: fmt.Sprintf(
				"%s was installed by a newer capplunder: this one does not know %s, and what is stored there would be lost; use the newer one",
				Name(found), strings.Join(lost, ", "))}
		}
	}
	return nil
}

// ours reports whether an object was installed by a capplunder, with init or kubectl.
func ours(o *unstructured.Unstructured) bool {
	return o.GetLabels()[crd.LabelManagedBy] == crd.ManagedBy
}

// beforeUs reports whether a definition of one of our kinds is that of the provider of
// 2019, which knew no status subresource (CAPI contract, section 14).
func beforeUs(found *unstructured.Unstructured) bool {
	return isDefinition(found) && !ours(found) && strings.HasSuffix(found.GetName(), "."+capi.GroupInfrastructure)
}

// missing are the fields and versions that found has and with has not, sorted.
func missing(found, with *unstructured.Unstructured) []string {
	known := map[string]bool{}
	for _, f := range fields(with) {
		known[f] = true
	}
	var lost []string
	for _, f := range fields(found) {
		if !known[f] {
			lost = append(lost, f)
		}
	}
	return lost
}

// fields are the paths of all fields of a definition: "v1alpha1 spec.repo.apt", sorted.
func fields(definition *unstructured.Unstructured) []string {
	var paths []string
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	for _, v := range versions {
		v, _ := v.(map[string]any)
		name, _ := v["name"].(string)
		schema, _, _ := unstructured.NestedMap(v, "schema", "openAPIV3Schema")
		paths = append(paths, name)
		walk(schema, name+" ", &paths)
	}
	slices.Sort(paths)
	return paths
}

// walk adds the paths below a schema.
func walk(schema map[string]any, prefix string, paths *[]string) {
	properties, _ := schema["properties"].(map[string]any)
	for name, sub := range properties { // sorted by fields
		*paths = append(*paths, prefix+name)
		if sub, ok := sub.(map[string]any); ok {
			walk(sub, prefix+name+".", paths)
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		walk(items, strings.TrimSuffix(prefix, ".")+"[].", paths)
	}
}

// check refuses a place for the secret that is not there. The namespace of our own is
// made, others are other people's.
func (s *Secret) check(ctx context.Context, c *kube.Client) error {
	if s == nil || s.Key.Namespace == crd.Namespace {
		return nil
	}
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(s.Key.Namespace)
	found, err := get(ctx, c, namespace)
	if err != nil {
		return err
	}
	if found == nil {
		return &RefusedError{
			Reason: fmt.Sprintf("the namespace of the secret %s does not exist", s.Key),
			Next:   "kubectl create namespace " + s.Key.Namespace,
		}
	}
	return nil
}
