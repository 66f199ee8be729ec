package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionLimit is how long a person who pressed Tab waits for a cluster.
const completionLimit = 2 * time.Second

// completeMachines offers the names of recorded machines that are not on the
// command line yet. It reads the store and nothing else.
func (f *factory) completeMachines(ns *namespaceOptions) cobra.CompletionFunc {
	return f.completeFrom(ns, func(ctx context.Context, store *opened) (names []cobra.Completion, err error) {
		records, err := store.Records(ctx, store.namespace)
		for _, r := range records {
			names = append(names, cobra.CompletionWithDesc(r.Name, orDash(r.ProviderID)))
		}
		return names, err
	})
}

// completeClusters does the same for clusters.
func (f *factory) completeClusters(ns *namespaceOptions) cobra.CompletionFunc {
	return f.completeFrom(ns, func(ctx context.Context, store *opened) (names []cobra.Completion, err error) {
		clusters, err := store.ClusterRecords(ctx, store.namespace)
		for _, c := range clusters {
			names = append(names, c.Name)
		}
		return names, err
	})
}

// completeFrom offers what list finds and is not on the command line yet.
func (f *factory) completeFrom(ns *namespaceOptions, list func(context.Context, *opened) ([]cobra.Completion, error)) cobra.CompletionFunc {
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
		names, err := list(ctx, store)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(names, func(n cobra.Completion) bool {
			name, _, _ := strings.Cut(n, "\t")
			return slices.Contains(args, name)
		}), cobra.ShellCompDirectiveNoFileComp
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
