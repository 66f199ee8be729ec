package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/internal/ui"
)

// run runs one command line as a process would, off a terminal.
func run(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	streams, out, errOut := ui.Test("", false)
	code = Run(t.Context(), args, streams, append([]string{"HOME=" + t.TempDir()}, env...))
	return code, out.String(), errOut.String()
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, dir, "capplunder/config.yaml", "os-timeout: 20m\nkubernetes-timeout: 21m\ntimeout: 22m\n")
	f := newFactory(nil, first(ui.Test("", false)), []string{
		"XDG_CONFIG_HOME=" + dir,
		"CAPPLUNDER_KUBERNETES_TIMEOUT=31m", "CAPPLUNDER_TIMEOUT=32m",
	})
	root := newRootCmd(f)
	var got *applyOptions
	for _, c := range root.Commands() {
		if c.Name() == "apply" {
			root.RemoveCommand(c)
		}
	}
	root.AddCommand(newApplyCmd(f, func(_ context.Context, o *applyOptions) error { got = o; return nil }))
	root.SetArgs([]string{"apply", "-f", "x.yaml", "--timeout", "42m"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		value  time.Duration
		want   time.Duration
		source string
	}{
		{"hardware-timeout", got.hardware, 10 * time.Minute, "default"},
		{"os-timeout", got.os, 20 * time.Minute, file},
		{"kubernetes-timeout", got.kubernetes, 31 * time.Minute, "CAPPLUNDER_KUBERNETES_TIMEOUT"},
		{"timeout", got.timeout, 42 * time.Minute, "flag --timeout"},
	} {
		if tt.value != tt.want {
			t.Errorf("%s = %s, want %s", tt.name, tt.value, tt.want)
		}
		for _, s := range f.settings {
			if s.Name == tt.name && s.Source != tt.source {
				t.Errorf("%s comes from %q, want %q", tt.name, s.Source, tt.source)
			}
		}
	}
}

func first[A, B, C any](a A, _ B, _ C) A { return a }

func TestConfigurationMistakes(t *testing.T) {
	dir := t.TempDir()
	unknown := writeFile(t, dir, "unknown.yaml", "os-timeot: 20m\nyes: true\n")
	invalid := writeFile(t, dir, "invalid.yaml", "os-timeout: soon\n")
	broken := writeFile(t, dir, "broken.yaml", "os-timeout: [\n")
	tests := []struct {
		name string
		env  []string
		args []string
		want []string // in stderr
	}{
		{"unknown settings", nil, []string{"--config", unknown}, []string{`unknown setting "os-timeot"; did you mean "os-timeout"?`, `unknown setting "yes"`, "next: capplunder config view"}},
		{"invalid value in the file", nil, []string{"--config", invalid}, []string{invalid + `: os-timeout: invalid value "soon"`}},
		{"invalid value in the environment", []string{"CAPPLUNDER_CONCURRENCY=many"}, nil, []string{`CAPPLUNDER_CONCURRENCY: concurrency: invalid value "many"`}},
		{"broken file", nil, []string{"--config", broken}, []string{"configuration file " + broken}},
		{"missing file", nil, []string{"--config", "nowhere.yaml"}, []string{"--config: stat nowhere.yaml"}},
		{"missing file by environment", []string{"CAPPLUNDER_CONFIG=nowhere.yaml"}, nil, []string{"CAPPLUNDER_CONFIG: stat nowhere.yaml"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := run(t, tt.env, append([]string{"config", "view"}, tt.args...)...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, stdout %q; want exit %d and nothing", code, stdout, exitUsage)
			}
			for _, w := range tt.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("%q is not in:\n%s", w, stderr)
				}
			}
		})
	}
}

func TestUnknownVariableIsTold(t *testing.T) {
	code, _, stderr := run(t, []string{"CAPPLUNDER_OS_TIMEOT=1m"}, "config", "view")
	if want := `CAPPLUNDER_OS_TIMEOT is unknown and was ignored; did you mean "CAPPLUNDER_OS_TIMEOUT"?`; code != 0 || !strings.Contains(stderr, want) {
		t.Errorf("exit %d, stderr %q; want %q", code, stderr, want)
	}
}

// Every setting is a flag of some command, with the same default.
func TestSettingsAreFlags(t *testing.T) {
	flags := map[string]*pflag.Flag{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, fs := range []*pflag.FlagSet{c.LocalFlags(), c.PersistentFlags()} {
			fs.VisitAll(func(fl *pflag.Flag) { flags[fl.Name] = fl })
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd(newFactory(nil, first(ui.Test("", false)), nil)))
	settingFlags().VisitAll(func(s *pflag.Flag) {
		switch fl := flags[s.Name]; {
		case fl == nil:
			t.Errorf("no command has --%s", s.Name)
		case fl.DefValue != s.DefValue:
			t.Errorf("--%s: default %q of the command, %q in the settings", s.Name, fl.DefValue, s.DefValue)
		}
	})
}
