package kubeconfig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

// recorded is what a cluster has: an admin's, with the names that kubeadm gives.
func recorded(server string) []byte {
	return []byte(`apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster: {server: ` + server + `, certificate-authority-data: Y2E=}
users:
- name: kubernetes-admin
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
contexts:
- name: kubernetes-admin@kubernetes
  context: {cluster: kubernetes, user: kubernetes-admin}
current-context: kubernetes-admin@kubernetes
`)
}

const mine = `apiVersion: v1
kind: Config
clusters:
- name: mgmt
  cluster: {server: "https://mgmt:6443", certificate-authority: ca/mgmt.crt}
users:
- name: ann
  user: {token: secret}
contexts:
- name: mgmt
  context: {cluster: mgmt, user: ann, namespace: prod}
current-context: mgmt
`

func write(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMergeAdds(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "config"), mine, 0o640)
	o := Options{Files: []string{path}}
	res, err := Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{Context: "red-admin@red", Added: []string{`cluster "red"`, `user "red-admin"`, `context "red-admin@red"`}, Files: []string{path}}
	if d := cmp.Diff(want, res); d != "" {
		t.Error(d)
	}
	c, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.CurrentContext != "mgmt" || c.Contexts["mgmt"].Namespace != "prod" || c.AuthInfos["ann"].Token != "secret" {
		t.Errorf("what was there has changed:\n%s", read(t, path))
	}
	if c.Clusters["mgmt"].CertificateAuthority != "ca/mgmt.crt" {
		t.Errorf("a relative path became %q", c.Clusters["mgmt"].CertificateAuthority)
	}
	if c.Clusters["red"].Server != "https://10.0.0.1:6443" || c.Contexts["red-admin@red"].AuthInfo != "red-admin" || string(c.AuthInfos["red-admin"].ClientKeyData) != "key" {
		t.Errorf("the new entries are wrong:\n%s", read(t, path))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v: not kept", info.Mode(), err)
	}

	// Again: nothing is written.
	before := read(t, path)
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	res, err = Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o)
	if err != nil || len(res.Files)+len(res.Added)+len(res.Replaced) > 0 || read(t, path) != before {
		t.Errorf("a second merge: %+v, %v", res, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files were left behind: %v, %v", left, err)
	}
}

func TestMergeNeverReplacesUnasked(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "config"), mine, 0o600)
	o := Options{Files: []string{path}}
	if _, err := Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	_, err := Merge(t.Context(), "red", recorded("https://10.0.0.2:6443"), o)
	var conflict *ConflictError
	if !errors.As(err, &conflict) || len(conflict.Entries) != 1 || !strings.Contains(err.Error(), `cluster "red" in `+path) {
		t.Errorf("error %v", err)
	}
	if read(t, path) != before {
		t.Error("the file was changed")
	}
	o.Overwrite = true
	res, err := Merge(t.Context(), "red", recorded("https://10.0.0.2:6443"), o)
	if err != nil || len(res.Replaced) != 1 || len(res.Added) != 0 || !strings.Contains(read(t, path), "10.0.0.2") || strings.Contains(read(t, path), "10.0.0.1") {
		t.Errorf("--overwrite: %+v, %v", res, err)
	}
}

func TestMergeUsesContext(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "config"), mine, 0o600)
	o := Options{Files: []string{path}, UseContext: true}
	for range 2 {
		if _, err := Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o); err != nil {
			t.Fatal(err)
		}
		if c, err := clientcmd.LoadFromFile(path); err != nil || c.CurrentContext != "red-admin@red" {
			t.Errorf("%v\n%s", err, read(t, path))
		}
	}
}

func TestMergeIntoSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	missing, there := filepath.Join(dir, "missing"), write(t, filepath.Join(dir, "there"), mine, 0o600)
	o := Options{Files: []string{missing, there, filepath.Join(dir, "last")}}
	res, err := Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o)
	if err != nil || len(res.Files) != 1 || res.Files[0] != there {
		t.Errorf("%+v, %v; want %s alone", res, err, there)
	}
	o.Files = []string{missing, filepath.Join(dir, "deep", "config")}
	res, err = Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), o)
	if err != nil || len(res.Files) != 1 || res.Files[0] != o.Files[1] {
		t.Errorf("%+v, %v; want %s alone", res, err, o.Files[1])
	}
	if info, err := os.Stat(o.Files[1]); err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("a new file: %v, %v", info, err)
	}
}

func TestMergeKeepsSymbolicLinks(t *testing.T) {
	dir := t.TempDir()
	target := write(t, filepath.Join(dir, "dotfiles", "config"), mine, 0o600)
	link := filepath.Join(dir, "config")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(t.Context(), "red", recorded("https://10.0.0.1:6443"), Options{Files: []string{link}}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if !strings.Contains(read(t, target), "red-admin@red") {
		t.Error("its target was not changed")
	}
}

// Many at once: no entry is lost.
func TestMergeAtOnce(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "config"), mine, 0o600)
	names := []string{"a", "b", "c", "d", "e", "f"}
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() {
			if _, err := Merge(t.Context(), n, recorded("https://"+n), Options{Files: []string{path}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := clientcmd.LoadFromFile(path)
	if err != nil || len(c.Contexts) != len(names)+1 {
		t.Errorf("%v\n%s", err, read(t, path))
	}
}

func TestMergeRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		data, file string
		want       string
	}{
		"no kubeconfig":     {"key: [", mine, "no kubeconfig"},
		"nothing in it":     {"kind: Config\napiVersion: v1\n", mine, "no current context"},
		"a program":         {strings.Replace(string(recorded("https://x")), "client-key-data: a2V5", "exec: {command: rm, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}", 1), mine, "runs a program"},
		"a file":            {strings.Replace(string(recorded("https://x")), "certificate-authority-data: Y2E=", "certificate-authority: /etc/ca", 1), mine, "refers to files"},
		"my file is broken": {string(recorded("https://x")), "clusters: [", "kubeconfig "},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "config"), tt.file, 0o600)
			_, err := Merge(t.Context(), "red", []byte(tt.data), Options{Files: []string{path}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "a2V5") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if read(t, path) != tt.file {
				t.Error("the file was changed")
			}
		})
	}
}

func TestMergeWaitsForTheLockUnderAContext(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "config"), mine, 0o600)
	write(t, path+".lock", "", 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Merge(ctx, "red", recorded("https://x"), Options{Files: []string{path}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Error("another program's lock was removed")
	}
}

func TestFiles(t *testing.T) {
	list := func(paths ...string) string { return strings.Join(paths, string(filepath.ListSeparator)) }
	for name, tt := range map[string]struct {
		explicit string
		env      map[string]string
		want     []string
	}{
		"home":     {"", map[string]string{"HOME": "/h"}, []string{"/h/.kube/config"}},
		"variable": {"", map[string]string{"HOME": "/h", "KUBECONFIG": list("", "/a", "/b", "/a")}, []string{"/a", "/b"}},
		"flag":     {"/x", map[string]string{"HOME": "/h", "KUBECONFIG": "/a"}, []string{"/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Files(tt.explicit, func(k string) string { return tt.env[k] })
			if err != nil || !cmp.Equal(got, tt.want) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
	if _, err := Files("", func(string) string { return "" }); err == nil {
		t.Error("no home is no error")
	}
}
