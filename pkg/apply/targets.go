package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Targets says what is to be deleted. Nothing is ever deleted that the store does not
// know.
type Targets struct {
	Machines []capi.Key
	// Clusters go as a whole: all their machines, workers before control planes, and then
	// their own objects.
	Clusters []capi.Key
	// All are all clusters and machines of the Namespaces, of all when there are none.
	All        bool
	Namespaces []string
}

// NoRecordError says which machines and clusters that were to be deleted are not in the
// store.
type NoRecordError struct {
	Keys     []capi.Key // of Machines
	Clusters []capi.Key
	Store    string
}

// Error implements error.
func (e *NoRecordError) Error() string {
	var parts []string
	for _, of := range []struct {
		kind string
		keys []capi.Key
	}{{"Machine", e.Keys}, {"Cluster", e.Clusters}} {
		names := make([]string, len(of.keys))
		for i, k := range of.keys {
			names[i] = k.String()
		}
		if len(names) > 0 {
			parts = append(parts, of.kind+" "+strings.Join(names, ", "))
		}
	}
	return fmt.Sprintf("the %s has no %s", e.Store, strings.Join(parts, " and no "))
}

// batch is what Targets came to.
type batch struct {
	records  []capi.Record // each machine once, sorted by key
	clusters []capi.Key    // that go as a whole, sorted
}

// targets finds out what is meant.
func (e *Engine) targets(ctx context.Context, t Targets) (batch, error) {
	var b batch
	missing := &NoRecordError{Store: e.store.String()}
	found := map[capi.Key]capi.Record{}
	if t.All || len(t.Clusters) > 0 {
		if err := e.clusterTargets(ctx, t, &b, found, missing); err != nil {
			return batch{}, err
		}
	}
	var named []capi.Key
	for _, k := range t.Machines {
		if _, ok := found[k]; !ok {
			named = append(named, k)
		}
	}
	records, err := e.victims(ctx, named, missing)
	if err != nil {
		return batch{}, err
	}
	for _, r := range records {
		found[r.Key] = r
	}
	if len(missing.Keys)+len(missing.Clusters) > 0 {
		return batch{}, missing
	}
	for _, r := range found {
		b.records = append(b.records, r)
	}
	slices.SortFunc(b.records, func(a, b capi.Record) int { return compareKeys(a.Key, b.Key) })
	return b, nil
}

// clusterTargets adds clusters and their machines.
func (e *Engine) clusterTargets(ctx context.Context, t Targets, b *batch, found map[capi.Key]capi.Record, missing *NoRecordError) error {
	namespaces := t.Namespaces
	if !t.All {
		for _, c := range t.Clusters {
			namespaces = append(namespaces, c.Namespace)
		}
		slices.Sort(namespaces)
		namespaces = slices.Compact(namespaces)
	}
	clusters, err := e.store.ClusterRecords(ctx, namespaces...)
	if err != nil {
		return err
	}
	records, err := e.store.Records(ctx, namespaces...)
	if err != nil {
		return err
	}
	if t.All {
		for _, c := range clusters {
			b.clusters = append(b.clusters, c.Key)
		}
	} else {
		b.clusters = slices.Clone(t.Clusters)
	}
	slices.SortFunc(b.clusters, compareKeys)
	b.clusters = slices.Compact(b.clusters)
	for _, r := range records {
		if t.All || slices.Contains(b.clusters, clusterOf(r)) {
			found[r.Key] = r
		}
	}
	for _, c := range b.clusters {
		known := slices.ContainsFunc(clusters, func(r capi.ClusterRecord) bool { return r.Key == c }) ||
			slices.ContainsFunc(records, func(r capi.Record) bool { return clusterOf(r) == c })
		if !known {
			missing.Clusters = append(missing.Clusters, c)
		}
	}
	return nil
}

// clusterOf is the cluster of a machine; its name is "" for none.
func clusterOf(r capi.Record) capi.Key { return capi.Key{Namespace: r.Namespace, Name: r.Cluster} }

func compareKeys(a, b capi.Key) int { return strings.Compare(a.String(), b.String()) }

// victims reads the records of machines that are to be deleted.
func (e *Engine) victims(ctx context.Context, keys []capi.Key, missing *NoRecordError) ([]capi.Record, error) {
	found := make([]struct {
		rec capi.Record
		ok  bool
		err error
	}, len(keys))
	var wg sync.WaitGroup
	few := make(limiter, recordsInFlight)
	for i, k := range keys {
		wg.Go(func() {
			f := &found[i]
			f.err = few.do(ctx, func() (err error) {
				f.rec, f.ok, err = e.store.Record(ctx, k)
				return err
			})
		})
	}
	wg.Wait()
	var records []capi.Record
	for i, f := range found {
		switch {
		case f.err != nil:
			return nil, f.err
		case !f.ok:
			missing.Keys = append(missing.Keys, keys[i])
		default:
			records = append(records, f.rec)
		}
	}
	return records, nil
}

// affected are the clusters that the batch is about, for the lock.
func (b batch) affected() []capi.Key {
	keys := slices.Clone(b.clusters)
	for _, r := range b.records {
		keys = append(keys, clusterOf(r))
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}

// asShown refuses what is not what somebody has agreed to: a machine that was not there
// then, or that has other hardware now. What is gone meanwhile is no matter.
func (b batch) asShown(shown batch) error {
	before := map[capi.Key]capi.Record{}
	for _, r := range shown.records {
		before[r.Key] = r
	}
	for _, r := range b.records {
		old, ok := before[r.Key]
		if !ok {
			return &SafetyError{fmt.Sprintf("Machine %s came to Cluster %s while you were asked; nothing was done", r.Key, clusterOf(r))}
		}
		if r.MAC != old.MAC {
			return &SafetyError{fmt.Sprintf("Machine %s: its hardware changed from %q to %q while you were asked; nothing was done", r.Key, old.MAC, r.MAC)}
		}
	}
	return nil
}
