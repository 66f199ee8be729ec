package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/state"
)

// Values of --store.
const (
	storeLocal      = "local"
	storeAuto       = "auto"
	storeKubernetes = "kubernetes"
)

// opened is the store of a run.
type opened struct {
	store
	// namespace is the one that was asked for, else the store's default.
	namespace string
	// source is where Cluster API objects can be read; nil for stores that have none
	// but those that were given to them.
	source source
	// locked: this run holds the lock, or held it.
	locked atomic.Bool
}

// Lock implements apply.Store.
func (s *opened) Lock(ctx context.Context, req capi.LockRequest) (context.Context, func() error, error) {
	held, unlock, err := s.store.Lock(ctx, req)
	if err == nil {
		s.locked.Store(true)
	}
	return held, unlock, err
}

// storeOptions are what a command says about the store.
type storeOptions struct {
	namespaceOptions
	forceConflicts bool
}

// Store opens the place where results are recorded, and says once which it is. The
// local store is not touched yet; a cluster has answered.
func (f *factory) Store(ctx context.Context, o storeOptions) (*opened, error) {
	if f.opened == nil {
		st, err := f.open(ctx, o)
		if err != nil {
			return nil, err
		}
		f.opened = st
		if !f.opts.simulate { // which every line says
			f.noticef("using %s", st.describe(o))
		}
	}
	return f.opened, nil
}

// describe is for people: "cluster https://… (context x of ~/.kube/config), namespace y".
func (s *opened) describe(o storeOptions) string {
	switch {
	case s.source == nil:
		return s.String()
	case o.all:
		return s.String() + ", all namespaces"
	}
	return s.String() + ", namespace " + s.namespace
}

// open is Store, silently.
func (f *factory) open(ctx context.Context, o storeOptions) (*opened, error) {
	target, err := f.chooseStore()
	if err != nil {
		return nil, err
	}
	var st *opened
	if target == nil {
		st, err = f.openLocal()
	} else {
		st, err = f.openCluster(ctx, target, o)
	}
	if err != nil {
		return nil, err
	}
	if o.namespace != "" {
		st.namespace = o.namespace
	}
	return st, nil
}

// chooseStore decides where results are recorded; nil is the local store. Nothing
// is asked of a cluster yet. A kubeconfig that is there, but is of no use, is an
// error and never the local store: its machines would be installed twice.
func (f *factory) chooseStore() (*kube.Target, error) {
	o := f.opts
	switch o.store {
	case storeAuto, storeKubernetes, storeLocal:
	default:
		return nil, usagef(nil, "--store %q: unknown store; use %s, %s or %s", o.store, storeAuto, storeKubernetes, storeLocal)
	}
	named := o.kubeconfig != "" || o.kubeContext != ""
	switch {
	case o.simulate && o.store == storeKubernetes:
		return nil, &usageError{
			err:  errors.New("--simulate: simulated machines are never recorded in a cluster; run a simulated server and give its file with --plunder-config"),
			next: name + " simulator",
		}
	case o.simulate, o.store == storeLocal:
		return nil, nil
	case o.store == storeKubernetes && o.stateDir != "" && strings.HasPrefix(f.source("state-dir"), "flag "):
		return nil, usagef(nil, "--state-dir is where the local store is: it means nothing with --store %s", storeKubernetes)
	case o.store == storeAuto && o.stateDir != "" && named:
		return nil, usagef(nil, "both a state directory (%s) and a cluster (--kubeconfig or --context) are given: say which one with --store %s or --store %s",
			f.source("state-dir"), storeLocal, storeKubernetes)
	case o.store == storeAuto && o.stateDir != "":
		return nil, nil
	}
	target, err := f.target()
	switch {
	case err == nil:
		return target, nil
	case o.store == storeAuto && errors.Is(err, kube.ErrNoConfig):
		return nil, nil
	case errors.Is(err, kube.ErrNoConfig):
		return nil, nextError{failing(fmt.Errorf("--store %s: %w", storeKubernetes, err)), f.commandLine() + " --kubeconfig FILE"}
	}
	return nil, f.unusable(err)
}

// target is the cluster that is meant, whatever the store is. Nothing is asked of it.
func (f *factory) target() (*kube.Target, error) {
	return kube.Find(kube.Options{Kubeconfig: f.opts.kubeconfig, Context: f.opts.kubeContext, UserAgent: userAgent(), Getenv: f.getenv})
}

// source says what a setting's value comes from: "flag --x", "CAPPLUNDER_X", a file,
// or "default".
func (f *factory) source(setting string) string {
	for _, s := range f.settings {
		if s.Name == setting {
			return s.Source
		}
	}
	return ""
}

// unusable is the error of a cluster that is meant but of no use now, with what to
// type next: whoever wants to do without it has to say so.
func (f *factory) unusable(err error) error {
	var refused interface{ NextCommand() string }
	command := ""
	if errors.As(err, &refused) {
		command = refused.NextCommand()
	}
	if f.opts.store == storeAuto {
		err = nextError{failing(err), f.commandLine() + " --store local    # machines that are recorded in the cluster are unknown there"}
	} else {
		err = failing(err)
	}
	switch {
	case command != "":
		return nextError{err, command}
	case errors.Is(err, capi.ErrUnavailable):
		return nextError{err, f.commandLine()}
	}
	return err
}

func (f *factory) openLocal() (*opened, error) {
	dir, err := f.stateDir()
	if err != nil {
		return nil, err
	}
	local, err := state.OpenLocal(dir)
	if err != nil {
		return nil, failing(err)
	}
	return &opened{store: markedStore{local}, namespace: capi.DefaultNamespace}, nil
}

func (f *factory) openCluster(ctx context.Context, target *kube.Target, o storeOptions) (*opened, error) {
	client, err := kube.Connect(ctx, target)
	if err != nil {
		return nil, f.unusable(err)
	}
	k, err := state.OpenKubernetes(client, state.KubernetesOptions{ForceConflicts: o.forceConflicts})
	if err != nil {
		return nil, failing(err)
	}
	return &opened{store: markedStore{k}, namespace: target.Namespace, source: k}, nil
}
