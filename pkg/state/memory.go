package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Memory is a store that lasts as long as its process, with the semantics of
// Local: for tests and dry runs. Each Fail field, set before the store is used,
// makes the method of its name fail with that error and change nothing.
type Memory struct {
	FailLock              error
	FailSync              error
	FailRecord            error
	FailRecords           error
	FailSaveRecord        error
	FailDeleteRecord      error
	FailClusterRecord     error
	FailSaveClusterRecord error
	FailClusterRecords    error
	FailCondemnCluster    error
	FailDeleteCluster     error
	FailProtect           error
	FailAddEvent          error
	FailEvents            error

	lock chan struct{} // holds one element while nobody has the lock

	mu       sync.Mutex
	holder   Holder
	machines map[capi.Key]memoryMachine // synced
	clusters map[capi.Key]capi.Key      // synced: Cluster -> PlunderCluster, without a name if it has none
	infra    map[capi.Key]bool          // synced PlunderClusters
	records  map[capi.Key]capi.Record
	status   map[capi.Key]capi.ClusterRecord
	events   map[string][]capi.Event // by object
	claims   *claims

	kubeconfigs map[capi.Key][]byte   // by cluster
	pki         map[capi.Key]capi.PKI // by cluster
}

// NewMemory makes an empty store.
func NewMemory() *Memory {
	m := &Memory{
		lock:     make(chan struct{}, 1),
		machines: map[capi.Key]memoryMachine{},
		clusters: map[capi.Key]capi.Key{},
		infra:    map[capi.Key]bool{},
		records:  map[capi.Key]capi.Record{},
		status:   map[capi.Key]capi.ClusterRecord{},
		events:   map[string][]capi.Event{},
		claims:   newClaims(nil),

		kubeconfigs: map[capi.Key][]byte{},
		pki:         map[capi.Key]capi.PKI{},
	}
	m.lock <- struct{}{}
	return m
}

// String is "store in memory".
func (m *Memory) String() string { return "store in memory" }

// Lock is as Local.Lock, within this process.
func (m *Memory) Lock(ctx context.Context, req capi.LockRequest) (held context.Context, unlock func() error, err error) {
	if m.FailLock != nil {
		return nil, nil, m.FailLock
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", m, err)
	}
	select {
	case <-m.lock:
	default:
		if req.Patience <= 0 {
			return nil, nil, m.locked()
		}
		give := time.NewTimer(req.Patience)
		defer give.Stop()
		select {
		case <-m.lock:
		case <-give.C:
			return nil, nil, m.locked()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, nil, fmt.Errorf("wait for the lock of %s: %w", m, ctx.Err())
			}
			return nil, nil, m.locked()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holder = newHolder(req.Command)
	return ctx, sync.OnceValue(func() error {
		m.lock <- struct{}{}
		return nil
	}), nil
}

// LockServer is as Local.LockServer.
func (m *Memory) LockServer(context.Context, string) (func() error, error) { return nothing, nil }

func (m *Memory) locked() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &LockedError{Store: m.String(), Holder: m.holder}
}

// Sync is as Local.Sync, but of the objects only their names are kept.
func (m *Memory) Sync(ctx context.Context, set *capi.Set) error {
	return m.do(ctx, m.FailSync, func() error {
		var problems []error
		for _, machine := range set.Machines {
			for _, r := range m.records {
				if r.PlunderMachine == machine.Infra.Key && r.Key != machine.Key {
					problems = append(problems, &ClaimedError{
						Kind: "PlunderMachine", Key: machine.Infra.Key, Field: "its Machine",
						Old: r.Key.String(), New: machine.Key.String(), Machine: r.Key,
					})
				}
			}
			if r, ok := m.records[machine.Key]; ok {
				problems = append(problems, checkGiven(machine, r)...)
			}
		}
		if len(problems) > 0 {
			return errors.Join(problems...)
		}
		for _, c := range set.Clusters {
			m.clusters[c.Key] = capi.Key{}
			if c.Infra != nil {
				m.clusters[c.Key] = c.Infra.Key
				m.infra[c.Infra.Key] = true
			}
		}
		for _, machine := range set.Machines {
			m.machines[machine.Key] = m.synced(machine)
		}
		return nil
	})
}

// memoryMachine is what is kept of a Machine and its PlunderMachine.
type memoryMachine struct {
	infra            capi.Key // of the PlunderMachine
	cluster          string
	protected        bool // the Machine
	protectedPlunder bool // its PlunderMachine
}

// synced is what Sync keeps of a given machine.
func (m *Memory) synced(given *capi.Machine) memoryMachine {
	old := m.machines[given.Key]
	return memoryMachine{
		infra: given.Infra.Key, cluster: given.ClusterName,
		protected:        old.protected || protected(given.Annotations),
		protectedPlunder: old.protectedPlunder && old.infra == given.Infra.Key || protected(given.Infra.Annotations),
	}
}

// shown is a record as it is returned.
func (m *Memory) shown(r capi.Record) capi.Record {
	r = r.Clone()
	r.Protected = m.isProtected(r.Key)
	return r
}

func (m *Memory) isProtected(key capi.Key) bool {
	return m.machines[key].protected || m.machines[key].protectedPlunder
}

