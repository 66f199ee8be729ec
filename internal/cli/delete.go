package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
)

type deleteOptions struct {
	deletion
	files fileOptions
}

func newDeleteCmd(f *factory, runF func(context.Context, *deleteOptions) error) *cobra.Command {
	o := &deleteOptions{deletion: deletion{f: f}}
	cmd := &cobra.Command{
		Use:   "delete machine NAME... | cluster NAME... | -f PATH... | -k DIRECTORY",
		Short: "Wipe machines and give them back, by name or by manifest",
		Long: `Wipe machines and give them back to the pool.

"delete machine" and "delete cluster" take names; with -f or -k the names are those
of the Machines and Clusters in manifests. Nothing else in them counts: what is
wiped is what was recorded when it was installed. A Cluster is deleted when no
Machine of it is left that the manifests do not name; destroy takes all of them.

` + deletionHelp,
		Example: `  capplunder delete -f machines.yaml --dry-run
  capplunder delete -f machines.yaml
  capplunder delete -f cluster/ -R --yes --receipt receipt.json`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.files.given() && cmd.Flags().NFlag() == 0 {
				return help(cmd, args)
			}
			if !o.files.given() {
				return usagef(cmd, "nothing to delete: give -f PATH or -k DIRECTORY, \"machine NAME\" or \"cluster NAME\"")
			}
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runDelete(cmd.Context(), o)
		},
	}
	o.files.addFlags(cmd.Flags())
	o.deletion.addFlags(cmd)
	cmd.AddCommand(newDeleteMachineCmd(f, nil), newDeleteClusterCmd(f, nil))
	return cmd
}

func runDelete(ctx context.Context, o *deleteOptions) error {
	return o.run(ctx, "delete", func(ctx context.Context, store *opened) (apply.Targets, error) {
		docs, err := o.files.read(ctx, o.f)
		if err != nil {
			return apply.Targets{}, err
		}
		t, known, err := o.fileTargets(ctx, store, docs)
		if err != nil {
			return apply.Targets{}, err
		}
		return t, o.onlyWhatIsNamed(t, known)
	})
}
