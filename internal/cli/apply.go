package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
	"github.com/plunder-app/capplunder/pkg/translate"
)

type applyOptions struct {
	f *factory
	namespaceOptions
	limits

	filenames      []string
	recursive      bool
	kustomize      string
	dryRun         bool
	skipKubernetes bool
	output         string
}

func newApplyCmd(f *factory, runF func(context.Context, *applyOptions) error) *cobra.Command {
	o := &applyOptions{f: f}
	cmd := &cobra.Command{
		Use:   "apply -f PATH... | -k DIRECTORY",
		Short: "Install the machines of Cluster API manifests",
		Long: `Install the machines of Cluster API manifests.

Every Machine gets free hardware, an operating system and Kubernetes, all
machines in parallel. The result is recorded: what is ready is never installed
again, and an apply that was interrupted goes on where it stopped when the same
command is run again.`,
		Example: `  # Two simulated machines; nothing real is touched
  capplunder apply -f examples/simple --simulate

  # Show what would be done: no request, no write
  capplunder apply -f cluster.yaml --dry-run

  # Operating systems only, with a limit over all
  capplunder apply -f cluster/ -R --skip-kubernetes --timeout 1h

  # For programs: one JSON object per event
  capplunder apply -f - -o json < cluster.yaml`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runApply(cmd.Context(), o)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&o.filenames, "filename", "f", nil, "`path` to read: file, directory, URL, or - for standard input; may be repeated")
	fs.BoolVarP(&o.recursive, "recursive", "R", false, "read directories below the given ones, too")
	fs.StringVarP(&o.kustomize, "kustomize", "k", "", "`directory` with a kustomization to build and read")
	fs.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, send no request and write nothing")
	fs.BoolVar(&o.skipKubernetes, "skip-kubernetes", false, "stop when the operating systems run")
	o.namespaceOptions.addFlags(fs)
	o.limits.addFlags(fs)
	o.addApplyFlags(fs)
	addOutputFlag(cmd, &o.output, "table, wide, name, json (one object per event); with --dry-run also yaml and jsonpath=TEMPLATE")
	return cmd
}

func (o *applyOptions) check(cmd *cobra.Command) error {
	if len(o.filenames) == 0 && o.kustomize == "" {
		return usagef(cmd, "nothing to apply: give -f PATH or -k DIRECTORY")
	}
	return o.limits.check(cmd)
}

func runApply(ctx context.Context, o *applyOptions) error {
	f := o.f
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := out.allow("apply", formatTable, formatWide, formatName, formatJSON); err != nil {
			return err
		}
	}
	store, err := f.Store()
	if err != nil {
		return err
	}
	set, plan, err := o.plan(ctx, store)
	if err != nil {
		return err
	}
	for _, w := range set.Warnings {
		f.warnf("%s", w)
	}
	if o.dryRun {
		return f.printPlan(ctx, out, plan, store)
	}
	server, err := f.Server(true)
	if err != nil {
		return err
	}
	reporter := f.reporter(out)
	res, err := apply.New(server, store, reporter.Report, f.engineOptions(o.limits)).Apply(ctx, set, plan)
	err = errors.Join(err, reporter.Close(), server.Close())
	return errors.Join(err, f.printResult(out, res))
}

// plan reads, checks and plans; nothing is touched.
func (o *applyOptions) plan(ctx context.Context, store store) (*capi.Set, *translate.Plan, error) {
	docs, err := state.Files(ctx, state.FileOptions{
		Paths:     o.filenames,
		Recursive: o.recursive,
		Kustomize: o.kustomize,
		Stdin:     o.f.io.In,
	})
	if err != nil {
		return nil, nil, err
	}
	known, err := store.Clusters(ctx)
	if err != nil {
		return nil, nil, err
	}
	set, err := capi.DecodeOptions{Namespace: o.namespace, Known: known}.Decode(docs)
	if err != nil {
		return nil, nil, err
	}
	plan, err := translate.NewPlan(set, translate.Options{SkipKubernetes: o.skipKubernetes})
	if err != nil {
		return nil, nil, err
	}
	return set, plan, nil
}

// printResult prints the machines of a run, unless events were printed instead.
func (f *factory) printResult(out output, res apply.Result) error {
	if out.format == formatJSON || len(res.Machines) == 0 {
		return nil
	}
	records := make([]capi.Record, len(res.Machines))
	for i, m := range res.Machines {
		records[i] = m.Record
	}
	return f.show(out, machineList(records, severalNamespaces(records)), false)
}

func severalNamespaces(records []capi.Record) bool {
	for _, r := range records {
		if r.Namespace != records[0].Namespace {
			return true
		}
	}
	return false
}
