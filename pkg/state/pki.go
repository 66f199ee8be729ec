package state

import (
	"context"
	"errors"

	"github.com/plunder-app/capplunder/pkg/capi"
)

var errNotYet = errors.New("not there yet")

// BootstrapData is as in apply.Store.
func (l *Local) BootstrapData(context.Context, capi.Key) (*capi.BootstrapData, string, error) {
	return nil, "", errNotYet
}

// SavePKI is as in apply.Store.
func (l *Local) SavePKI(context.Context, capi.Key, capi.PKI) (capi.PKI, error) { return nil, errNotYet }

// PKI is as in apply.Store.
func (l *Local) PKI(context.Context, capi.Key) (capi.PKI, error) { return nil, errNotYet }

// BootstrapData is as in apply.Store.
func (m *Memory) BootstrapData(context.Context, capi.Key) (*capi.BootstrapData, string, error) {
	return nil, "", errNotYet
}

// SavePKI is as in apply.Store.
func (m *Memory) SavePKI(context.Context, capi.Key, capi.PKI) (capi.PKI, error) {
	return nil, errNotYet
}

// PKI is as in apply.Store.
func (m *Memory) PKI(context.Context, capi.Key) (capi.PKI, error) { return nil, errNotYet }

// BootstrapData is as in apply.Store.
func (k *Kubernetes) BootstrapData(context.Context, capi.Key) (*capi.BootstrapData, string, error) {
	return nil, "", errNotYet
}

// SavePKI is as in apply.Store.
func (k *Kubernetes) SavePKI(context.Context, capi.Key, capi.PKI) (capi.PKI, error) {
	return nil, errNotYet
}

// PKI is as in apply.Store.
func (k *Kubernetes) PKI(context.Context, capi.Key) (capi.PKI, error) { return nil, errNotYet }
