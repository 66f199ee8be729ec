package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

const adminOfRed = `apiVersion: v1
kind: Config
clusters: [{name: kubernetes, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: admin, user: {token: hunter2}}]
contexts: [{name: x, context: {cluster: kubernetes, user: admin}}]
current-context: x
`

func TestGetKubeconfig(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, "state")
	local, err := state.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := local.SaveKubeconfig(t.Context(), capi.Key{Namespace: "default", Name: "red"}, []byte(adminOfRed)); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(home, ".kube", "config")
	get := func(args string) (int, string, string) {
		return run(t, []string{"HOME=" + home, "CAPPLUNDER_STATE_DIR=" + dir}, strings.Fields("get kubeconfig "+args)...)
	}
	expect := func(args string, wantCode int, wantOut, wantErr string) {
		t.Helper()
		code, out, errOut := get(args)
		if code != wantCode || !strings.Contains(out, wantOut) || wantOut == "" && out != "" || !strings.Contains(errOut, wantErr) {
			t.Errorf("%s: exit %d, stdout:\n%s\nstderr:\n%s", args, code, out, errOut)
		}
		if strings.Contains(errOut, "hunter2") {
			t.Errorf("%s: a secret is on stderr:\n%s", args, errOut)
		}
	}

	expect("red", 0, adminOfRed, "")
	expect("default/red -o json", 0, `"current-context":"x"`, "")
	expect("blue", exitUsage, "", "error: no kubeconfig is recorded for Cluster default/blue in local store")
	expect("red -n prod", exitUsage, "", "for Cluster prod/red in")
	expect("red -o table", exitUsage, "", "-o table: get kubeconfig knows -o yaml, json")
	expect("red --overwrite", exitUsage, "", "--overwrite goes with --merge")
	expect("red --use-context", exitUsage, "", "--use-context goes with --merge")
	expect("red --merge -o yaml", exitUsage, "", "-o and --merge do not go together")
	expect("", exitUsage, "", "accepts 1 arg(s)")

	if _, err := os.Stat(mine); err == nil {
		t.Fatal("a kubeconfig was written without being asked for")
	}
	expect("red --merge", 0, "context/red-admin@red added\n", `added cluster "red", user "red-admin", context "red-admin@red" in `+mine)
	expect("red --merge", 0, "context/red-admin@red unchanged\n", "")

	// From now on there is a kubeconfig, which --store auto would go by.
	if err := os.MkdirAll(filepath.Join(home, "capplunder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(home, "capplunder", "state")); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := run(t, []string{"HOME=" + t.TempDir(), "XDG_STATE_HOME=" + home}, "get", "kubeconfig", "red", "--merge")
	if want := "warning: your kubeconfig names a cluster now, so --store auto no longer means the local store"; code != 0 || !strings.Contains(stderr, want) {
		t.Errorf("exit %d, %s; want %q", code, stderr, want)
	}

	// The cluster was made anew.
	if err := local.SaveKubeconfig(t.Context(), capi.Key{Namespace: "default", Name: "red"}, []byte(strings.Replace(adminOfRed, "10.0.0.1", "10.0.0.2", 1))); err != nil {
		t.Fatal(err)
	}
	expect("red --merge", exitRefused, "", "next: capplunder get kubeconfig red --merge --overwrite\n")
	expect("red --merge --overwrite --use-context", 0, "context/red-admin@red replaced\n", `replaced cluster "red" in `)
	data, err := os.ReadFile(mine)
	if err != nil || !strings.Contains(string(data), "10.0.0.2") || !strings.Contains(string(data), "current-context: red-admin@red") {
		t.Errorf("%v\n%s", err, data)
	}
}
