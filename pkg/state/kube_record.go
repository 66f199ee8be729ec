package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// UnreadableError says that an object in the cluster is not as capplunder leaves
// them. What it said is unknown, so nothing may be decided from its absence.
type UnreadableError struct {
	Kind string
	Key  capi.Key
	Err  error
	Hint string // what to do
}

// Error implements error.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%s %s: %v: %s", e.Kind, e.Key, e.Err, e.Hint)
}

// Unwrap implements errors.Unwrap.
func (e *UnreadableError) Unwrap() error { return e.Err }

// NextCommand is a command to go on with.
func (e *UnreadableError) NextCommand() string {
	return fmt.Sprintf("kubectl edit -n %s %s %s", e.Key.Namespace, strings.ToLower(e.Kind), e.Key.Name)
}

// machineRecord reads the record in a PlunderMachine. Unlike the local store's files,
// which are written whole, a status may lag behind its record: a run was killed
// between the two requests. The record counts. A status without any record is
// somebody else's work, of which we know too little to go on.
func machineRecord(pm *unstructured.Unstructured) (r capi.Record, ok bool, err error) {
	if pm == nil {
		return r, false, nil
	}
	o := object(pm.Object)
	unreadable := func(err error, hint string) error {
		return &UnreadableError{Kind: pm.GetKind(), Key: keyOf(pm), Err: err, Hint: hint}
	}
	text := o.text("metadata", "annotations", AnnotationRecord)
	if text == "" {
		if ready, _ := o.at("status")["ready"].(bool); ready || o.text("status", "machineName") != "" {
			return r, false, unreadable(fmt.Errorf("it has a status but the annotation %s is missing", AnnotationRecord),
				"another program provisioned its machine; restore the annotation, or delete the object once the machine is free")
		}
		return r, false, nil
	}
	if err := parseAnnotation(text, &r); err != nil {
		return capi.Record{}, false, unreadable(err, "repair it with kubectl edit; without it capplunder would not know whose hardware this is")
	}
	return r, true, nil
}

// clusterRecord reads the record in a PlunderCluster, or in a Cluster that has none.
func clusterRecord(u *unstructured.Unstructured) (r capi.ClusterRecord, ok bool, err error) {
	if u == nil {
		return r, false, nil
	}
	r, ok, err = clusterRecordOf(u.Object)
	if err != nil {
		return r, false, &UnreadableError{Kind: u.GetKind(), Key: keyOf(u), Err: err, Hint: "repair it with kubectl edit"}
	}
	return r, ok, nil
}

// Record implements the Store interface of pkg/apply. A machine whose deletion was
// interrupted after its record was removed still has one, with its names only.
func (k *Kubernetes) Record(ctx context.Context, key capi.Key) (capi.Record, bool, error) {
	p, err := k.pair(ctx, key)
	if err != nil {
		return capi.Record{}, false, err
	}
	if p.recorded || p.condemned(k.client.Schema) {
		return p.recordOrNames(), true, nil
	}
	return capi.Record{}, false, nil
}

// Records implements the Store interface of pkg/apply.
func (k *Kubernetes) Records(ctx context.Context, namespaces ...string) ([]capi.Record, error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	all := map[capi.Key]*unstructured.Unstructured{}
	machines := map[capi.Key]*unstructured.Unstructured{} // may be protected
	for _, namespace := range namespaces {
		found, err := k.list(ctx, k.plunderMachines(), namespace)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, found)
		if found, err = k.list(ctx, k.machines(), namespace); err != nil {
			return nil, err
		}
		maps.Copy(machines, found)
	}
	records := make([]capi.Record, 0, len(all))
	var unreadable []error
	for _, at := range sortedNames(all) {
		r, ok, err := machineRecord(all[at])
		if ok {
			r.Protected = pair{machine: machines[r.Key], infra: all[at]}.protected()
			records = append(records, r)
		}
		unreadable = append(unreadable, err)
	}
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b capi.Record) int { return compareKeys(a.Key, b.Key) })
	return records, nil
}

