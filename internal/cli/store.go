package cli

import (
	"context"
	"errors"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

// storeError is a failure of the place where results are recorded.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// failing marks an error as the store's. An interruption is nobody's failure, nor is
// that somebody else has to act first.
func failing(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, capi.ErrPending) {
		return err
	}
	return &storeError{err}
}

// markedStore is a store whose errors say that they are the store's, wherever
// they turn up, so that the exit code can tell.
type markedStore struct{ store }

// store is what commands need of a store beyond the engine.
type store interface {
	apply.Store
	// Clusters are the Clusters and PlunderClusters of earlier runs.
	Clusters(ctx context.Context) ([]capi.Document, error)
}

// source is where Cluster API objects can be read.
type source interface {
	// Intents are the objects that a selection means.
	Intents(ctx context.Context, s state.Selection) ([]capi.Document, error)
}

// SaveKubeconfig implements store.
func (s markedStore) SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error {
	return failing(s.store.SaveKubeconfig(ctx, cluster, kubeconfig))
}

// Kubeconfig implements store.
func (s markedStore) Kubeconfig(ctx context.Context, cluster capi.Key) ([]byte, bool, error) {
	data, ok, err := s.store.Kubeconfig(ctx, cluster)
	return data, ok, failing(err)
}

// BootstrapData implements store.
func (s markedStore) BootstrapData(ctx context.Context, machine capi.Key) (*capi.BootstrapData, string, error) {
	data, observation, err := s.store.BootstrapData(ctx, machine)
	return data, observation, failing(err)
}

// SavePKI implements store.
func (s markedStore) SavePKI(ctx context.Context, cluster capi.Key, pki capi.PKI) (capi.PKI, error) {
	kept, err := s.store.SavePKI(ctx, cluster, pki)
	return kept, failing(err)
}

// PKI implements store.
func (s markedStore) PKI(ctx context.Context, cluster capi.Key) (capi.PKI, error) {
	pki, err := s.store.PKI(ctx, cluster)
	return pki, failing(err)
}

// Clusters implements store.
func (s markedStore) Clusters(ctx context.Context) ([]capi.Document, error) {
	docs, err := s.store.Clusters(ctx)
	return docs, failing(err)
}

// Lock implements apply.Store.
func (s markedStore) Lock(ctx context.Context, req capi.LockRequest) (context.Context, func() error, error) {
	held, unlock, err := s.store.Lock(ctx, req)
	if err != nil {
		return nil, nil, failing(err)
	}
	return held, func() error { return failing(unlock()) }, nil
}

// LockServer implements apply.Store.
func (s markedStore) LockServer(ctx context.Context, url string) (func() error, error) {
	unlock, err := s.store.LockServer(ctx, url)
	if err != nil {
		return nil, failing(err)
	}
	return func() error { return failing(unlock()) }, nil
}

// Look implements apply.Store.
func (s markedStore) Look(ctx context.Context, set *capi.Set) (bool, error) {
	inSync, err := s.store.Look(ctx, set)
	return inSync, failing(err)
}

// Claims implements apply.Store.
func (s markedStore) Claims(ctx context.Context) (map[string]capi.Key, error) {
	c, err := s.store.Claims(ctx)
	return c, failing(err)
}

// Condemn implements apply.Store.
func (s markedStore) Condemn(ctx context.Context, key capi.Key) (bool, string, error) {
	done, observation, err := s.store.Condemn(ctx, key)
	return done, observation, failing(err)
}

// Condemned implements apply.Store.
func (s markedStore) Condemned(ctx context.Context, clusters []capi.Key) ([]capi.Record, error) {
	r, err := s.store.Condemned(ctx, clusters)
	return r, failing(err)
}

// Sync implements apply.Store.
func (s markedStore) Sync(ctx context.Context, set *capi.Set) error {
	return failing(s.store.Sync(ctx, set))
}

// Record implements apply.Store.
func (s markedStore) Record(ctx context.Context, key capi.Key) (capi.Record, bool, error) {
	r, ok, err := s.store.Record(ctx, key)
	return r, ok, failing(err)
}

// Records implements apply.Store.
func (s markedStore) Records(ctx context.Context, namespaces ...string) ([]capi.Record, error) {
	r, err := s.store.Records(ctx, namespaces...)
	return r, failing(err)
}

// SaveRecord implements apply.Store.
func (s markedStore) SaveRecord(ctx context.Context, r capi.Record) error {
	return failing(s.store.SaveRecord(ctx, r))
}

// DeleteRecord implements apply.Store.
func (s markedStore) DeleteRecord(ctx context.Context, key capi.Key) error {
	return failing(s.store.DeleteRecord(ctx, key))
}

// ClusterRecord implements apply.Store.
func (s markedStore) ClusterRecord(ctx context.Context, key capi.Key) (capi.ClusterRecord, bool, error) {
	r, ok, err := s.store.ClusterRecord(ctx, key)
	return r, ok, failing(err)
}

// SaveClusterRecord implements apply.Store.
func (s markedStore) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	return failing(s.store.SaveClusterRecord(ctx, r))
}

// ClusterRecords implements apply.Store.
func (s markedStore) ClusterRecords(ctx context.Context, namespaces ...string) ([]capi.ClusterRecord, error) {
	r, err := s.store.ClusterRecords(ctx, namespaces...)
	return r, failing(err)
}

// CondemnCluster implements apply.Store.
func (s markedStore) CondemnCluster(ctx context.Context, key capi.Key) (bool, string, error) {
	done, observation, err := s.store.CondemnCluster(ctx, key)
	return done, observation, failing(err)
}

// DeleteCluster implements apply.Store.
func (s markedStore) DeleteCluster(ctx context.Context, key capi.Key) error {
	return failing(s.store.DeleteCluster(ctx, key))
}

// Protect implements apply.Store.
func (s markedStore) Protect(ctx context.Context, machine capi.Key, on bool) error {
	return failing(s.store.Protect(ctx, machine, on))
}

// AddEvent implements apply.Store.
func (s markedStore) AddEvent(ctx context.Context, e capi.Event) error {
	return failing(s.store.AddEvent(ctx, e))
}

// Events implements apply.Store.
func (s markedStore) Events(ctx context.Context) ([]capi.Event, error) {
	e, err := s.store.Events(ctx)
	return e, failing(err)
}
