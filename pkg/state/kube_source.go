package state

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Selection says which objects in the cluster a run is about. One of Cluster, Machine
// and All is set.
type Selection struct {
	Namespace     string // of Cluster and Machine, and for All without AllNamespaces
	AllNamespaces bool
	Cluster       string // with all its machines
	Machine       string // with its cluster, but none of the other machines
	All           bool   // clusters
}

// MissingError says that what was selected is not in the cluster.
type MissingError struct {
	Kind  string
	Key   capi.Key
	Store string
	Other []string // names there are, sorted
}

// Error implements error.
func (e *MissingError) Error() string {
	if e.Kind == "" {
		return fmt.Sprintf("the %s has no Cluster for plunder", e.Store)
	}
	return fmt.Sprintf("the %s has no %s %s", e.Store, e.Kind, e.Key)
}

// Intents reads the selected objects, as JSON documents whose Origin has no file.
// Machines that are being deleted are left out: what is to be done about them is in
// their records.
func (k *Kubernetes) Intents(ctx context.Context, s Selection) ([]capi.Document, error) {
	namespace := s.Namespace
	if s.AllNamespaces {
		namespace = ""
	}
	v, err := k.everything(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return v.intents(s, k.String())
}

// everything is all objects of a namespace ("" for all).
func (k *Kubernetes) everything(ctx context.Context, namespace string) (v *view, err error) {
	v = &view{}
	if v.clusters, err = k.list(ctx, k.clusters(), namespace); err != nil {
		return nil, err
	}
	if v.machines, err = k.list(ctx, k.machines(), namespace); err != nil {
		return nil, err
	}
	if v.plunderClusters, err = k.list(ctx, k.plunderClusters(), namespace); err != nil {
		return nil, err
	}
	if v.plunderMachines, err = k.list(ctx, k.plunderMachines(), namespace); err != nil {
		return nil, err
	}
	return v, nil
}

// recordPlace is the object that a cluster's record is kept in, and the name of its
// PlunderCluster, if it has one.
func (v *view) recordPlace(cluster capi.Key) (at *unstructured.Unstructured, infra capi.Key) {
	at = v.clusters[cluster]
	infra, named := infraOf(at)
	if pc := v.plunderClusters[infra]; named && pc != nil && !external(pc.Object) {
		at = pc
	}
	return at, infra
}

func (v *view) intents(s Selection, store string) ([]capi.Document, error) {
	var clusters []capi.Key
	machines := map[capi.Key]bool{}
	switch {
	case s.Machine != "":
		key := capi.Key{Namespace: s.Namespace, Name: s.Machine}
		m := v.machines[key]
		if m == nil {
			return nil, &MissingError{Kind: "Machine", Key: key, Store: store}
		}
		machines[key] = true
		clusters = []capi.Key{{Namespace: s.Namespace, Name: clusterOf(m)}}
	case s.Cluster != "":
		key := capi.Key{Namespace: s.Namespace, Name: s.Cluster}
		if v.clusters[key] == nil {
			return nil, &MissingError{Kind: "Cluster", Key: key, Store: store}
		}
		clusters = []capi.Key{key}
	default:
		for _, key := range sortedNames(v.clusters) {
			if v.forPlunder(key) {
				clusters = append(clusters, key)
			}
		}
		if len(clusters) == 0 {
			return nil, &MissingError{Store: store}
		}
	}
	var docs []capi.Document
	add := func(u *unstructured.Unstructured) error {
		if u == nil {
			return nil
		}
		doc, err := document(u)
		docs = append(docs, doc)
		return err
	}
	for _, key := range clusters {
		if err := add(v.clusters[key]); err != nil {
			return nil, err
		}
		if at, ok := infraOf(v.clusters[key]); ok {
			if err := add(v.plunderClusters[at]); err != nil {
				return nil, err
			}
		}
	}
	for _, key := range sortedNames(v.machines) {
		m := v.machines[key]
		in := slices.Contains(clusters, capi.Key{Namespace: key.Namespace, Name: clusterOf(m)})
		at, ok := infraOf(m)
		if len(machines) > 0 {
			in = machines[key]
		}
		if !in || deleting(m) || deleting(v.plunderMachines[at]) {
			continue
		}
		if err := add(m); err != nil {
			return nil, err
		}
		if ok {
			if err := add(v.plunderMachines[at]); err != nil {
				return nil, err
			}
		}
	}
	return docs, nil
}

// forPlunder reports whether a cluster is ours: its infrastructure is, or that of one
// of its machines where it names none.
func (v *view) forPlunder(key capi.Key) bool {
	c := v.clusters[key]
	if _, ok := infraOf(c); ok {
		return true
	}
	if object(c.Object).at("spec", "infrastructureRef") != nil {
		return false
	}
	for at, m := range v.machines {
		if _, ok := infraOf(m); ok && at.Namespace == key.Namespace && clusterOf(m) == key.Name {
			return true
		}
	}
	return false
}

// document is an object as the decoder reads it.
func document(u *unstructured.Unstructured) (capi.Document, error) {
	o := u.DeepCopy()
	o.SetManagedFields(nil)
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return capi.Document{}, fmt.Errorf("%s %s: %w", u.GetKind(), keyOf(u), err)
	}
	return capi.Document{Raw: raw}, nil
}

// Clusters are the Clusters and PlunderClusters in the cluster, for manifests of
// machines that come without theirs.
func (k *Kubernetes) Clusters(ctx context.Context) ([]capi.Document, error) {
	clusters, err := k.list(ctx, k.clusters(), "")
	if err != nil {
		return nil, err
	}
	infras, err := k.list(ctx, k.plunderClusters(), "")
	if err != nil {
		return nil, err
	}
	var docs []capi.Document
	for _, key := range sortedNames(clusters) {
		at, ok := infraOf(clusters[key])
		if !ok && object(clusters[key].Object).at("spec", "infrastructureRef") != nil {
			continue // another provider's
		}
		doc, err := document(clusters[key])
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
		if pc := infras[at]; ok && pc != nil {
			if doc, err = document(pc); err != nil {
				return nil, err
			}
			docs = append(docs, doc)
		}
	}
	return docs, nil
}