// SaveRecord writes the record of a machine that was synced before. A MAC or an
// address is claimed before the record shows it and given up after: whoever is killed
// in between holds too much rather than too little.
func (k *Kubernetes) SaveRecord(ctx context.Context, r capi.Record) error {
	m, err := k.recallOrFetch(ctx, k.machines(), r.Key)
	if err != nil {
		return err
	}
	infra, ok := infraOf(m)
	if !ok {
		// Somebody forced the Machine away. What it left has to be given back all the same.
		p, err := k.pair(ctx, r.Key)
		switch {
		case err != nil:
			return err
		case p.recorded:
			infra = keyOf(p.infra)
		case m == nil:
			return &NotSyncedError{Kind: "Machine", Key: r.Key}
		default:
			return fmt.Errorf("save the record of Machine %s: its spec.infrastructureRef names no PlunderMachine", r.Key)
		}
	}
	if r.PlunderMachine != (capi.Key{}) && r.PlunderMachine != infra {
		return fmt.Errorf("save the record of Machine %s: it is for PlunderMachine %s, but the Machine in the %s has %s", r.Key, r.PlunderMachine, k, infra)
	}
	r.PlunderMachine = infra
	managed := k.client.Schema.Manager.Live || m != nil && k.client.Schema.Managed(m)
	var old capi.Record
	pm, err := k.change(ctx, k.plunderMachines(), infra, func(o object) error {
		var had bool
		var err error
		u := &unstructured.Unstructured{Object: o}
		if old, had, err = machineRecord(u); err != nil {
			return err
		}
		if had && old.Key != r.Key {
			return fmt.Errorf("save the record of Machine %s: PlunderMachine %s is Machine %s's", r.Key, infra, old.Key)
		}
		if old.MAC != "" && r.MAC != "" && old.MAC != r.MAC {
			// Nobody changes hardware without giving the old one back. Whoever is second
			// here must not make the first one's hardware nobody's.
			return fmt.Errorf("save the record of Machine %s: another run has given it %s meanwhile, not %s (was the lock of its cluster deleted?)", r.Key, old.MAC, r.MAC)
		}
		if r.MAC != "" && r.MAC != old.MAC || r.Address != "" && r.Address != old.Address {
			if err := k.claims.take(ctx, r, u.GetUID()); err != nil {
				return err
			}
		}
		return setRecord(o, old, r, !managed)
	})
	switch {
	case err != nil:
		return err
	case pm == nil:
		return &NotSyncedError{Kind: "PlunderMachine", Key: infra}
	}
	if old.MAC != "" && old.MAC != r.MAC || old.Address != "" && old.Address != r.Address {
		if err := k.claims.drop(ctx, r.Key, r.MAC, r.Address); err != nil {
			return err
		}
	}
	if managed || m == nil {
		return nil // the manager shows it
	}
	_, err = k.change(ctx, k.machines(), r.Key, func(o object) error {
		showMachine(o, old, r)
		return nil
	})
	return err
}

// Claims implements the Store interface of pkg/apply.
func (k *Kubernetes) Claims(ctx context.Context) (map[string]capi.Key, error) {
	return k.claims.macs(ctx)
}

// ClusterRecord implements the Store interface of pkg/apply.
func (k *Kubernetes) ClusterRecord(ctx context.Context, key capi.Key) (r capi.ClusterRecord, ok bool, err error) {
	c, err := k.fetch(ctx, k.clusters(), key)
	if err != nil {
		return r, false, err
	}
	at := c
	if infra, named := infraOf(c); named {
		pc, err := k.fetch(ctx, k.plunderClusters(), infra)
		if err != nil {
			return r, false, err
		}
		if pc != nil && !external(pc.Object) {
			at = pc
		}
	}
	r, ok, err = clusterRecord(at)
	if err == nil && ok && r.Key != key {
		err = &UnreadableError{Kind: at.GetKind(), Key: keyOf(at), Err: fmt.Errorf("it has the record of Cluster %s", r.Key), Hint: "give each Cluster a PlunderCluster of its own"}
	}
	if err != nil || !ok {
		return capi.ClusterRecord{}, false, err
	}
	return r, true, nil
}

// SaveClusterRecord writes the record of a cluster that was synced before. Under a
// Cluster API manager only the PlunderCluster is ours to write.
func (k *Kubernetes) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	c, err := k.recallOrFetch(ctx, k.clusters(), r.Key)
	if err != nil {
		return err
	}
	if c == nil {
		return &NotSyncedError{Kind: "Cluster", Key: r.Key}
	}
	managed := k.client.Schema.Managed(c)
	inCluster := true
	if r.PlunderCluster != (capi.Key{}) {
		pc, err := k.recallOrFetch(ctx, k.plunderClusters(), r.PlunderCluster)
		switch {
		case err != nil:
			return err
		case pc == nil:
			return &NotSyncedError{Kind: "PlunderCluster", Key: r.PlunderCluster}
		}
		inCluster = external(pc.Object)
	}
	switch {
	case inCluster && managed:
		return fmt.Errorf("save the record of Cluster %s: it has no PlunderCluster of ours to keep it in, and the Cluster itself is Cluster API's: give it a PlunderCluster", r.Key)
	case !inCluster:
		pc, err := k.change(ctx, k.plunderClusters(), r.PlunderCluster, func(o object) error {
			if err := annotate(o, r); err != nil {
				return err
			}
			showPlunderCluster(o, r)
			return nil
		})
		switch {
		case err != nil:
			return err
		case pc == nil:
			return &NotSyncedError{Kind: "PlunderCluster", Key: r.PlunderCluster}
		}
	}
	if managed {
		return nil
	}
	_, err = k.change(ctx, k.clusters(), r.Key, func(o object) error {
		if inCluster {
			return setClusterRecord(o, r)
		}
		showCluster(o, r)
		return nil
	})
	return err
}

// sortedNames are the keys of objects, sorted.
func sortedNames(all map[capi.Key]*unstructured.Unstructured) []capi.Key {
	keys := make([]capi.Key, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}
