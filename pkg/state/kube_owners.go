package state

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Finalizer keeps an object in the cluster, once its deletion has begun, until
// capplunder has given back the hardware behind it. PlunderMachines and
// PlunderClusters have it before anything is provisioned (CAPI contract section 8);
// Machines and Clusters have it where no Cluster API manager holds them.
const Finalizer = "capplunder.plunder-app.io/release"

// oldFinalizers are those of the controller of 2019, one with its typo (CAPI
// contract section 2). They are never set, but they go when ours does.
func oldFinalizers() []string {
	return []string{
		"plundercluster.infrastructure.cluster.x-k8s.io",
		"plundernmachine.infrastructure.cluster.x-k8s.io",
	}
}

// isOurs reports whether a finalizer waits for capplunder.
func isOurs(finalizer any) bool {
	name, _ := finalizer.(string)
	return name == Finalizer || slices.Contains(oldFinalizers(), name)
}

// held reports whether an object waits for capplunder before it can go.
func held(u *unstructured.Unstructured) bool {
	return u != nil && slices.ContainsFunc(u.GetFinalizers(), func(f string) bool { return isOurs(f) })
}

// hold adds our finalizer.
func hold(o object) {
	meta := o.in("metadata")
	finalizers, _ := meta["finalizers"].([]any)
	if !slices.ContainsFunc(finalizers, func(f any) bool { return f == Finalizer }) {
		meta["finalizers"] = append(slices.Clone(finalizers), Finalizer)
	}
}

// letGo removes our finalizers.
func letGo(o object) error {
	meta := o.in("metadata")
	finalizers, _ := meta["finalizers"].([]any)
	finalizers = slices.DeleteFunc(slices.Clone(finalizers), isOurs)
	if len(finalizers) == 0 {
		delete(meta, "finalizers")
	} else {
		meta["finalizers"] = finalizers
	}
	return nil
}

// label says which cluster an object belongs to, unless something is said already.
func label(o object, cluster string) {
	if o.text("metadata", "labels", capi.LabelCluster) == "" {
		o.in("metadata", "labels")[capi.LabelCluster] = cluster
	}
}

// own makes owner an owner of an object. Owners are told apart by group and kind,
// never by version: an owner of the same kind that is there already stays as it is,
// but for a UID that is out of date. A controlling owner tolerates no other.
func own(o object, owner *unstructured.Unstructured, controller bool) {
	meta := o.in("metadata")
	given, _ := meta["ownerReferences"].([]any)
	refs, _ := deepCopy(given).([]any)
	for _, r := range refs {
		ref, _ := r.(map[string]any)
		switch {
		case sameKind(ref, owner) && ref["name"] == owner.GetName():
			ref["uid"] = string(owner.GetUID())
			meta["ownerReferences"] = refs
			return
		case controller && ref["controller"] == true, sameKind(ref, owner):
			return // it is somebody else's
		}
	}
	ref := map[string]any{
		"apiVersion": owner.GetAPIVersion(), "kind": owner.GetKind(),
		"name": owner.GetName(), "uid": string(owner.GetUID()),
	}
	if controller {
		ref["controller"], ref["blockOwnerDeletion"] = true, true
	}
	meta["ownerReferences"] = append(refs, ref)
}

func sameKind(ref map[string]any, owner *unstructured.Unstructured) bool {
	gv, err := schema.ParseGroupVersion(object(ref).text("apiVersion"))
	return err == nil && gv.Group == owner.GroupVersionKind().Group && ref["kind"] == owner.GetKind()
}

// controlled reports whether an object has a controlling owner.
func controlled(o object) bool {
	refs, _ := o.at("metadata")["ownerReferences"].([]any)
	return slices.ContainsFunc(refs, func(r any) bool {
		ref, _ := r.(map[string]any)
		return ref["controller"] == true
	})
}

// ownerMachine is the name of the Machine that owns a PlunderMachine, or "".
func ownerMachine(pm *unstructured.Unstructured) string {
	for _, ref := range pm.GetOwnerReferences() {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err == nil && gv.Group == capi.GroupCluster && ref.Kind == "Machine" {
			return ref.Name
		}
	}
	return ""
}

// clusterOf is the name of the cluster that a Machine belongs to, in all versions
// (CAPI contract section 2).
func clusterOf(machine *unstructured.Unstructured) string {
	if name := object(machine.Object).text("spec", "clusterName"); name != "" {
		return name
	}
	return machine.GetLabels()[capi.LabelCluster]
}

// infraOf is the Plunder object that a Machine or Cluster refers to; ok is false when
// it refers to none, or to another provider's.
func infraOf(u *unstructured.Unstructured) (key capi.Key, ok bool) {
	if u == nil {
		return key, false
	}
	ref := object(u.Object).at("spec", "infrastructureRef")
	group, _ := ref["apiGroup"].(string)
	if version, _ := ref["apiVersion"].(string); group == "" {
		group, _, _ = strings.Cut(version, "/")
	}
	if group != capi.GroupInfrastructure || ref["kind"] != "Plunder"+u.GetKind() {
		return key, false
	}
	key, ok = object(u.Object).infraKey()
	return key, ok
}

// paused reports whether an object says that nothing may be done about it (CAPI
// contract section 6).
func paused(u *unstructured.Unstructured) bool {
	if u == nil {
		return false
	}
	_, annotated := u.GetAnnotations()[capi.AnnotationPaused]
	spec := object(u.Object).at("spec")
	return annotated || u.GetKind() == "Cluster" && spec["paused"] == true
}

// deleting reports whether the deletion of an object has begun.
func deleting(u *unstructured.Unstructured) bool { return u != nil && u.GetDeletionTimestamp() != nil }
