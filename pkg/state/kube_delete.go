package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// Condemn implements the Store interface of pkg/apply. Where no Cluster API manager
// works it deletes Machine and PlunderMachine, which our finalizers hold. Where one
// does, it deletes the Machine and waits: the manager drains the node, runs hooks, and
// then deletes the PlunderMachine (CAPI contract section 8). What is paused is left
// alone: an error that wraps capi.ErrPaused.
func (k *Kubernetes) Condemn(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	p, err := k.pair(ctx, key)
	if err != nil {
		return false, "", err
	}
	var cluster *unstructured.Unstructured
	if name := p.cluster(); name != "" {
		if cluster, err = k.fetch(ctx, k.clusters(), capi.Key{Namespace: key.Namespace, Name: name}); err != nil {
			return false, "", err
		}
	}
	for _, u := range []*unstructured.Unstructured{p.machine, p.infra, cluster} {
		if paused(u) {
			return false, "", fmt.Errorf("%s is %w", objectID{u.GetKind(), keyOf(u)}, capi.ErrPaused)
		}
	}
	if p.protected() {
		return false, "", &ProtectedError{Machines: []capi.Key{key}}
	}
	if err := k.remove(ctx, k.machines(), p.machine); err != nil {
		return false, "", err
	}
	if p.machine == nil || !k.client.Schema.Managed(p.machine) {
		return true, "", k.remove(ctx, k.plunderMachines(), p.infra)
	}
	if p.infra == nil || deleting(p.infra) {
		return true, "", nil
	}
	return false, k.waitingFor(p.machine), nil
}

// remove begins the deletion of an object, unless that was done.
func (k *Kubernetes) remove(ctx context.Context, r kube.Resource, u *unstructured.Unstructured) error {
	if u == nil || deleting(u) {
		return nil
	}
	uid := u.GetUID()
	err := k.at(r, object(u.Object).version(), u.GetNamespace()).
		Delete(ctx, u.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	k.forget(r, keyOf(u))
	if apierrors.IsNotFound(err) {
		return nil
	}
	return k.client.Explain(err, "delete", objectID{r.Kind, keyOf(u)}.String())
}

// waitingFor says what a Cluster API manager says that it waits for before it deletes
// the PlunderMachine.
func (k *Kubernetes) waitingFor(machine *unstructured.Unstructured) string {
	waiting := "Cluster API has not deleted the PlunderMachine yet" + k.unseen()
	conditions, _ := object(machine.Object).at("status")["conditions"].([]any)
	for _, of := range []struct{ kind, status string }{
		{"Deleting", "True"}, // from v1beta2 on
		{"PreTerminateDeleteHookSucceeded", "False"}, {"VolumeDetachSucceeded", "False"},
		{"DrainingSucceeded", "False"}, {"PreDrainDeleteHookSucceeded", "False"},
	} {
		for _, c := range conditions {
			condition, _ := c.(map[string]any)
			if condition["type"] == of.kind && condition["status"] == of.status {
				said := cmp.Or(object(condition).text("message"), object(condition).text("reason"))
				return fmt.Sprintf("%s: %s: %s", waiting, of.kind, said)
			}
		}
	}
	return waiting
}

// unseen ends a sentence about what a Cluster API manager has not done yet.
func (k *Kubernetes) unseen() string {
	if k.client.Schema.Manager.Live {
		return ""
	}
	return ", and its manager is not seen to work"
}

// Condemned implements the Store interface of pkg/apply. A machine that is missing
// altogether is not condemned: nobody said that its host is to be wiped. One that has
// no record but our finalizer is returned with its names only, to be forgotten.
func (k *Kubernetes) Condemned(ctx context.Context, clusters []capi.Key) ([]capi.Record, error) {
	var namespaces []string
	for _, c := range clusters {
		namespaces = append(namespaces, c.Namespace)
	}
	slices.Sort(namespaces)
	var records []capi.Record
	for _, namespace := range slices.Compact(namespaces) {
		pairs, err := k.pairs(ctx, namespace)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			if p.condemned(k.client.Schema) && !paused(p.machine) && !paused(p.infra) &&
				slices.Contains(clusters, capi.Key{Namespace: namespace, Name: p.cluster()}) {
				records = append(records, p.recordOrNames())
			}
		}
	}
	slices.SortFunc(records, func(a, b capi.Record) int { return compareKeys(a.Key, b.Key) })
	return records, nil
}

