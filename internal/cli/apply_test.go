package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/internal/ui"
)

// What flags and arguments of apply mean.
func TestApplyFlags(t *testing.T) {
	type meaning struct {
		Files, Machines                        []string
		Kustomize, Cluster, Namespace          string
		All, AllNamespaces, Force, OnlySystems bool
		Lock                                   time.Duration
	}
	for args, want := range map[string]meaning{
		"-f a -f b -R --skip-kubernetes":          {Files: []string{"a", "b"}, OnlySystems: true},
		"-k dir --force-conflicts":                {Kustomize: "dir", Force: true},
		"-f a -k dir":                             {Files: []string{"a"}, Kustomize: "dir"},
		"--cluster red -n prod --lock-timeout 5m": {Cluster: "red", Namespace: "prod", Lock: 5 * time.Minute},
		"--all":                            {All: true},
		"--all -A":                         {All: true, AllNamespaces: true},
		"machine worker":                   {Machines: []string{"worker"}},
		"machines a prod/b machine/a -n x": {Machines: []string{"a", "prod/b"}, Namespace: "x"},
		"machine/a machine/b --lock-timeout 100ms": {Machines: []string{"a", "b"}, Lock: 100 * time.Millisecond},
		"ma a": {Machines: []string{"a"}},
	} {
		t.Run(args, func(t *testing.T) {
			f := newFactory(nil, first(ui.Test("", false)), nil)
			var got meaning
			cmd := newApplyCmd(f, func(_ context.Context, o *applyOptions) error {
				got = meaning{
					o.filenames, o.machines, o.kustomize, o.cluster, o.namespace,
					o.allClusters, o.all, o.forceConflicts, o.skipKubernetes, o.lock,
				}
				return nil
			})
			cmd.SetArgs(strings.Fields(args))
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// The engine gets what was asked for.
func TestLimitsReachTheEngine(t *testing.T) {
	f := newFactory([]string{"apply", "--all"}, first(ui.Test("", false)), nil)
	o := f.engineOptions(limits{lock: time.Minute, concurrency: 3})
	if o.LockTimeout != time.Minute || o.Concurrency != 3 || o.Resume != "capplunder apply --all" {
		t.Errorf("%+v", o)
	}
}

// Commands to go on with are about the same cluster, and init gets no flags of others.
func TestNextCommandsNameTheCluster(t *testing.T) {
	streams, _, errOut := ui.Test("", false)
	f := newFactory(strings.Fields("get machines --kubeconfig k --context c --url https://x -p file"), streams, nil)
	cmd := newRootCmd(f)
	machines, _, err := cmd.Find([]string{"get", "machines"})
	if err != nil {
		t.Fatal(err)
	}
	if err := machines.ParseFlags(f.args[2:]); err != nil {
		t.Fatal(err)
	}
	if err := f.setUp(machines); err != nil {
		t.Fatal(err)
	}
	err = &notConfirmedError{message: "no"}
	for _, next := range []string{
		"kubectl get nodes",
		"capplunder delete machine a -p file --url=https://x    # again",
		"capplunder delete cluster c -n default    # with all its machines",
		"capplunder init", "capplunder get machines -A",
	} {
		err = nextError{err, next}
	}
	f.printError(err)
	want := `error: no
next: capplunder get machines -A --plunder-config file --url https://x --context c --kubeconfig k
next: capplunder init --context c --kubeconfig k
next: capplunder delete cluster c -n default --plunder-config file --url https://x --context c --kubeconfig k    # with all its machines
next: capplunder delete machine a -p file --url=https://x --context c --kubeconfig k    # again
next: kubectl get nodes
`
	if d := cmp.Diff(want, errOut.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
