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

// Store keeps what capplunder knows. Every write is durable when it returns.
type Store interface {
	// String describes the store for people, e.g. "local store /home/x/.local/state/capplunder".
	String() string
	// Lock keeps other runs out until unlock is called. If another run has it, the
	// error says who and since when; it is returned at once or when ctx ends.
	Lock(ctx context.Context, command string) (unlock func() error, err error)
	// Sync stores the given objects (not their status) ahead of work on them.
	Sync(ctx context.Context, set *capi.Set) error
	// Record returns the record of a machine; ok is false when there is none.
	Record(ctx context.Context, key capi.Key) (r capi.Record, ok bool, err error)
	// Records returns all records of all namespaces, sorted by key.
	Records(ctx context.Context) ([]capi.Record, error)
	// SaveRecord writes the record of a machine that was synced before.
	SaveRecord(ctx context.Context, r capi.Record) error
	// DeleteRecord removes a machine: record and objects. None is no error.
	DeleteRecord(ctx context.Context, key capi.Key) error
	// ClusterRecord and SaveClusterRecord are the same for clusters.
	ClusterRecord(ctx context.Context, key capi.Key) (r capi.ClusterRecord, ok bool, err error)
	SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error
	// AddEvent adds an event; the store fills Count, FirstTime and LastTime.
	AddEvent(ctx context.Context, e capi.Event) error
	// Events returns all events of all namespaces, oldest LastTime first.
	Events(ctx context.Context) ([]capi.Event, error)
}