// pair is a Machine with its PlunderMachine, as they are in the cluster: either may be
// missing.
type pair struct {
	key            capi.Key // of the Machine
	machine, infra *unstructured.Unstructured
	record         capi.Record // in infra
	recorded       bool
}

func (p pair) cluster() string {
	switch {
	case p.recorded:
		return p.record.Cluster
	case p.machine != nil:
		return clusterOf(p.machine)
	case p.infra != nil:
		return p.infra.GetLabels()[capi.LabelCluster]
	}
	return ""
}

// condemned reports whether the deletion of the machine was begun and is ours to
// finish. Under a manager that is so when it deleted the PlunderMachine.
func (p pair) condemned(s kube.Schema) bool {
	if !p.recorded && !held(p.machine) && !held(p.infra) {
		return false
	}
	return deleting(p.infra) || deleting(p.machine) && !s.Managed(p.machine)
}

// recordOrNames is the record, or one that just says whose it would be.
func (p pair) recordOrNames() capi.Record {
	r := p.record
	if !p.recorded {
		r = capi.Record{Key: p.key, Cluster: p.cluster()}
	}
	r.Protected = p.protected()
	if p.recorded {
		return r
	}
	if p.infra != nil {
		r.PlunderMachine = keyOf(p.infra)
	}
	return r
}

// pairs finds the machines of a namespace.
func (k *Kubernetes) pairs(ctx context.Context, namespace string) ([]pair, error) {
	machines, err := k.list(ctx, k.machines(), namespace)
	if err != nil {
		return nil, err
	}
	infras, err := k.list(ctx, k.plunderMachines(), namespace)
	if err != nil {
		return nil, err
	}
	return pairUp(machines, infras)
}

// pairUp finds out which PlunderMachine is whose: its record says so, else the
// Machine that refers to it, else the one that owns it.
func pairUp(machines, infras map[capi.Key]*unstructured.Unstructured) ([]pair, error) {
	pairs := map[capi.Key]*pair{}
	referrer := map[capi.Key]capi.Key{}
	for _, key := range sortedNames(machines) {
		if at, ok := infraOf(machines[key]); ok {
			pairs[key] = &pair{key: key, machine: machines[key]}
			if _, twice := referrer[at]; !twice {
				referrer[at] = key
			}
		}
	}
	var unreadable []error
	for _, at := range sortedNames(infras) {
		r, ok, err := machineRecord(infras[at])
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		key, referred := referrer[at]
		switch owner := ownerMachine(infras[at]); {
		case ok:
			key = r.Key
		case referred:
		case owner != "":
			key = capi.Key{Namespace: at.Namespace, Name: owner}
		default:
			key = at // a name as good as any
		}
		p := pairs[key]
		if p == nil {
			p = &pair{key: key, machine: machines[key]}
			pairs[key] = p
		}
		if p.infra == nil || ok {
			p.infra, p.record, p.recorded = infras[at], r, ok
		}
	}
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	list := make([]pair, 0, len(pairs))
	for _, p := range pairs {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b pair) int { return compareKeys(a.key, b.key) })
	return list, nil
}

// pair finds one machine, with as few requests as it takes.
func (k *Kubernetes) pair(ctx context.Context, key capi.Key) (pair, error) {
	m, err := k.fetch(ctx, k.machines(), key)
	if err != nil {
		return pair{}, err
	}
	if at, ok := infraOf(m); ok {
		pm, err := k.fetch(ctx, k.plunderMachines(), at)
		if err != nil {
			return pair{}, err
		}
		r, recorded, err := machineRecord(pm)
		if err != nil || recorded && r.Key == key {
			return pair{key, m, pm, r, recorded}, err
		}
	}
	// Without a record where it should be, look everywhere.
	all, err := k.pairs(ctx, key.Namespace)
	if err != nil {
		return pair{}, err
	}
	for _, p := range all {
		if p.key == key {
			return p, nil
		}
	}
	return pair{key: key, machine: m}, nil
}

