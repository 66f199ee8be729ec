package cli

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// deletionCommand makes the command that args begin with; what its flags mean is put
// into the result when it runs.
type deletionMeaning struct {
	Names, Files, Clusters []string
	All, AllNamespaces     bool
	Namespace, Disk        string
	Mode                   capi.WipeMode
	Yes, DryRun            bool
	Remove, Quorum         bool
	SkipDrain, NoWait      bool
	Drain, Wipe, Return    time.Duration
}

func deletionMeaningOf(o *deletion) deletionMeaning {
	return deletionMeaning{
		Namespace: o.namespace, AllNamespaces: o.all, Disk: o.engine.Disk, Mode: o.engine.Mode, Yes: o.yes, DryRun: o.dryRun,
		Remove: o.engine.ForceRemove, Quorum: o.engine.ForceQuorum, SkipDrain: o.engine.SkipDrain, NoWait: o.engine.NoWait,
		Drain: o.drain, Wipe: o.wipe, Return: o.returned,
	}
}

func executeDeletion(t *testing.T, args string) (got *deletionMeaning, err error) {
	t.Helper()
	f := newFactory(nil, first(ui.Test("", false)), nil)
	words := strings.Fields(args)
	named := func(_ context.Context, o *namedDeletion) error {
		m := deletionMeaningOf(&o.deletion)
		m.Names = o.names
		got = &m
		return nil
	}
	var cmd *cobra.Command
	switch {
	case strings.HasPrefix(args, "delete machine"):
		cmd, words = newDeleteMachineCmd(f, named), words[2:]
	case strings.HasPrefix(args, "delete cluster"):
		cmd, words = newDeleteClusterCmd(f, named), words[2:]
	case strings.HasPrefix(args, "delete"):
		cmd, words = newDeleteCmd(f, func(_ context.Context, o *deleteOptions) error {
			m := deletionMeaningOf(&o.deletion)
			m.Files = o.files.filenames
			got = &m
			return nil
		}), words[1:]
	default:
		cmd, words = newDestroyCmd(f, func(_ context.Context, o *destroyOptions) error {
			m := deletionMeaningOf(&o.deletion)
			m.Files, m.Clusters, m.All = o.files.filenames, o.clusters, o.allClusters
			got = &m
			return nil
		}), words[1:]
	}
	cmd.SetArgs(words)
	cmd.SetOut(f.io.Err)
	cmd.SetErr(f.io.Err)
	return got, cmd.ExecuteContext(t.Context())
}

func TestDeletionFlags(t *testing.T) {
	usual := func(change func(*deletionMeaning)) deletionMeaning {
		m := deletionMeaning{Disk: "installed", Mode: "quick", Drain: 5 * time.Minute, Wipe: 15 * time.Minute, Return: 15 * time.Minute}
		change(&m)
		return m
	}
	for args, want := range map[string]deletionMeaning{
		"delete machine a b -n x --yes --force-remove": usual(func(m *deletionMeaning) { m.Names, m.Namespace, m.Yes, m.Remove = []string{"a", "b"}, "x", true, true }),
		"delete cluster c --dry-run --disk all-internal --wipe zero": usual(func(m *deletionMeaning) {
			m.Names, m.DryRun, m.Disk, m.Mode = []string{"c"}, true, "all-internal", capi.WipeZero
		}),
		"delete -f a -f b --disk /dev/disk/by-id/x:1 --skip-drain": usual(func(m *deletionMeaning) {
			m.Files, m.Disk, m.SkipDrain = []string{"a", "b"}, "/dev/disk/by-id/x:1", true
		}),
		"destroy --all -A --no-wait --drain-timeout 1m": usual(func(m *deletionMeaning) {
			m.All, m.AllNamespaces, m.NoWait, m.Drain = true, true, true, time.Minute
		}),
		"destroy --cluster a --cluster b --force-quorum": usual(func(m *deletionMeaning) { m.Clusters, m.Quorum = []string{"a", "b"}, true }),
		"destroy -f a --wipe-timeout 1h --wipe secure":   usual(func(m *deletionMeaning) { m.Files, m.Wipe, m.Mode = []string{"a"}, time.Hour, capi.WipeSecure }),
	} {
		t.Run(args, func(t *testing.T) {
			got, err := executeDeletion(t, args)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What can't be meant is refused before anything is opened.
func TestDeletionMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"delete machine":                                   "requires at least 1 arg",
		"delete cluster":                                   "requires at least 1 arg",
		"delete worker":                                    `unknown command "worker"`,
		"delete --yes":                                     "nothing to delete",
		"delete machine a --wipe quik":                     `--wipe "quik": want one of [quick zero discard secure]`,
		"delete machine a --disk sda":                      `--disk "sda"`,
		"delete machine a --disk /dev/../etc/passwd":       "--disk",
		"delete machine a --disk /dev/sda;reboot":          "--disk",
		"delete machine a --disk /dev/":                    "--disk",
		"delete machine a --force-remove --wipe zero":      "--wipe means nothing",
		"delete machine a --force-remove --disk installed": "--disk means nothing",
		"delete machine a --force-remove --receipt r":      "--receipt means nothing",
		"delete machine a --receipt-key k":                 "--receipt-key goes with --receipt",
		"delete machine a --drain-timeout 0s":              "--drain-timeout",
		"delete machine a --wipe-timeout -1s":              "--wipe-timeout",
		"destroy":                                          "nothing to destroy",
		"destroy c":                                        "unknown command",
		"destroy --all --cluster c":                        "--cluster and --all do not go together",
		"destroy -f x --all":                               "-f or -k and --all do not go together",
		"destroy -k x --cluster c":                         "-f or -k and --cluster do not go together",
		"destroy --cluster c -A":                           "--all-namespaces goes with --all",
		"destroy --all -A -n x":                            "--namespace and --all-namespaces",
	} {
		t.Run(args, func(t *testing.T) {
			got, err := executeDeletion(t, args)
			if err == nil || got != nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
				t.Errorf("exit %d, %v; want %q", exitCode(err), err, want)
			}
		})
	}
}

func TestRunID(t *testing.T) {
	now := time.Date(2026, 11, 23, 16, 4, 5, 0, time.FixedZone("", 3600))
	a, b := newRunID(now), newRunID(now)
	if form := regexp.MustCompile(`^20261123T150405Z-[a-z2-7]{8}$`); !form.MatchString(a) || a == b {
		t.Errorf("%q, %q", a, b)
	}
	if p := person(); !regexp.MustCompile(`^[^@]+@[^@]+$`).MatchString(p) {
		t.Errorf("person %q", p)
	}
}

func TestCommandLineWith(t *testing.T) {
	f := newFactory([]string{"--simulate", "delete", "-f", "a b"}, first(ui.Test("", false)), nil)
	got := f.commandLineWith(func(w string) string { return strings.Replace(w, "delete", "destroy", 1) })
	if got != "capplunder --simulate destroy -f 'a b'" {
		t.Error(got)
	}
	if got := f.commandLineWith(func(w string) string { return strings.Replace(w, "--simulate", "", 1) }); got != "capplunder delete -f 'a b'" {
		t.Error(got)
	}
}
