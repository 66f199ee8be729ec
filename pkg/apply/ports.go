// Package apply runs plans: it gives hardware to machines, posts deployments,
// waits for operating systems, installs Kubernetes, records results, and takes
// machines back. It sees the plunder server and the store only through the two
// interfaces below, emits events and never prints.
package apply

import (
	"context"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Server is what the engine needs of a plunder server. Errors are those of
// pkg/plunder/wire (ErrNoLog, ErrNotFound, ErrUnreachable, ErrNoAnswer,
// ErrNoDeployments, *RefusedError, *ConflictError, *UnknownBootConfigError),
// found with errors.Is and errors.As. All methods are safe for many goroutines;
// writes to deployments run one at a time.
type Server interface {
	// URL is the server's address, for records and messages.
	URL() string
	// ServerConfig is GET /config.
	ServerConfig(ctx context.Context) (wire.ServerConfig, error)
	// Unleased is GET /dhcp/unleased, with the server's own time of the answer, so
	// that ages can be computed without trusting that two clocks agree.
	Unleased(ctx context.Context) ([]wire.Lease, time.Time, error)
	// Deployments is GET /deployments.
	Deployments(ctx context.Context) (wire.Deployments, error)
	// EnsureDeployment makes the server have d (compared by MAC, boot configuration,
	// address and host name) and returns only when it was read back. It posts, or
	// patches a deployment that is in the reboot loop. It never takes over a
	// deployment or an address that is in use: *wire.ConflictError.
	EnsureDeployment(ctx context.Context, d wire.Deployment) error
	// ReleaseDeployment points the machine at the reboot loop: it makes sure that the
	// boot configuration "reboot" exists and patches (or posts) the deployment to it, same address
	// and host name, read back. From then on no reset can install the machine again.
	ReleaseDeployment(ctx context.Context, mac, address, hostname string) error
	// RemoveDeployment deletes the deployment of a MAC and reads back that it is gone.
	// A placeholder keeps it from being the last one, which servers never delete.
	// A MAC without deployment is no error.
	RemoveDeployment(ctx context.Context, mac string) error
	// EnsurePlaceholder makes the server have a deployment that belongs to no machine.
	// A server without any deployment has no reboot loop, so blank machines do not
	// show up on it.
	EnsurePlaceholder(ctx context.Context) error
	// PostParlay is POST /parlay. It is never repeated on ErrNoAnswer.
	PostParlay(ctx context.Context, m wire.Map) error
	// Log is GET /parlay/logs/{ip}; wire.ErrNoLog when there is none.
	Log(ctx context.Context, address string) (wire.Log, error)
	// DeleteLog deletes the log of an address; none is no error.
	DeleteLog(ctx context.Context, address string) error
}

// Store keeps what capplunder knows. Every write is durable when it returns. An
// error that wraps capi.ErrUnavailable means that the store does not answer now:
// whether a write happened is then unknown, and it may be repeated.
type Store interface {
	// String describes the store for people, e.g. "local store /home/x/.local/state/capplunder".
	String() string
	// Lock keeps other runs away from the given clusters (a store may lock more than
	// that) until unlock is called. held is ctx, and ends when the lock is lost to
	// another run; context.Cause tells. If another run has the lock, the error says who
	// and since when.
	Lock(ctx context.Context, req capi.LockRequest) (held context.Context, unlock func() error, err error)
	// LockServer keeps other runs, for whatever clusters, from writing deployments to a
	// plunder server: two writers lose each other's work there. It is held for one write
	// or a few. A store that only this computer sees has nothing to lock.
	LockServer(ctx context.Context, url string) (unlock func() error, err error)
	// Look compares given objects with the stored ones and changes nothing in the store.
	// In the set it marks what only the store knows: Paused and Deleting. inSync reports
	// whether Sync would write nothing.
	Look(ctx context.Context, set *capi.Set) (inSync bool, err error)
	// Sync stores the given objects (not their status) ahead of work on them, and
	// completes what an interrupted write left half shown. Objects that came from the
	// store itself (an Origin without a file) are not given anew.
	Sync(ctx context.Context, set *capi.Set) error
	// Record returns the record of a machine; ok is false when there is none. Here and
	// wherever else records are returned, Protected says whether capi.AnnotationProtected
	// is on the Machine or its PlunderMachine now.
	Record(ctx context.Context, key capi.Key) (r capi.Record, ok bool, err error)
	// Records returns all records of these namespaces, of all when none is given,
	// sorted by key. What is wrong in other namespaces is no error.
	Records(ctx context.Context, namespaces ...string) ([]capi.Record, error)
	// Claims says which Machine holds which MAC (colon form, lower case), of everybody
	// who uses the store, including claims that no record shows yet.
	Claims(ctx context.Context) (map[string]capi.Key, error)
	// SaveRecord writes the record of a machine that was synced before. A MAC that
	// another machine holds is an error that wraps capi.ErrMACTaken.
	SaveRecord(ctx context.Context, r capi.Record) error
	// Condemn begins the deletion of a machine in the store, so that everybody sees it.
	// done is false while somebody else must act first (a Cluster API manager that
	// drains the node); observation says what. None is no error. What is paused or
	// protected is an error that wraps capi.ErrPaused or capi.ErrProtected.
	Condemn(ctx context.Context, key capi.Key) (done bool, observation string, err error)
	// Condemned returns the records of machines of these clusters whose deletion was
	// begun (by Condemn, or by a person with kubectl) and is ours to finish, sorted by key.
	Condemned(ctx context.Context, clusters []capi.Key) ([]capi.Record, error)
	// DeleteRecord removes a machine: its claims, record and objects. None is no error.
	DeleteRecord(ctx context.Context, key capi.Key) error
	// ClusterRecord and SaveClusterRecord are the same for clusters.
	ClusterRecord(ctx context.Context, key capi.Key) (r capi.ClusterRecord, ok bool, err error)
	SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error
	// ClusterRecords returns a record of every cluster of these namespaces, of all when none
	// is given, that the store has objects or a record of, sorted by key. Of one without a
	// record it has the names only.
	ClusterRecords(ctx context.Context, namespaces ...string) ([]capi.ClusterRecord, error)
	// CondemnCluster begins the deletion of a cluster in the store, so that everybody sees
	// it: in its record the phase is capi.PhaseDeleting from then on, whatever is saved, or
	// Look marks it Deleting. done is false while somebody else must act first (a Cluster
	// API manager that has to delete the worker Machines); observation says what. None is no
	// error. Nothing is begun for a cluster that is paused, or of which a machine is
	// protected: an error that wraps capi.ErrPaused or capi.ErrProtected.
	CondemnCluster(ctx context.Context, key capi.Key) (done bool, observation string, err error)
	// DeleteCluster removes a cluster: its kubeconfig and keys, those of its machines that
	// never had hardware, its record and objects. While one of its machines has hardware on
	// record or is protected, that is an error and nothing is removed; while somebody else
	// must act first, an error that wraps capi.ErrPending. It may be repeated, whatever
	// became of it before. None is no error.
	DeleteCluster(ctx context.Context, key capi.Key) error
	// Protect sets capi.AnnotationProtected on a machine, or takes it off the Machine and its
	// PlunderMachine; an unknown machine is an error. Manifests never take it off, but one
	// that has it sets it each time that it is given.
	Protect(ctx context.Context, machine capi.Key, on bool) error
	// AddEvent adds an event; the store fills Count, FirstTime and LastTime.
	AddEvent(ctx context.Context, e capi.Event) error
	// Events returns all events of all namespaces, oldest LastTime first.
	Events(ctx context.Context) ([]capi.Event, error)
	// BootstrapData is the bootstrap data of a Machine that is not given with it. While
	// it is not there yet, data is nil and observation says what is awaited; an error is
	// for good, unless it wraps capi.ErrUnavailable.
	BootstrapData(ctx context.Context, machine capi.Key) (data *capi.BootstrapData, observation string, err error)
	// SaveKubeconfig keeps the kubeconfig of a cluster; Kubeconfig returns it, ok is
	// false when there is none.
	SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error
	Kubeconfig(ctx context.Context, cluster capi.Key) (data []byte, ok bool, err error)
	// SavePKI keeps the keys of a cluster's control plane (with pki: tool); PKI returns
	// them, nil when there are none. Those that are there are never replaced: SavePKI
	// returns what the store has afterwards.
	SavePKI(ctx context.Context, cluster capi.Key, pki capi.PKI) (capi.PKI, error)
	PKI(ctx context.Context, cluster capi.Key) (capi.PKI, error)
}
