package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
)

func newDeleteClusterCmd(f *factory, runF func(context.Context, *namedDeletion) error) *cobra.Command {
	o := &namedDeletion{deletion: deletion{f: f}}
	cmd := &cobra.Command{
		Use:     "cluster NAME...",
		Aliases: []string{"clusters", "cl"},
		Short:   "Wipe all machines of clusters, give them back, and delete the clusters",
		Long: `Wipe all machines of clusters, workers before control planes, give them back to
the pool, and delete what is recorded of the clusters: objects, kubeconfig, keys.

` + deletionHelp,
		Example: `  capplunder delete cluster cluster-plunder --dry-run
  capplunder delete cluster cluster-plunder`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runDeleteCluster(cmd.Context(), o)
		},
		ValidArgsFunction: f.completeClusters(&o.namespaceOptions),
	}
	o.addFlags(cmd)
	return cmd
}

func runDeleteCluster(ctx context.Context, o *namedDeletion) error {
	return o.run(ctx, "delete cluster", func(ctx context.Context, store *opened) (apply.Targets, error) {
		return clusterTargets(ctx, store, o.names)
	})
}
