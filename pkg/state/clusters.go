package state

import (
	"cmp"
	"context"
	"slices"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// stillDeleting is a cluster's record as it is to be saved: a deletion that was begun is
// never taken back by a record that was read before.
func stillDeleting(old, now capi.ClusterRecord) capi.ClusterRecord {
	if old.Phase == capi.PhaseDeleting {
		now.Phase = capi.PhaseDeleting
	}
	return now
}

// ClusterRecords implements the Store interface of pkg/apply.
func (l *Local) ClusterRecords(ctx context.Context, namespaces ...string) ([]capi.ClusterRecord, error) {
	keys, err := l.list(dirClusters)
	if err != nil {
		return nil, err
	}
	if len(namespaces) > 0 {
		keys = slices.DeleteFunc(keys, func(k capi.Key) bool { return !slices.Contains(namespaces, k.Namespace) })
	}
	found := make([]capi.ClusterRecord, len(keys))
	err = parallel(ctx, len(keys), func(i int) error {
		f, ok, err := l.load(dirClusters, keys[i])
		if err != nil || !ok { // removed since it was listed
			return err
		}
		found[i], err = l.clusterRecordIn(f, keys[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(r capi.ClusterRecord) bool { return r.Name == "" }), nil
}

// clusterRecordIn is the record in a Cluster, or one with its names only.
func (l *Local) clusterRecordIn(f file, key capi.Key) (capi.ClusterRecord, error) {
	r, ok, err := l.clusterRecordOf(f, key)
	if err == nil && !ok {
		r = capi.ClusterRecord{Key: key}
		if infra, named := f.object.infraKey(); named {
			r.PlunderCluster = infra
		}
	}
	return r, err
}

// CondemnCluster implements the Store interface of pkg/apply: it records the phase
// capi.PhaseDeleting.
func (l *Local) CondemnCluster(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	err = l.write(ctx, func() error {
		c, ok, err := l.load(dirClusters, key)
		if err != nil || !ok {
			return err
		}
		r, err := l.clusterRecordIn(c, key)
		if err != nil {
			return err
		}
		machines, err := l.machinesOf(ctx, key)
		if err != nil {
			return err
		}
		if err := machines.spared(); err != nil {
			return err
		}
		r.Phase = capi.PhaseDeleting
		if err := setClusterRecord(c.object, r); err != nil {
			return err
		}
		return l.writeAll(c)
	})
	return err == nil, "", err
}

// DeleteCluster implements the Store interface of pkg/apply. The Cluster with its record
// goes last: as long as something of it is left, it is listed.
func (l *Local) DeleteCluster(ctx context.Context, key capi.Key) error {
	return l.write(ctx, func() error {
		machines, err := l.machinesOf(ctx, key)
		if err != nil {
			return err
		}
		if err := cmp.Or(machines.spared(), machines.occupied(key)); err != nil {
			return err
		}
		c, ok, err := l.load(dirClusters, key)
		if err != nil {
			return err
		}
		l.claims = nil
		for _, m := range machines {
			// The PlunderMachine is found by the Machine, so it goes first.
			if err := l.removeObject(dirPlunderMachines, m.infra); err != nil {
				return err
			}
			if err := l.removeObject(dirMachines, m.key); err != nil {
				return err
			}
		}
		if err := l.dropKeys(key); err != nil {
			return err
		}
		if infra, named := c.object.infraKey(); ok && named {
			all, err := l.ClusterRecords(ctx, key.Namespace)
			if err != nil {
				return err
			}
			shared := slices.ContainsFunc(all, func(r capi.ClusterRecord) bool { return r.PlunderCluster == infra && r.Key != key })
			if !shared {
				if err := l.removeObject(dirPlunderClusters, infra); err != nil {
					return err
				}
			}
		}
		return l.removeObject(dirClusters, key)
	})
}

// removeObject removes the file of an object; a key without a name is none.
func (l *Local) removeObject(kind string, key capi.Key) error {
	if key.Name == "" {
		return nil
	}
	path, err := l.path(kind, key)
	if err != nil {
		return err
	}
	return removeFile(path)
}

// members are machines of a cluster, for its deletion.
type members []member

type member struct {
	key       capi.Key // of the Machine
	infra     capi.Key // of its PlunderMachine; without a name when there is none
	protected bool
	claimed   bool // it has, or may have, hardware
}

// claimed reports whether hardware hangs on a record.
func claimed(r capi.Record) bool { return r.Claimed() || r.Dirty }

// spared is a *ProtectedError if there are protected ones.
func (m members) spared() error {
	keys := m.keys(func(m member) bool { return m.protected })
	if len(keys) == 0 {
		return nil
	}
	return &ProtectedError{Machines: keys}
}

// occupied is an *OccupiedError if there are some with hardware.
func (m members) occupied(cluster capi.Key) error {
	keys := m.keys(func(m member) bool { return m.claimed })
	if len(keys) == 0 {
		return nil
	}
	return &OccupiedError{Cluster: cluster, Machines: keys}
}

func (m members) keys(of func(member) bool) []capi.Key {
	var keys []capi.Key
	for _, one := range m {
		if of(one) {
			keys = append(keys, one.key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// machinesOf finds the machines of a cluster: those whose record or Machine says so.
func (l *Local) machinesOf(ctx context.Context, cluster capi.Key) (members, error) {
	records, err := l.Records(ctx, cluster.Namespace)
	if err != nil {
		return nil, err
	}
	byKey := map[capi.Key]capi.Record{}
	var found members
	for _, r := range records {
		byKey[r.Key] = r
		if r.Cluster == cluster.Name {
			found = append(found, member{key: r.Key, infra: r.PlunderMachine, protected: r.Protected, claimed: claimed(r)})
		}
	}
	keys, err := l.list(dirMachines)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if r, recorded := byKey[key]; key.Namespace != cluster.Namespace || recorded && r.Cluster != "" {
			continue // its record has said which cluster it is of
		}
		m, ok, err := l.member(key, cluster.Name, byKey[key])
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, m)
		}
	}
	return found, nil
}

// member is a Machine as a member of a cluster; ok is false when it is of another one.
func (l *Local) member(key capi.Key, cluster string, r capi.Record) (m member, ok bool, err error) {
	f, ok, err := l.load(dirMachines, key)
	if err != nil || !ok || cmp.Or(f.object.text("spec", "clusterName"), f.object.text("metadata", "labels", capi.LabelCluster)) != cluster {
		return m, false, err
	}
	m = member{key: key, protected: protects(f.object), claimed: claimed(r)}
	infra, named := f.object.infraKey()
	if !named {
		return m, true, nil
	}
	pm, there, err := l.load(dirPlunderMachines, infra)
	if err != nil || !there {
		return m, true, err
	}
	other, had, err := recordOf(pm.object)
	switch {
	case err != nil:
		return m, false, &CorruptError{Path: pm.path, Err: err}
	case had && other.Key != key:
		return m, true, nil // another Machine's
	}
	m.infra, m.protected = infra, m.protected || protects(pm.object)
	return m, true, nil
}

// ClusterRecords is as Local.ClusterRecords.
func (m *Memory) ClusterRecords(ctx context.Context, namespaces ...string) (records []capi.ClusterRecord, err error) {
	err = m.do(ctx, m.FailClusterRecords, func() error {
		records = make([]capi.ClusterRecord, 0, len(m.clusters))
		for key := range m.clusters {
			if len(namespaces) == 0 || slices.Contains(namespaces, key.Namespace) {
				records = append(records, m.clusterRecord(key))
			}
		}
		slices.SortFunc(records, func(a, b capi.ClusterRecord) int { return compareKeys(a.Key, b.Key) })
		return nil
	})
	return records, err
}

// clusterRecord is the record of a cluster, or one with its names only.
func (m *Memory) clusterRecord(key capi.Key) capi.ClusterRecord {
	if r, ok := m.status[key]; ok {
		return r
	}
	return capi.ClusterRecord{Key: key, PlunderCluster: m.clusters[key]}
}

// CondemnCluster is as Local.CondemnCluster.
func (m *Memory) CondemnCluster(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	err = m.do(ctx, m.FailCondemnCluster, func() error {
		if _, ok := m.clusters[key]; !ok {
			return nil
		}
		if err := m.machinesOf(key).spared(); err != nil {
			return err
		}
		r := m.clusterRecord(key)
		r.Phase = capi.PhaseDeleting
		m.status[key] = r
		return nil
	})
	return err == nil, "", err
}

// DeleteCluster is as Local.DeleteCluster.
func (m *Memory) DeleteCluster(ctx context.Context, key capi.Key) error {
	return m.do(ctx, m.FailDeleteCluster, func() error {
		machines := m.machinesOf(key)
		if err := cmp.Or(machines.spared(), machines.occupied(key)); err != nil {
			return err
		}
		for _, machine := range machines {
			m.claims.drop(machine.key)
			delete(m.records, machine.key)
			delete(m.machines, machine.key)
		}
		delete(m.infra, m.clusters[key])
		delete(m.kubeconfigs, key)
		delete(m.pki, key)
		delete(m.status, key)
		delete(m.clusters, key)
		return nil
	})
}

func (m *Memory) machinesOf(cluster capi.Key) members {
	var found members
	for key, machine := range m.machines {
		r := m.records[key]
		if key.Namespace == cluster.Namespace && cmp.Or(r.Cluster, machine.cluster) == cluster.Name {
			found = append(found, member{key: key, protected: m.isProtected(key), claimed: claimed(r)})
		}
	}
	return found
}
