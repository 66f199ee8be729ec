package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completionLimit is how long a person who pressed Tab waits for a cluster.
const completionLimit = 2 * time.Second

// completeMachines offers the names of recorded machines that are not on the
// command line yet. It reads the store and nothing else.
func (f *factory) completeMachines(ns *namespaceOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		// A mistake in the configuration is for the command itself to tell.
		if err := f.resolve(cmd); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		store, err := f.open(ctx, storeOptions{namespaceOptions: *ns})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		records, err := store.Records(ctx, store.namespace)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, r := range records {
			if r.Namespace == store.namespace && !slices.Contains(args, r.Name) {
				names = append(names, cobra.CompletionWithDesc(r.Name, orDash(r.ProviderID)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeClusters does the same for clusters.
func (f *factory) completeClusters(ns *namespaceOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if err := f.resolve(cmd); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		store, err := f.open(ctx, storeOptions{namespaceOptions: *ns})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		clusters, err := store.ClusterRecords(ctx, store.namespace)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, c := range clusters {
			if !slices.Contains(args, c.Name) {
				names = append(names, c.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
