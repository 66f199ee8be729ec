package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
)

// namedDeletion is a deletion of what is named on the command line.
type namedDeletion struct {
	deletion
	names []string
}

func newDeleteMachineCmd(f *factory, runF func(context.Context, *namedDeletion) error) *cobra.Command {
	o := &namedDeletion{deletion: deletion{f: f}}
	cmd := &cobra.Command{
		Use:     "machine NAME...",
		Aliases: []string{"machines", "ma"},
		Short:   "Wipe machines and give them back to the pool",
		Long: `Wipe machines and give them back to the pool.

` + deletionHelp,
		Example: `  capplunder delete machine worker
  capplunder delete machine worker-1 worker-2 -n production --yes

  # Every byte of every internal disk, with a signed receipt
  capplunder delete machine worker --disk all-internal --wipe zero --receipt worker.json --receipt-key ~/.ssh/id_ed25519

  # The host burnt down
  capplunder delete machine worker --force-remove`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runDeleteMachine(cmd.Context(), o)
		},
		ValidArgsFunction: f.completeMachines(&o.namespaceOptions),
	}
	o.addFlags(cmd)
	return cmd
}

func runDeleteMachine(ctx context.Context, o *namedDeletion) error {
	return o.run(ctx, "delete machine", func(ctx context.Context, store *opened) (apply.Targets, error) {
		return o.f.machineTargets(ctx, store, o.names)
	})
}
