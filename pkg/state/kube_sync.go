package state

import (
	"context"
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// Look implements the Store interface of pkg/apply. In the set it marks what is
// paused or being deleted in the cluster.
func (k *Kubernetes) Look(ctx context.Context, set *capi.Set) (inSync bool, err error) {
	v, err := k.view(ctx, set)
	if err != nil {
		return false, err
	}
	gifts, err := k.gifts(v, set)
	if err != nil {
		return false, err
	}
	if len(gifts) > 0 {
		return false, k.namespacesExist(ctx, gifts)
	}
	if len(v.leaving(set)) > 0 {
		return false, nil
	}
	for _, u := range v.upkeep(k, set) {
		p, err := k.patch(u.r, v.of(u.r, u.key), u.edit)
		if err != nil {
			return false, err
		}
		if !p.empty() {
			return false, nil
		}
	}
	return true, nil
}

// Sync stores the given objects: those that were read from files by server-side apply,
// when they differ from what the cluster has. The API server is asked about all of
// them before the first is written. Then it sees to finalizers, owners and labels, and
// shows what a record says and a killed run did not show any more. Nothing is written
// about what is paused or being deleted.
func (k *Kubernetes) Sync(ctx context.Context, set *capi.Set) error {
	v, err := k.view(ctx, set)
	if err != nil {
		return err
	}
	gifts, err := k.gifts(v, set)
	if err != nil {
		return err
	}
	if err := k.give(ctx, gifts); err != nil {
		return err
	}
	upkeep := v.upkeep(k, set)
	err = together(ctx, len(upkeep), func(ctx context.Context, i int) error {
		_, err := k.change(ctx, upkeep[i].r, upkeep[i].key, upkeep[i].edit)
		return err
	})
	if err != nil {
		return err
	}
	for _, key := range v.leaving(set) {
		if err := k.letClusterGo(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// view is the objects of the namespaces of a set, as they were in the cluster when it
// was read.
type view struct {
	clusters, plunderClusters, machines, plunderMachines map[capi.Key]*unstructured.Unstructured
}

// view reads the cluster, marks in the set what is paused or being deleted there, and
// reports everything that may not be worked on as it was given.
func (k *Kubernetes) view(ctx context.Context, set *capi.Set) (*view, error) {
	var namespaces []string
	for _, c := range set.Clusters {
		namespaces = append(namespaces, c.Namespace)
	}
	for _, m := range set.Machines {
		namespaces = append(namespaces, m.Namespace)
	}
	slices.Sort(namespaces)
	namespaces = slices.Compact(namespaces)

	v := &view{}
	kinds := []struct {
		r    kube.Resource
		into *map[capi.Key]*unstructured.Unstructured
	}{
		{k.clusters(), &v.clusters}, {k.plunderClusters(), &v.plunderClusters},
		{k.machines(), &v.machines}, {k.plunderMachines(), &v.plunderMachines},
	}
	err := together(ctx, len(kinds), func(ctx context.Context, i int) error {
		all := map[capi.Key]*unstructured.Unstructured{}
		for _, ns := range namespaces {
			found, err := k.list(ctx, kinds[i].r, ns)
			if err != nil {
				return err
			}
			for key, u := range found {
				all[key] = u
			}
		}
		*kinds[i].into = all
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.mark(set)
	return v, v.check(set)
}

// of is an object in the view, or nil.
func (v *view) of(r kube.Resource, key capi.Key) *unstructured.Unstructured {
	switch r.Kind {
	case "Cluster":
		return v.clusters[key]
	case "PlunderCluster":
		return v.plunderClusters[key]
	case "Machine":
		return v.machines[key]
	}
	return v.plunderMachines[key]
}

// mark sets Paused and Deleting in the set.
func (v *view) mark(set *capi.Set) {
	for _, c := range set.Clusters {
		c.Paused = c.Paused || paused(v.clusters[c.Key])
		c.Deleting = c.Deleting || deleting(v.clusters[c.Key])
	}
	for _, m := range set.Machines {
		live, infra, cluster := v.machines[m.Key], v.plunderMachines[m.Infra.Key], v.clusters[clusterKey(m)]
		m.Paused = m.Paused || paused(live) || paused(infra) || paused(cluster)
		m.Deleting = m.Deleting || deleting(live) || deleting(infra) || deleting(cluster)
	}
}

func clusterKey(m *capi.Machine) capi.Key {
	return capi.Key{Namespace: m.Namespace, Name: m.ClusterName}
}

// check returns what contradicts the records, all of it.
func (v *view) check(set *capi.Set) error {
	var problems []error
	for _, m := range set.Machines {
		r, ok, err := machineRecord(v.plunderMachines[m.Infra.Key])
		switch {
		case err != nil:
			problems = append(problems, err)
			continue
		case ok && r.Key != m.Key:
			problems = append(problems, &ClaimedError{
				Kind: "PlunderMachine", Key: m.Infra.Key, Field: "its Machine",
				Old: r.Key.String(), New: m.Key.String(), Machine: r.Key,
			})
			continue
		}
		if at, named := infraOf(v.machines[m.Key]); named && at != m.Infra.Key {
			// The machine's record is with another PlunderMachine than the given one.
			if r, ok, err = machineRecord(v.plunderMachines[at]); err != nil {
				problems = append(problems, err)
				continue
			}
		}
		if ok && r.Key == m.Key {
			problems = append(problems, checkGiven(m, r)...)
		}
	}
	for _, c := range set.Clusters {
		_, _, err := clusterRecord(v.clusters[c.Key])
		problems = append(problems, err)
		if c.Infra != nil {
			_, _, err = clusterRecord(v.plunderClusters[c.Infra.Key])
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// upkeep is an edit that leaves an object as it should be. It does nothing to one that
// already is so.
type upkeep struct {
	r    kube.Resource
	key  capi.Key
	edit edit
}

// upkeep is what is to be seen to for the objects of a set, given or not. The edits
// look at related objects when they run, for by then they may have been made.
func (v *view) upkeep(k *Kubernetes, set *capi.Set) []upkeep {
	var list []upkeep
	for _, c := range set.Clusters {
		if c.Paused || deleting(v.clusters[c.Key]) {
			continue
		}
		list = append(list, upkeep{k.clusters(), c.Key, func(o object) error { return k.keepCluster(c, o) }})
		if c.Infra != nil && !deleting(v.plunderClusters[c.Infra.Key]) && !paused(v.plunderClusters[c.Infra.Key]) {
			list = append(list, upkeep{k.plunderClusters(), c.Infra.Key, func(o object) error { return k.keepPlunderCluster(c, o) }})
		}
	}
	for _, m := range set.Machines {
		if m.Paused || m.Deleting {
			continue
		}
		list = append(list,
			upkeep{k.plunderMachines(), m.Infra.Key, func(o object) error { return k.keepPlunderMachine(m, o) }},
			upkeep{k.machines(), m.Key, func(o object) error { return k.keepMachine(m, o) }},
		)
	}
	return list
}

func (k *Kubernetes) keepCluster(c *capi.Cluster, o object) error {
	u := &unstructured.Unstructured{Object: o}
	if k.client.Schema.Managed(u) {
		return nil
	}
	hold(o)
	r, ok, err := clusterRecord(u)
	if err != nil {
		return err
	}
	if c.Infra != nil && !ok {
		r, ok, err = clusterRecord(k.recall(k.plunderClusters(), c.Infra.Key))
	}
	if ok && r.Key == c.Key {
		showCluster(o, r)
	}
	return err
}

func (k *Kubernetes) keepPlunderCluster(c *capi.Cluster, o object) error {
	if external(o) {
		return nil
	}
	hold(o)
	label(o, c.Name)
	cluster := k.recall(k.clusters(), c.Key)
	if cluster != nil && !k.client.Schema.Managed(cluster) {
		own(o, cluster, false)
	}
	r, ok, err := clusterRecord(&unstructured.Unstructured{Object: o})
	if ok {
		showPlunderCluster(o, r)
	}
	return err
}

func (k *Kubernetes) keepMachine(m *capi.Machine, o object) error {
	if k.client.Schema.Managed(&unstructured.Unstructured{Object: o}) {
		return nil
	}
	hold(o)
	label(o, m.ClusterName)
	if cluster := k.recall(k.clusters(), clusterKey(m)); cluster != nil && !controlled(o) {
		own(o, cluster, false)
	}
	r, ok, err := machineRecord(k.recall(k.plunderMachines(), m.Infra.Key))
	if ok && r.Key == m.Key {
		showMachine(o, capi.Record{}, r)
	}
	return err
}

func (k *Kubernetes) keepPlunderMachine(m *capi.Machine, o object) error {
	hold(o)
	label(o, m.ClusterName)
	machine := k.recall(k.machines(), m.Key)
	managed := machine != nil && k.client.Schema.Managed(machine)
	if machine != nil && !managed {
		own(o, machine, true)
	}
	r, ok, err := machineRecord(&unstructured.Unstructured{Object: o})
	if err == nil && ok {
		err = setRecord(o, r, r, !managed)
	}
	return err
}

// leaving are the clusters of a set that can go: they are being deleted, and no machine
// of theirs waits for us.
func (v *view) leaving(set *capi.Set) []capi.Key {
	pairs, err := pairUp(v.machines, v.plunderMachines)
	if err != nil {
		return nil // check has said so
	}
	var keys []capi.Key
	for _, c := range set.Clusters {
		live := v.clusters[c.Key]
		waits := deleting(live) && held(live)
		if c.Infra != nil {
			pc := v.plunderClusters[c.Infra.Key]
			waits = waits || held(pc) && (deleting(pc) || deleting(live))
		}
		empty := !slices.ContainsFunc(pairs, func(p pair) bool {
			return p.key.Namespace == c.Namespace && p.cluster() == c.Name && (p.recorded || held(p.infra))
		})
		if waits && empty && !c.Paused {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

// namespacesExist reports a namespace that has to be made before anything can be given
// in it. Who may not look finds out by giving.
func (k *Kubernetes) namespacesExist(ctx context.Context, gifts []gift) error {
	var asked []string
	for _, g := range gifts {
		if slices.Contains(asked, g.key.Namespace) {
			continue
		}
		asked = append(asked, g.key.Namespace)
		_, err := k.client.Core.Namespaces().Get(ctx, g.key.Namespace, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return &NamespaceError{Namespace: g.key.Namespace, For: objectID{g.r.Kind, g.key}.String(), Err: err}
		case err != nil && !apierrors.IsForbidden(err):
			return k.client.Explain(err, "get", "Namespace "+g.key.Namespace)
		}
	}
	return nil
}
