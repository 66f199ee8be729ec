package cli

import (
	"strings"
	"testing"
)

func TestMistypedCommandLines(t *testing.T) {
	tests := []struct {
		args string
		want string // in stderr
	}{
		{"aply", `unknown command "aply" for "capplunder"; did you mean "apply"?`},
		{"aply -f examples", `unknown command "aply" for "capplunder"; did you mean "apply"?`},
		{"get mashines", `unknown command "mashines" for "capplunder get"; did you mean "machines"?`},
		{"get boxes", `unknown command "boxes" for "capplunder get"`},
		{"delete mashine x", `unknown command "mashine" for "capplunder delete"; did you mean "machine"?`},
		{"completion tcsh", `unknown command "tcsh" for "capplunder completion"`},
		{"apply --tiemout 3s", `unknown flag --tiemout; did you mean "--timeout"?`},
		{"apply --xyz", "unknown flag --xyz\n"},
		{"apply -f x.yaml -Z", "unknown shorthand flag: 'Z'"},
		{"apply -f", "flag needs an argument: 'f' in -f"},
		{"apply", "nothing to apply: give -f PATH or -k DIRECTORY, or,"},
		{"apply x.yaml", `unexpected argument "x.yaml": manifests are given with -f`},
		{"apply machine", "machine: which one?"},
		{"apply machine x -f y.yaml", `"machine NAME" and -f or -k do not go together`},
		{"apply --cluster x --all", "--cluster and --all do not go together"},
		{"apply --cluster x -k y", "--cluster and -f or -k do not go together"},
		{"apply --cluster x -A", "--all-namespaces goes with --all"},
		{"apply -f x.yaml -A", "--all-namespaces goes with --all"},
		{"apply --all -A -n x", "--namespace and --all-namespaces do not go together"},
		{"apply --all --force-conflicts", "--force-conflicts is for manifests (-f, -k); --all writes no fields of others"},
		{"apply --all --lock-timeout -1s", "--lock-timeout -1s: must be more than 0"},
		{"apply -f x.yaml --timeout soon", `invalid argument "soon" for "--timeout"`},
		{"apply -f x.yaml --os-timeout 0", "--os-timeout 0s: must be more than 0"},
		{"apply -f x.yaml --timeout -1s", "--timeout -1s: must be more than 0"},
		{"apply -f x.yaml --concurrency 0", "--concurrency 0: must be 1 or more"},
		{"apply -f x.yaml -o yaml", "-o yaml: apply knows -o table, wide, name, json"},
		{"apply -f x.yaml -o csv", `-o "csv": unknown format; use table,`},
		{"apply -f x.yaml -o json=x", `-o "json=x": unknown format`},
		{"apply -f nowhere.yaml", "nowhere.yaml"},
		{"get machines -o jsonpath", "-o jsonpath needs a template"},
		{"get machines -o jsonpath={.items", "-o jsonpath: unclosed action"},
		{"get machines --store tape", `--store "tape": unknown store; use auto, kubernetes or local`},
		{"get unleased x", `unknown command "x" for "capplunder get unleased"`},
		{"delete machine", "requires at least 1 arg(s)"},
		{"version x", "unknown command"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := run(t, nil, strings.Fields(tt.args)...)
			if code != exitUsage {
				t.Errorf("exit %d, want %d", code, exitUsage)
			}
			if stdout != "" {
				t.Errorf("stdout: %q", stdout)
			}
			if !strings.Contains(stderr, tt.want) || !strings.HasPrefix(stderr, "error: ") {
				t.Errorf("stderr %q, want %q", stderr, tt.want)
			}
		})
	}
}

func TestNoArgumentsIsHelp(t *testing.T) {
	for _, args := range []string{"", "get", "delete", "config", "completion", "help", "help apply", "apply --help"} {
		t.Run(args, func(t *testing.T) {
			code, stdout, stderr := run(t, nil, strings.Fields(args)...)
			if code != exitDone || !strings.Contains(stdout, "Usage:") || stderr != "" {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

func TestCommandLineCanBeTypedAgain(t *testing.T) {
	f := newFactory([]string{"apply", "-f", "my file.yaml", "--simulate", "it's"}, nil, nil)
	if got, want := f.commandLine(), `capplunder apply -f 'my file.yaml' --simulate 'it'\''s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
