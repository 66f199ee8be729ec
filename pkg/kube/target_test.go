package kube

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kubeconfig is one with a context per name, "<name>" being a cluster https://<name>.example:6443.
func kubeconfig(current string, names ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Config\ncurrent-context: \"" + current + "\"\n")
	section := func(title string, of func(name string) string) {
		b.WriteString(title + ":\n")
		for _, n := range names {
			b.WriteString(of(n))
		}
	}
	section("clusters", func(n string) string {
		return "- {name: " + n + ", cluster: {server: \"https://" + n + ".example:6443\"}}\n"
	})
	section("users", func(n string) string {
		return "- {name: " + n + ", user: {token: s3cr3t-" + n + "}}\n"
	})
	section("contexts", func(n string) string {
		return "- {name: " + n + ", context: {cluster: " + n + ", user: " + n + ", namespace: ns-" + n + "}}\n"
	})
	return b.String()
}

func TestFind(t *testing.T) {
	inPod := map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
	account := map[string]string{"pod/token": "s3cr3t-pod\n", "pod/namespace": "ns-pod\n"}
	const home = "home/.kube/config"

	for _, tc := range []struct {
		name  string
		files map[string]string
		env   map[string]string // DIR is the directory of files
		opts  Options
		want  string // "<server> <namespace> <String's part in parentheses>"
		err   string // part of it
		none  bool   // the error is ErrNoConfig
	}{
		{name: "nothing", err: "no kubeconfig found: ~/.kube/config does not exist", none: true},
		{name: "no home", env: map[string]string{"HOME": ""}, err: "no kubeconfig found: HOME is not set", none: true},
		{
			name: "home", files: map[string]string{home: kubeconfig("a", "a", "b")},
			want: "https://a.example:6443 ns-a context a of ~/.kube/config",
		},
		{
			name: "another context", files: map[string]string{home: kubeconfig("a", "a", "b")}, opts: Options{Context: "b"},
			want: "https://b.example:6443 ns-b context b of ~/.kube/config",
		},
		{
			name: "another namespace", files: map[string]string{home: kubeconfig("a", "a")}, opts: Options{Namespace: "other"},
			want: "https://a.example:6443 other context a of ~/.kube/config",
		},
		{
			name: "no namespace", files: map[string]string{home: strings.ReplaceAll(kubeconfig("a", "a"), ", namespace: ns-a", "")},
			want: "https://a.example:6443 default context a of ~/.kube/config",
		},
		{
			name: "a namespace that can't be", files: map[string]string{home: kubeconfig("a", "a")}, opts: Options{Namespace: "Other_"},
			err: `namespace "Other_"`,
		},
		{
			name: "a context that is not there", files: map[string]string{home: kubeconfig("a", "b", "a")}, opts: Options{Context: "c"},
			err: `~/.kube/config has no context "c" (it has a, b)`,
		},
		{name: "a context without any file", opts: Options{Context: "c"}, err: `context "c": no kubeconfig has it`},
		{
			name: "a context without any file, in a pod", opts: Options{Context: "c"}, env: inPod, files: account,
			err: `context "c": no kubeconfig has it`,
		},
		{
			name: "no current context", files: map[string]string{home: kubeconfig("", "b", "a")},
			err: "has no current context: choose one with --context or `kubectl config use-context` (it has a, b)",
		},
		{
			name: "clusters but no contexts", files: map[string]string{home: "clusters:\n- {name: a, cluster: {server: https://a}}\n"},
			err: "has no current context",
		},
		{
			name: "the current context was deleted", files: map[string]string{home: "current-context: gone\n"},
			err: `has no context "gone" (it has none)`,
		},
		{name: "an empty file", files: map[string]string{home: ""}, err: "no kubeconfig found: ~/.kube/config names no cluster", none: true},
		{
			name: "what kubectl config unset leaves", none: true, err: "names no cluster",
			files: map[string]string{home: "apiVersion: v1\nclusters: []\ncontexts: []\ncurrent-context: \"\"\nkind: Config\nusers: null\n"},
		},
		{
			name: "broken", files: map[string]string{home: "users: [{name: a, user: {token: s3cr3t}}\nclusters: {"},
			err: "~/.kube/config",
		},
		{
			name: "another type", files: map[string]string{home: "users: s3cr3t\n"},
			err: "~/.kube/config",
		},
		{
			name: "a cluster without a server", files: map[string]string{home: strings.ReplaceAll(kubeconfig("a", "a"), `server: "https://a.example:6443"`, "")},
			err: `context a of ~/.kube/config: its cluster "a" has no server`,
		},
		{
			name: "a context whose cluster is gone", files: map[string]string{home: strings.ReplaceAll(kubeconfig("a", "a"), "cluster: a", "cluster: gone")},
			err: `its cluster "gone" has no server`,
		},
		{
			name: "a context whose user is gone", files: map[string]string{home: strings.ReplaceAll(kubeconfig("a", "a"), "user: a", "user: gone")},
			err: `context a of ~/.kube/config: its user "gone" is not there`,
		},
		{
			name: "credentials in the URL", files: map[string]string{home: strings.ReplaceAll(kubeconfig("a", "a"), "https://a", "https://me:s3cr3t@a")},
			want: "https://a.example:6443 ns-a context a of ~/.kube/config",
		},

		{
			name: "--kubeconfig", files: map[string]string{home: kubeconfig("a", "a"), "mine": kubeconfig("b", "b")},
			opts: Options{Kubeconfig: "DIR/mine"}, env: map[string]string{"KUBECONFIG": "DIR/none"},
			want: "https://b.example:6443 ns-b context b of DIR/mine",
		},
		{
			name: "--kubeconfig missing", files: map[string]string{home: kubeconfig("a", "a")}, opts: Options{Kubeconfig: "DIR/mine"},
			err: "kubeconfig DIR/mine: the file does not exist",
		},
		{name: "--kubeconfig empty", files: map[string]string{"mine": ""}, opts: Options{Kubeconfig: "DIR/mine"}, err: "kubeconfig DIR/mine names no cluster"},
		{
			name: "--kubeconfig empty, in a pod", files: map[string]string{"mine": "", "pod/token": "x"}, opts: Options{Kubeconfig: "DIR/mine"}, env: inPod,
			err: "kubeconfig DIR/mine names no cluster",
		},
		{name: "--kubeconfig is a directory", files: map[string]string{"mine/x": ""}, opts: Options{Kubeconfig: "DIR/mine"}, err: "DIR/mine"},

		{
			name: "KUBECONFIG", files: map[string]string{home: kubeconfig("a", "a"), "1": kubeconfig("", "b"), "2": kubeconfig("c", "c")},
			env:  map[string]string{"KUBECONFIG": "DIR/1:DIR/2:DIR/none"},
			want: "https://c.example:6443 ns-c context c of DIR/2",
		},
		{
			name: "KUBECONFIG missing", files: map[string]string{home: kubeconfig("a", "a")}, env: map[string]string{"KUBECONFIG": "DIR/none"},
			err: "KUBECONFIG DIR/none: no such file",
		},
		{name: "KUBECONFIG empty", files: map[string]string{"1": ""}, env: map[string]string{"KUBECONFIG": "DIR/1"}, err: "KUBECONFIG DIR/1 names no cluster"},
		{
			name: "KUBECONFIG of which one is broken", files: map[string]string{"1": kubeconfig("a", "a"), "2": "{{"},
			env: map[string]string{"KUBECONFIG": "DIR/1:DIR/2"}, err: "DIR/2",
		},
		{name: "KUBECONFIG of nothing", env: map[string]string{"KUBECONFIG": ":"}, err: "KUBECONFIG : names no cluster"},

		{name: "in a pod", files: account, env: inPod, want: "https://10.96.0.1:443 ns-pod in cluster"},
		{
			name: "in a pod that says its namespace", files: account, want: "https://10.96.0.1:443 said in cluster",
			env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "POD_NAMESPACE": "said"},
		},
		{name: "in a pod without a service account", env: inPod, err: "no kubeconfig found", none: true},
		{name: "in a pod with an empty file", files: map[string]string{home: "", "pod/token": "x"}, env: inPod, want: "https://10.96.0.1:443 default in cluster"},
		{
			name: "in a pod with a file", files: map[string]string{home: kubeconfig("a", "a"), "pod/token": "x"}, env: inPod,
			want: "https://a.example:6443 ns-a context a of ~/.kube/config",
		},
		{name: "in a pod with a broken file", files: map[string]string{home: "{{", "pod/token": "x"}, env: inPod, err: "~/.kube/config"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			in := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
			for name, content := range tc.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := tc.opts
			o.Kubeconfig = in(o.Kubeconfig)
			o.UserAgent = "test"
			o.Getenv = func(key string) string {
				if v, ok := tc.env[key]; ok || key != "HOME" {
					return in(v)
				}
				return filepath.Join(dir, "home")
			}
			target, err := find(o, filepath.Join(dir, "pod"))
			if tc.err == "" && err != nil {
				t.Fatal(err)
			}
			if tc.err != "" {
				switch {
				case err == nil:
					t.Fatalf("found %s, want an error with %q", target, tc.err)
				case !strings.Contains(err.Error(), in(tc.err)):
					t.Errorf("error %q lacks %q", err, in(tc.err))
				case strings.Contains(err.Error(), "s3cr3t"):
					t.Errorf("error %q tells a secret", err)
				case errors.Is(err, ErrNoConfig) != tc.none:
					t.Errorf("error %q is ErrNoConfig: %t, want %t", err, !tc.none, tc.none)
				}
				return
			}
			server, about, _ := strings.Cut(strings.TrimPrefix(target.String(), "cluster "), " (")
			if got := server + " " + target.Namespace + " " + strings.TrimSuffix(about, ")"); got != in(tc.want) {
				t.Errorf("found %q, want %q", got, in(tc.want))
			}
			if target.Config.UserAgent != "test" || target.Config.Timeout != requestTimeout || target.Config.QPS != -1 || target.Config.WarningHandler == nil {
				t.Errorf("configuration: %+v", target.Config)
			}
		})
	}
}

func TestFindInPodHasCredentials(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("s3cr3t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	target, err := find(Options{Getenv: func(k string) string { return env[k] }}, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := target.Config
	if c.Host != "https://[fd00::1]:443" || c.BearerToken != "s3cr3t" || c.BearerTokenFile != filepath.Join(dir, "token") || c.CAFile != filepath.Join(dir, "ca.crt") {
		t.Errorf("host %s, token file %s, CA %s", c.Host, c.BearerTokenFile, c.CAFile)
	}
}
