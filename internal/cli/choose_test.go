package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/ui"
)

const kubeconfigOfNobody = `apiVersion: v1
kind: Config
clusters: [{name: mgmt, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: ann, user: {}}]
contexts: [{name: mgmt, context: {cluster: mgmt, user: ann, namespace: prod}}, {name: other, context: {cluster: mgmt, user: ann}}]
current-context: mgmt
`

// Which store is chosen, of what flags, environment and files.
func TestChooseStore(t *testing.T) {
	const local, cluster = "local", "cluster https://127.0.0.1:1"
	tests := []struct {
		name string
		home string // content of ~/.kube/config, "" for none
		env  []string
		args string
		want string // local, the beginning of a cluster's description, or "N: part of the error"
	}{
		{"nothing", "", nil, "", local},
		{"a kubeconfig", kubeconfigOfNobody, nil, "", cluster + " (context mgmt"},
		{"by name", kubeconfigOfNobody, nil, "--store kubernetes --context other", cluster + " (context other"},
		{"local in spite of it", kubeconfigOfNobody, nil, "--store local", local},
		{"local by environment", kubeconfigOfNobody, []string{"CAPPLUNDER_STORE=local"}, "", local},
		{"a state directory", kubeconfigOfNobody, nil, "--state-dir d", local},
		{"a state directory by environment", kubeconfigOfNobody, []string{"CAPPLUNDER_STATE_DIR=d"}, "", local},
		{"the cluster, whatever the state directory of others", kubeconfigOfNobody, []string{"CAPPLUNDER_STATE_DIR=d"}, "--store kubernetes", cluster},
		{"simulated", kubeconfigOfNobody, nil, "--simulate", local},
		{"simulated and broken", "clusters: [", nil, "--simulate", local},
		{"local and broken", "clusters: [", nil, "--store local", local},
		{"empty", " ", nil, "", local},
		{"what is left when all was removed", "apiVersion: v1\nkind: Config\nclusters: []\n", nil, "", local},

		{"tape", "", nil, "--store tape", `2: unknown store; use auto, kubernetes or local`},
		{"simulated in a cluster", kubeconfigOfNobody, nil, "--simulate --store kubernetes", "2: simulated machines are never recorded in a cluster"},
		{"state directory of a cluster", kubeconfigOfNobody, nil, "--store kubernetes --state-dir d", "2: --state-dir is where the local store is"},
		{"both", kubeconfigOfNobody, nil, "--state-dir d --context mgmt", "2: both a state directory (flag --state-dir) and a cluster"},
		{"no cluster", "", nil, "--store kubernetes", "4: no kubeconfig found"},
		{"broken", "clusters: [", nil, "", "4: .kube/config"},
		{"without a current context", strings.Replace(kubeconfigOfNobody, "current-context: mgmt", "", 1), nil, "", "4: has no current context"},
		{"missing file", kubeconfigOfNobody, nil, "--kubeconfig nowhere", "4: nowhere: the file does not exist"},
		{"missing file by environment", kubeconfigOfNobody, []string{"KUBECONFIG=nowhere"}, "", "4: KUBECONFIG nowhere"},
		{"unknown context", kubeconfigOfNobody, nil, "--context x", `4: has no context "x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			if tt.home != "" {
				writeFile(t, home, ".kube/config", tt.home)
			}
			f := factoryFor(t, append([]string{"HOME=" + home}, tt.env...), strings.Fields("apply -f x "+tt.args)...)
			target, err := f.chooseStore()
			switch {
			case err != nil:
				code, text, _ := strings.Cut(tt.want, ": ")
				if code != string(rune('0'+exitCode(err))) || !strings.Contains(err.Error(), text) {
					t.Errorf("exit %d, %v; want %s", exitCode(err), err, tt.want)
				}
			case target == nil:
				if tt.want != local {
					t.Errorf("local, want %s", tt.want)
				}
			default:
				if !strings.HasPrefix(target.String(), tt.want) {
					t.Errorf("%s, want %s", target, tt.want)
				}
			}
		})
	}
}

// factoryFor is the factory of a command line, set up and not run.
func factoryFor(t *testing.T, env []string, args ...string) *factory {
	t.Helper()
	f := newFactory(args, first(ui.Test("", false)), env)
	root := newRootCmd(f)
	for _, c := range root.Commands() {
		if c.Name() == "apply" {
			root.RemoveCommand(c)
		}
	}
	root.AddCommand(newApplyCmd(f, func(context.Context, *applyOptions) error { return nil }))
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// A cluster that is meant and does not answer is no reason to record elsewhere.
func TestClusterThatDoesNotAnswer(t *testing.T) {
	home := t.TempDir()
	writeFile(t, home, ".kube/config", strings.ReplaceAll(kubeconfigOfNobody, "127.0.0.1:1", closedPort(t)))
	for _, tt := range []struct{ args, next string }{
		{"get machines", "next: capplunder get machines\nnext: capplunder get machines --store local    # machines that are recorded in the cluster are unknown there\n"},
		{"get machines --store kubernetes", "next: capplunder get machines --store kubernetes\n"},
	} {
		code, stdout, stderr := run(t, []string{"HOME=" + home}, strings.Fields(tt.args)...)
		if code != exitStore || stdout != "" || !strings.Contains(stderr, "(context mgmt of ~/.kube/config)") || !strings.HasSuffix(stderr, tt.next) {
			t.Errorf("%s: exit %d, stdout %q, stderr:\n%s", tt.args, code, stdout, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(home, ".local")); err == nil {
		t.Error("something was recorded")
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Help and the configuration need no cluster, and completion is silent about one.
func TestClusterIsNotAskedForHelp(t *testing.T) {
	home := t.TempDir()
	writeFile(t, home, ".kube/config", strings.ReplaceAll(kubeconfigOfNobody, "127.0.0.1:1", closedPort(t)))
	for _, args := range []string{"apply --help", "get machines --help", "config view", "version"} {
		if code, _, stderr := run(t, []string{"HOME=" + home}, strings.Fields(args)...); code != 0 || stderr != "" {
			t.Errorf("%s: exit %d, stderr %q", args, code, stderr)
		}
	}
	code, stdout, stderr := run(t, []string{"HOME=" + home}, "__complete", "delete", "machine", "")
	if code != 0 || stdout != ":4\n" || strings.Contains(stderr, "cluster") {
		t.Errorf("completion: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// The choice is told once, unless nobody wants to know.
func TestChoiceIsTold(t *testing.T) {
	for args, want := range map[string]bool{"get machines": true, "get machines --quiet": false, "get machines --simulate": false} {
		if _, _, stderr := run(t, nil, strings.Fields(args)...); strings.Contains(stderr, "using local store /") != want {
			t.Errorf("%s: %q", args, stderr)
		}
	}
}

// What is taken from a cluster is not in the local store, and nothing is its owner.
func TestLocalStoreHasNoManifests(t *testing.T) {
	for args, want := range map[string]string{
		"apply --cluster red":                              "--cluster takes manifests from a Kubernetes cluster, and this run uses local store /",
		"apply --all":                                      "--all takes manifests from",
		"apply machine worker --simulate":                  `"machine NAME" takes manifests from`,
		"apply -f ../../examples/simple --force-conflicts": "--force-conflicts is for manifests that are applied to a Kubernetes cluster",
	} {
		code, _, stderr := run(t, nil, strings.Fields(args)...)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
		if strings.Contains(args, "machine worker") && !strings.Contains(stderr, "next: capplunder apply -f PATH --simulate\n") {
			t.Errorf("%s: no next command:\n%s", args, stderr)
		}
	}
}
