package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/ui"
)

// What goes together, and what does not. Nothing is asked of a cluster.
func TestInitFlags(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", ""},
		{"--standalone --dry-run", ""},
		{"--standalone -o json --force-conflicts", ""},
		{"-p x --plunder-secret a/b", ""},
		{"--uninstall --yes --dry-run", ""},
		{"--simulate", "--simulate: simulated machines need no Kubernetes cluster"},
		{"-o table", `-o "table": init knows -o yaml and -o json`},
		{"--plunder-secret a/b", "which with --plunder-config FILE"},
		{"--yes", "--yes goes with --uninstall"},
		{"--uninstall --standalone", "--standalone does not go with --uninstall"},
		{"--uninstall -p x", "--plunder-config does not go with --uninstall"},
		{"--uninstall -o yaml", "--output does not go with --uninstall"},
		{"--uninstall --force-conflicts", "--force-conflicts does not go with --uninstall"},
		{"x", "unknown command"},
	} {
		streams, _, _ := ui.Test("", false)
		f := newFactory(nil, streams, nil)
		root := newRootCmd(f)
		for _, c := range root.Commands() {
			if c.Name() == "init" {
				root.RemoveCommand(c)
			}
		}
		ran := false
		root.AddCommand(newInitCmd(f, func(context.Context, *initOptions) error { ran = true; return nil }))
		root.SetArgs(append([]string{"init"}, strings.Fields(tt.args)...))
		err := root.ExecuteContext(t.Context())
		switch {
		case tt.want == "" && (err != nil || !ran):
			t.Errorf("init %s: %v", tt.args, err)
		case tt.want != "" && (err == nil || ran || !strings.Contains(err.Error(), tt.want) || exitCode(err) != exitUsage):
			t.Errorf("init %s: %v, want %q", tt.args, err, tt.want)
		}
	}
}

// Of file and secret the one counts that was said closer to the command line.
func TestPlunderSecretOrFile(t *testing.T) {
	for _, tt := range []struct {
		env  []string
		args string
		want string // the secret, "" for the file, or "N: part of the error"
	}{
		{nil, "", ""},
		{nil, "--plunder-secret a/b", "a/b"},
		{nil, "--plunder-secret b", "capplunder-system/b"},
		{nil, "-p f", ""},
		{nil, "-p f --plunder-secret a/b", "2: both a secret (flag --plunder-secret) and a file (flag --plunder-config)"},
		{[]string{"CAPPLUNDER_PLUNDER_SECRET=a/b"}, "", "a/b"},
		{[]string{"CAPPLUNDER_PLUNDER_SECRET=a/b"}, "-p f", ""},
		{[]string{"CAPPLUNDER_PLUNDER_CONFIG=f"}, "--plunder-secret a/b", "a/b"},
		{[]string{"CAPPLUNDER_PLUNDER_CONFIG=f", "CAPPLUNDER_PLUNDER_SECRET=a/b"}, "", "2: leave one out"},
		{nil, "--plunder-secret A/b", "2: want NAMESPACE/NAME"},
		{nil, "--plunder-secret a/b/c", "2: want NAMESPACE/NAME"},
		{nil, "--plunder-secret a/", "2: want NAMESPACE/NAME"},
	} {
		streams, _, _ := ui.Test("", false)
		f := newFactory(nil, streams, append(tt.env, "HOME="+t.TempDir()))
		root := newRootCmd(f)
		root.SetArgs(append([]string{"version"}, strings.Fields(tt.args)...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		key, err := f.plunderSecret()
		got := ""
		if err == nil && key != nil {
			got = key.String()
		}
		if _, text, ok := strings.Cut(tt.want, ": "); ok {
			if err == nil || !strings.Contains(err.Error(), text) || exitCode(err) != exitUsage {
				t.Errorf("%v %s: %v, want %q", tt.env, tt.args, err, text)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("%v %s: %q, %v, want %q", tt.env, tt.args, got, err, tt.want)
		}
	}
}
