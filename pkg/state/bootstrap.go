package state

import (
	"context"
	"fmt"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// NoBootstrapDataError says that a Machine's bootstrap data has to come with the run,
// because nobody writes any into the store.
type NoBootstrapDataError struct {
	Machine capi.Key
	Secret  string // "ns/name" that the Machine names, "" for none
	Store   string // as its String
}

// Error implements error.
func (e *NoBootstrapDataError) Error() string {
	secret := "a Secret with it that the Machine names"
	if e.Secret != "" {
		secret = "the Secret " + e.Secret
	}
	return fmt.Sprintf("Machine %s: no bootstrap data was given, and the %s has none: put %s among the manifests, or add --bootstrap-data %s=FILE",
		e.Machine, e.Store, secret, e.Machine)
}

// BootstrapData implements the Store interface of pkg/apply. No bootstrap provider
// writes here, and data that came with a run is never kept: there is none.
func (l *Local) BootstrapData(ctx context.Context, machine capi.Key) (*capi.BootstrapData, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", fmt.Errorf("read the bootstrap data of Machine %s: %w", machine, err)
	}
	m, ok, err := l.load(dirMachines, machine)
	switch {
	case err != nil:
		return nil, "", err
	case !ok:
		return nil, "", &NotSyncedError{Kind: "Machine", Key: machine}
	}
	secret := m.object.text("spec", "bootstrap", "dataSecretName")
	if secret != "" {
		secret = machine.Namespace + "/" + secret
	}
	return nil, "", &NoBootstrapDataError{Machine: machine, Secret: secret, Store: l.String()}
}

// BootstrapData is as Local.BootstrapData.
func (m *Memory) BootstrapData(ctx context.Context, machine capi.Key) (data *capi.BootstrapData, observation string, err error) {
	err = m.do(ctx, nil, func() error {
		if _, ok := m.machines[machine]; !ok {
			return &NotSyncedError{Kind: "Machine", Key: machine}
		}
		return &NoBootstrapDataError{Machine: machine, Store: m.String()}
	})
	return nil, "", err
}
