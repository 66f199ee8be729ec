package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
)

type destroyOptions struct {
	deletion
	files       fileOptions
	clusters    []string
	allClusters bool
}

func newDestroyCmd(f *factory, runF func(context.Context, *destroyOptions) error) *cobra.Command {
	o := &destroyOptions{deletion: deletion{f: f}}
	cmd := &cobra.Command{
		Use:   "destroy -f PATH... | -k DIRECTORY | --cluster NAME... | --all",
		Short: "Wipe and give back all machines of clusters, and delete the clusters",
		Long: `Wipe all machines of clusters, give them back to the pool, and delete what is
recorded of the clusters: objects, kubeconfig, keys. Workers go before control
planes, clusters go last, and all that can go at once does.

With -f or -k the clusters are those that the manifests name, with all their
machines, whether the manifests name them or not; of a Cluster that they do not
name only the Machines that they name. --all means all of the namespace, with -A
all there are.

` + deletionHelp,
		Example: `  capplunder destroy -f examples/simple --simulate
  capplunder destroy --cluster cluster-plunder --dry-run
  capplunder destroy --all -n lab --yes --receipt lab.json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.checkTargets(cmd); err != nil {
				return err
			}
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runDestroy(cmd.Context(), o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	o.files.addFlags(fs)
	fs.StringArrayVar(&o.clusters, "cluster", nil, "`name` of a Cluster; may be repeated")
	fs.BoolVar(&o.allClusters, "all", false, "all Clusters and Machines of the namespace")
	o.addAllFlag(fs, "with --all: of all namespaces")
	o.deletion.addFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("cluster", f.completeClusters(&o.namespaceOptions))
	return cmd
}

// checkTargets: exactly one thing says what is destroyed.
func (o *destroyOptions) checkTargets(cmd *cobra.Command) error {
	var given []string
	if o.files.given() {
		given = append(given, "-f or -k")
	}
	if len(o.clusters) > 0 {
		given = append(given, "--cluster")
	}
	if o.allClusters {
		given = append(given, "--all")
	}
	switch {
	case len(given) == 0:
		return usagef(cmd, "nothing to destroy: give -f PATH, -k DIRECTORY, --cluster NAME or --all")
	case len(given) > 1:
		return usagef(cmd, "%s do not go together: each says what to destroy", strings.Join(given, " and "))
	case o.all && !o.allClusters:
		return usagef(cmd, "--all-namespaces goes with --all")
	case o.all && cmd.Flags().Changed("namespace"):
		return usagef(cmd, "--namespace and --all-namespaces do not go together")
	}
	return nil
}

func runDestroy(ctx context.Context, o *destroyOptions) error {
	return o.run(ctx, "destroy", func(ctx context.Context, store *opened) (apply.Targets, error) {
		switch {
		case o.allClusters:
			return allTargets(ctx, store, o.all)
		case len(o.clusters) > 0:
			return clusterTargets(ctx, store, o.clusters)
		}
		docs, err := o.files.read(ctx, o.f)
		if err != nil {
			return apply.Targets{}, err
		}
		t, _, err := o.fileTargets(ctx, store, docs)
		return t, err
	})
}
