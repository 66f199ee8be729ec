package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// ClusterRecords implements the Store interface of pkg/apply: of the Clusters that are for
// plunder, and of PlunderClusters that have a record although their Cluster is gone.
func (k *Kubernetes) ClusterRecords(ctx context.Context, namespaces ...string) ([]capi.ClusterRecord, error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	found := map[capi.Key]capi.ClusterRecord{}
	var unreadable []error
	for _, namespace := range namespaces {
		v, err := k.everything(ctx, namespace)
		if err != nil {
			return nil, err
		}
		seen := map[capi.Key]bool{} // PlunderClusters
		for _, key := range sortedNames(v.clusters) {
			at, infra := v.recordPlace(key)
			seen[infra] = true
			r, ok, err := clusterRecord(at)
			unreadable = append(unreadable, err)
			switch {
			case err != nil:
			case ok && r.Key == key:
				found[key] = r
			case v.forPlunder(key):
				found[key] = capi.ClusterRecord{Key: key, PlunderCluster: infra}
			}
		}
		for _, at := range sortedNames(v.plunderClusters) {
			if seen[at] {
				continue
			}
			r, ok, err := clusterRecord(v.plunderClusters[at])
			unreadable = append(unreadable, err)
			if ok && v.clusters[r.Key] == nil && r.Namespace == at.Namespace {
				found[r.Key] = r
			}
		}
	}
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	records := make([]capi.ClusterRecord, 0, len(found))
	for _, r := range found {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b capi.ClusterRecord) int { return compareKeys(a.Key, b.Key) })
	return records, nil
}

// whole is a cluster with its machines, as they are in the cluster that is the store.
type whole struct {
	cluster  *unstructured.Unstructured // nil when it is gone
	infra    *unstructured.Unstructured // its PlunderCluster; nil when that is gone, or not ours
	machines []pair
	members  members // the machines, for what all stores refuse
}

// whole reads all that there is of a cluster. A PlunderCluster that another system or
// another Cluster has is left out.
func (k *Kubernetes) whole(ctx context.Context, key capi.Key) (w whole, err error) {
	if w.cluster, err = k.fetch(ctx, k.clusters(), key); err != nil {
		return w, err
	}
	if w.infra, err = k.plunderClusterOf(ctx, key, w.cluster); err != nil {
		return w, err
	}
	if w.infra != nil {
		r, ok, err := clusterRecord(w.infra)
		switch {
		case err != nil:
			return w, err
		case external(w.infra.Object), ok && r.Key != key:
			w.infra = nil
		}
	}
	pairs, err := k.pairs(ctx, key.Namespace)
	for _, p := range pairs {
		if p.cluster() == key.Name {
			w.machines = append(w.machines, p)
			w.members = append(w.members, member{key: p.key, protected: p.protected(), claimed: p.recorded && claimed(p.record)})
		}
	}
	return w, err
}

// CondemnCluster implements the Store interface of pkg/apply. It deletes the Cluster,
// which our finalizer or that of a Cluster API manager holds; where no manager works, the
// PlunderCluster, too. A manager deletes the worker Machines next, with what would
// replace them, and the control plane Machines once those are gone.
func (k *Kubernetes) CondemnCluster(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	w, err := k.whole(ctx, key)
	if err != nil {
		return false, "", err
	}
	return k.condemn(ctx, w)
}

func (k *Kubernetes) condemn(ctx context.Context, w whole) (done bool, observation string, err error) {
	for _, u := range []*unstructured.Unstructured{w.cluster, w.infra} {
		if paused(u) {
			return false, "", fmt.Errorf("%s is %w", objectID{u.GetKind(), keyOf(u)}, capi.ErrPaused)
		}
	}
	if err := w.members.spared(); err != nil {
		return false, "", err
	}
	if w.cluster == nil || !k.client.Schema.Managed(w.cluster) {
		// The Cluster is what shows the PlunderCluster to be its own, so it is the last.
		if err := k.remove(ctx, k.plunderClusters(), w.infra); err != nil {
			return false, "", err
		}
		return true, "", k.remove(ctx, k.clusters(), w.cluster)
	}
	if err := k.remove(ctx, k.clusters(), w.cluster); err != nil {
		return false, "", err
	}
	for _, p := range w.machines {
		if p.machine != nil && !isControlPlane(p.machine) && !deleting(p.machine) {
			return false, fmt.Sprintf("Cluster API has not deleted Machine %s yet%s", p.key, k.unseen()), nil
		}
	}
	return true, "", nil
}

// isControlPlane tells by the label (CAPI contract section 2).
func isControlPlane(machine *unstructured.Unstructured) bool {
	_, ok := machine.GetLabels()[capi.LabelControlPlane]
	return ok
}

// DeleteCluster implements the Store interface of pkg/apply. Keys and kubeconfig go while
// the Cluster is still held, for nobody would look for them once it is gone. Under a
// Cluster API manager the Cluster goes when the manager lets go of it.
func (k *Kubernetes) DeleteCluster(ctx context.Context, key capi.Key) error {
	w, err := k.whole(ctx, key)
	if err != nil {
		return err
	}
	if err := cmp.Or(w.members.spared(), w.members.occupied(key)); err != nil {
		return err
	}
	done, observation, err := k.condemn(ctx, w)
	if err != nil {
		return err
	}
	if !done {
		return fmt.Errorf("remove Cluster %s: %s: %w", key, observation, capi.ErrPending)
	}
	if err := k.dropSecrets(ctx, key); err != nil {
		return err
	}
	for _, p := range w.machines {
		done, observation, err := k.Condemn(ctx, p.key)
		if err != nil {
			return err
		}
		if !done {
			return fmt.Errorf("remove Cluster %s: Machine %s: %s: %w", key, p.key, observation, capi.ErrPending)
		}
		if err := k.DeleteRecord(ctx, p.key); err != nil {
			return err
		}
	}
	if err := k.letClusterGo(ctx, key); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removed[key] = true
	return nil
}

// dropSecrets deletes the kubeconfig and the keys of a cluster, if capplunder made them. The
// API server's garbage collector would do so some time after the Cluster is gone; a new
// cluster of the same name could get the old keys until then.
func (k *Kubernetes) dropSecrets(ctx context.Context, cluster capi.Key) error {
	names := []string{cluster.Name + kubeconfigAfter}
	for _, name := range pkiKeys() {
		names = append(names, pkiSecret(cluster, name))
	}
	return together(ctx, len(names), func(ctx context.Context, i int) error {
		return k.dropSecret(ctx, cluster, names[i])
	})
}

func (k *Kubernetes) dropSecret(ctx context.Context, cluster capi.Key, name string) error {
	api := k.client.Core.Secrets(cluster.Namespace)
	what := "Secret " + cluster.Namespace + "/" + name
	var err error
	for range triesOnConflict {
		var there *corev1.Secret
		there, err = api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return k.client.Explain(err, "get", what)
		case !madeFor(there, cluster):
			return nil
		}
		err = api.Delete(ctx, name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &there.UID, ResourceVersion: &there.ResourceVersion},
		})
		switch {
		case err == nil, apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return k.client.Explain(err, "delete", what)
		}
	}
	return k.client.Explain(err, "delete", what)
}

// madeFor reports whether capplunder made a secret for a cluster and nobody else keeps it.
func madeFor(s *corev1.Secret, cluster capi.Key) bool {
	keeper := metav1.GetControllerOf(s)
	return s.Type == secretType && s.Labels[labelManagedBy] == managedBy && s.Labels[capi.LabelCluster] == cluster.Name &&
		(keeper == nil || isCluster(*keeper))
}