// DeleteRecord removes a machine: claims, record and objects; under a Cluster API
// manager of the objects only our finalizer, for the manager removes the rest. None is
// no error. An object that another program holds with a finalizer of its own stays
// until that lets go.
//
// What the machine claimed is given up first, for nothing would find it once the
// record is gone. A run that is killed in between, and is repeated, finds a record
// whose hardware may be another machine's by now: whoever finishes a deletion looks
// whose deployment is on it.
func (k *Kubernetes) DeleteRecord(ctx context.Context, key capi.Key) error {
	p, err := k.pair(ctx, key)
	if err != nil {
		return err
	}
	managed := p.machine != nil && k.client.Schema.Managed(p.machine)
	if managed && p.infra != nil && !deleting(p.infra) {
		return fmt.Errorf("remove Machine %s: %s", key, k.waitingFor(p.machine))
	}
	if !managed {
		if err := k.remove(ctx, k.plunderMachines(), p.infra); err != nil {
			return err
		}
		if err := k.remove(ctx, k.machines(), p.machine); err != nil {
			return err
		}
	}
	if err := k.claims.drop(ctx, key, "", ""); err != nil {
		return err
	}
	if err := k.letGo(ctx, k.plunderMachines(), p.infra); err != nil {
		return err
	}
	if err := k.letGo(ctx, k.machines(), p.machine); err != nil {
		return err
	}
	return k.letClusterGo(ctx, capi.Key{Namespace: key.Namespace, Name: p.cluster()})
}

// letGo removes our finalizer from an object that is to go.
func (k *Kubernetes) letGo(ctx context.Context, r kube.Resource, u *unstructured.Unstructured) error {
	if u == nil || !held(u) {
		return nil
	}
	uid := u.GetUID()
	_, err := k.change(ctx, r, keyOf(u), func(o object) error {
		if o.text("metadata", "uid") != string(uid) {
			return nil // another object of the same name
		}
		return letGo(o)
	})
	k.forget(r, keyOf(u))
	return err
}

// letClusterGo removes our finalizers from a cluster that is being deleted, once no
// PlunderMachine of it waits for us.
func (k *Kubernetes) letClusterGo(ctx context.Context, key capi.Key) error {
	if key.Name == "" {
		return nil
	}
	c, err := k.fetch(ctx, k.clusters(), key)
	if err != nil {
		return err
	}
	pc, err := k.plunderClusterOf(ctx, key, c)
	if err != nil {
		return err
	}
	if !deleting(c) && !deleting(pc) || !held(c) && !held(pc) {
		return nil
	}
	pairs, err := k.pairs(ctx, key.Namespace)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(pairs, func(p pair) bool { return p.cluster() == key.Name && (p.recorded || held(p.infra)) }) {
		return nil
	}
	if deleting(c) && !k.client.Schema.Managed(c) && (pc == nil || !external(pc.Object)) {
		if err := k.remove(ctx, k.plunderClusters(), pc); err != nil {
			return err
		}
	}
	if c == nil || deleting(c) {
		if err := k.dropSecrets(ctx, key); err != nil {
			return err
		}
	}
	// A manager deletes the PlunderCluster a moment after the last Machine is gone. No
	// hardware hangs on it, so nobody has to come back for its finalizer then.
	if err := k.letGo(ctx, k.plunderClusters(), pc); err != nil {
		return err
	}
	if !deleting(c) {
		return nil
	}
	return k.letGo(ctx, k.clusters(), c)
}

// plunderClusterOf finds the PlunderCluster of a cluster, also when the Cluster is gone.
func (k *Kubernetes) plunderClusterOf(ctx context.Context, key capi.Key, c *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if at, ok := infraOf(c); ok {
		return k.fetch(ctx, k.plunderClusters(), at)
	}
	if c != nil {
		return nil, nil
	}
	all, err := k.list(ctx, k.plunderClusters(), key.Namespace)
	if err != nil {
		return nil, err
	}
	for _, at := range sortedNames(all) {
		if all[at].GetLabels()[capi.LabelCluster] == key.Name {
			return all[at], nil
		}
	}
	return nil, nil
}