// Look is as Local.Look: what is given counts as stored once its name is.
func (m *Memory) Look(ctx context.Context, set *capi.Set) (inSync bool, err error) {
	err = m.do(ctx, m.FailSync, func() error {
		inSync = true
		for _, c := range set.Clusters {
			_, there := m.clusters[c.Key]
			inSync = inSync && there
		}
		for _, machine := range set.Machines {
			inSync = inSync && m.machines[machine.Key] == m.synced(machine)
		}
		return nil
	})
	return inSync, err
}

// Record is as Local.Record.
func (m *Memory) Record(ctx context.Context, key capi.Key) (r capi.Record, ok bool, err error) {
	err = m.do(ctx, m.FailRecord, func() error {
		if r, ok = m.records[key]; ok {
			r = m.shown(r)
		}
		return nil
	})
	return r, ok, err
}

// Records is as Local.Records.
func (m *Memory) Records(ctx context.Context, namespaces ...string) (records []capi.Record, err error) {
	err = m.do(ctx, m.FailRecords, func() error {
		records = make([]capi.Record, 0, len(m.records))
		for _, r := range m.records {
			if len(namespaces) == 0 || slices.Contains(namespaces, r.Namespace) {
				records = append(records, m.shown(r))
			}
		}
		slices.SortFunc(records, func(a, b capi.Record) int { return compareKeys(a.Key, b.Key) })
		return nil
	})
	return records, err
}

// SaveRecord is as Local.SaveRecord.
func (m *Memory) SaveRecord(ctx context.Context, r capi.Record) error {
	return m.do(ctx, m.FailSaveRecord, func() error {
		machine, ok := m.machines[r.Key]
		if !ok {
			return &NotSyncedError{Kind: "Machine", Key: r.Key}
		}
		infra := machine.infra
		if r.PlunderMachine != (capi.Key{}) && r.PlunderMachine != infra {
			return fmt.Errorf("save the record of Machine %s: it is for PlunderMachine %s, but the Machine in %s has %s",
				r.Key, r.PlunderMachine, m, infra)
		}
		r.PlunderMachine = infra
		if err := m.claims.check(r); err != nil {
			return err
		}
		r = r.Clone()
		m.claims.put(r)
		m.records[r.Key] = r
		return nil
	})
}

// Claims is as Local.Claims.
func (m *Memory) Claims(ctx context.Context) (claims map[string]capi.Key, err error) {
	err = m.do(ctx, m.FailRecords, func() error {
		claims = maps.Clone(m.claims.macs)
		return nil
	})
	return claims, err
}

// Condemn is as Local.Condemn.
func (m *Memory) Condemn(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	err = m.do(ctx, nil, func() error {
		if _, ok := m.records[key]; ok && m.isProtected(key) {
			return &ProtectedError{Machines: []capi.Key{key}}
		}
		return nil
	})
	return err == nil, "", err
}

// Condemned is as Local.Condemned.
func (m *Memory) Condemned(context.Context, []capi.Key) ([]capi.Record, error) { return nil, nil }

// DeleteRecord is as Local.DeleteRecord.
func (m *Memory) DeleteRecord(ctx context.Context, key capi.Key) error {
	return m.do(ctx, m.FailDeleteRecord, func() error {
		m.claims.drop(key)
		delete(m.records, key)
		delete(m.machines, key)
		return nil
	})
}

// ClusterRecord is as Local.ClusterRecord.
func (m *Memory) ClusterRecord(ctx context.Context, key capi.Key) (r capi.ClusterRecord, ok bool, err error) {
	err = m.do(ctx, m.FailClusterRecord, func() error {
		r, ok = m.status[key]
		return nil
	})
	return r, ok, err
}

// SaveClusterRecord is as Local.SaveClusterRecord.
func (m *Memory) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	return m.do(ctx, m.FailSaveClusterRecord, func() error {
		if _, ok := m.clusters[r.Key]; !ok {
			return &NotSyncedError{Kind: "Cluster", Key: r.Key}
		}
		if r.PlunderCluster != (capi.Key{}) && !m.infra[r.PlunderCluster] {
			return &NotSyncedError{Kind: "PlunderCluster", Key: r.PlunderCluster}
		}
		if givenUp(m.status[r.Key], r) {
			delete(m.kubeconfigs, r.Key)
			delete(m.pki, r.Key)
		}
		m.status[r.Key] = stillDeleting(m.status[r.Key], r)
		return nil
	})
}

// AddEvent is as Local.AddEvent.
func (m *Memory) AddEvent(ctx context.Context, e capi.Event) error {
	return m.do(ctx, m.FailAddEvent, func() error {
		object := e.Kind + " " + e.Object.String()
		m.events[object] = addEvent(m.events[object], e, time.Now())
		return nil
	})
}

// Events is as Local.Events.
func (m *Memory) Events(ctx context.Context) (events []capi.Event, err error) {
	err = m.do(ctx, m.FailEvents, func() error {
		events = slices.Concat(slices.Collect(maps.Values(m.events))...)
		sortEvents(events)
		return nil
	})
	return events, err
}

func (m *Memory) do(ctx context.Context, fail error, f func() error) error {
	if fail != nil {
		return fail
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}
