package scripts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// kubeMain runs the tests, and stops the API servers that scripts started.
type kubeMain struct{ m *testing.M }

func (k kubeMain) Run() int { return kubetest.Main(k.m) }

// kubernetes is the command that gives a script a Kubernetes cluster:
//
//	kubernetes [-private] [-capi VERSION] [-as USER] [NAMESPACE]
//
// The kubeconfig is in $KUBECONFIG; its context "kubetest" has the namespace, which is
// made if it is not there. Scripts share the API server (one for each version of
// Cluster API), so each has a namespace, addresses and, by `capplunder simulator
// --seed`, MAC addresses of its own, and none takes definitions away: that is what
// -private is for. With -as the user has no rights; the administrator's kubeconfig is
// in $ADMIN in any case.
func kubernetes(t *testing.T) func(*testscript.TestScript, bool, []string) {
	t.Helper()
	return func(ts *testscript.TestScript, neg bool, args []string) {
		private, version, user, namespace := false, "", "", "default"
		for i := 0; i < len(args); i++ {
			value := func() string {
				if i++; i == len(args) {
					ts.Fatalf("kubernetes: %s needs a value", args[i-1])
				}
				return args[i]
			}
			switch args[i] {
			case "-private":
				private = true
			case "-capi":
				version = value()
			case "-as":
				user = value()
			default:
				namespace = args[i]
			}
		}
		if neg {
			ts.Fatalf("unsupported: ! kubernetes")
		}
		tb := scriptTB{t, ts}
		var env *kubetest.Env
		switch {
		case !private:
			env = kubetest.ServerWith(tb, version)
		default:
			env = kubetest.Private(tb)
			if version != "" {
				env.InstallCAPI(tb, version)
			}
		}
		admin := kubetest.WriteKubeconfig(tb, env.Config, namespace)
		if namespace != "default" {
			env.Kubectl(tb, admin, "create", "namespace", namespace)
		}
		ts.Setenv("ADMIN", admin)
		ts.Setenv("KUBECONFIG", admin)
		if user != "" {
			ts.Setenv("KUBECONFIG", kubetest.WriteKubeconfig(tb, env.UserConfig(tb, user), namespace))
		}
	}
}

// scriptTB lets a script use helpers of tests: what fails fails the script, and what is
// to be undone is undone at its end.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (s scriptTB) Helper()                           {}
func (s scriptTB) Cleanup(f func())                  { s.ts.Defer(f) }
func (s scriptTB) Error(args ...any)                 { s.ts.Fatalf("%v", args) }
func (s scriptTB) Errorf(format string, args ...any) { s.ts.Fatalf(format, args...) }
func (s scriptTB) Fatal(args ...any)                 { s.ts.Fatalf("%v", args) }
func (s scriptTB) Fatalf(format string, args ...any) { s.ts.Fatalf(format, args...) }
func (s scriptTB) Log(args ...any)                   { s.ts.Logf("%v", args) }
func (s scriptTB) Logf(format string, args ...any)   { s.ts.Logf(format, args...) }

func (s scriptTB) TempDir() string {
	dir, err := os.MkdirTemp(filepath.Join(s.ts.Getenv("WORK"), ".tmp"), "")
	s.ts.Check(err)
	return dir
}
