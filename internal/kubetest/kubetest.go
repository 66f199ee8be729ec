// Package kubetest gives tests a real Kubernetes API: a kube-apiserver and an etcd on
// loopback, started when the first test asks and gone when the tests are, however they
// end. It owns those processes, their users, Cluster API's own resource definitions and
// the audit log. It is for tests only: the program must not import it, and it must not
// import the program, so that what is tested cannot lean on how it is tested.
//
// The binaries and definitions are built and fetched by `make kube-tools`; a test that
// misses them fails, it is never skipped.
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		kube := kubetest.ServerWith(t, kubetest.CAPIv1beta1)
//		namespace := kube.Namespace(t)
//		...
//	}
//
// A server takes a few seconds to start and some 300 MB of memory, so the tests of a
// package share one and keep to a namespace of their own. Tests that stop the server, or
// that count requests, start a Private one.
package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// shared are the servers that the tests of one binary share, by the version of Cluster
// API that they have. They live in a variable because tests find them by name: that is
// what sharing between tests means.
var shared struct {
	sync.Mutex
	running bool // Main is
	envs    map[string]*Env
	err     error // a server that did not start will not start for the next test either
}

// Main runs the tests of a package and then stops the servers that they shared. It
// returns the exit code. The servers are started by the first test that asks for one.
// A test binary that dies (a panic, a timeout, a signal) takes its servers with it as well.
func Main(m *testing.M) int {
	ctrllog.SetLogger(logr.Discard()) // else envtest's library complains on stderr after 30 s
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintf(os.Stderr, "kubetest: %v\n", err)
		return max(code, 1)
	}
	return code
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	shared.running = false
	var errs []error
	for _, env := range shared.envs {
		errs = append(errs, env.stop())
	}
	shared.envs = nil
	return errors.Join(errs...)
}

// Server is the API server that the tests of this package share, without Cluster API.
// The first call starts it.
func Server(tb testing.TB) *Env {
	tb.Helper()
	return ServerWith(tb, "")
}

// ServerWith is the shared API server that has the resource definitions of one version
// of Cluster API, such as CAPIv1beta1; each version has a server of its own. With serve,
// see InstallCAPI, so has each choice of API versions.
func ServerWith(tb testing.TB, version string, serve ...string) *Env {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		tb.Fatal("kubetest: this package needs: func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }")
	}
	key := fmt.Sprint(append([]string{version}, serve...))
	if env := shared.envs[key]; env != nil {
		return env
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	env, err := startShared(version, serve)
	if err != nil {
		shared.err = err
		tb.Fatal(err)
	}
	env.shared = true
	if shared.envs == nil {
		shared.envs = map[string]*Env{}
	}
	shared.envs[key] = env
	return env
}

func startShared(version string, serve []string) (*Env, error) {
	env, err := start(options{})
	if err != nil || version == "" {
		return env, err
	}
	if err := env.installCAPI(context.Background(), version, serve); err != nil {
		return nil, errors.Join(err, env.stop())
	}
	env.capi = capiChoice{version, slices.Clone(serve)}
	return env, nil
}

// Private is an API server of one test alone, which may stop it and start it again, and
// whose audit log holds nobody else's requests. It ends with the test.
func Private(tb testing.TB, opts ...Option) *Env {
	tb.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	env, err := start(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := env.stop(); err != nil {
			tb.Error(err)
		}
	})
	return env
}

// Option changes a Private server.
type Option func(*options)

type options struct {
	flags []flag
}

type flag struct{ name, value string }

// WithFlag starts kube-apiserver with a flag more, or with another value for one. The
// name has no dashes.
func WithFlag(name, value string) Option {
	return func(o *options) { o.flags = append(o.flags, flag{name, value}) }
}
