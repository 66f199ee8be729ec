package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

// Targets of deletions come from what is recorded. Command lines and files only say
// which of it is meant.

// namedKeys reads names as "a", "namespace/a" and "kind/a", each once.
func namedKeys(kind string, names []string, namespace string) []capi.Key {
	var keys []capi.Key
	for _, n := range names {
		if k := capi.ParseKey(strings.TrimPrefix(n, kind+"/"), namespace); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// namespacesOf are the namespaces of some keys, each once.
func namespacesOf(keys ...capi.Key) []string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Namespace)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// recorded is what a store has, of some namespaces.
type recorded struct {
	machines []capi.Record
	clusters []capi.Key
}

func readRecorded(ctx context.Context, store *opened, namespaces ...string) (*recorded, error) {
	machines, err := store.Records(ctx, namespaces...)
	if err != nil {
		return nil, err
	}
	clusters, err := store.ClusterRecords(ctx, namespaces...)
	if err != nil {
		return nil, err
	}
	r := &recorded{machines: machines}
	for _, c := range clusters {
		r.clusters = append(r.clusters, c.Key)
	}
	return r, nil
}

func (r *recorded) hasMachine(k capi.Key) bool {
	return slices.ContainsFunc(r.machines, func(m capi.Record) bool { return m.Key == k })
}

// hasCluster: a cluster may be known by its machines alone.
func (r *recorded) hasCluster(k capi.Key) bool {
	return slices.Contains(r.clusters, k) || len(r.machinesOf(k)) > 0
}

func (r *recorded) machinesOf(cluster capi.Key) []capi.Key {
	var keys []capi.Key
	for _, m := range r.machines {
		if m.Namespace == cluster.Namespace && m.Cluster == cluster.Name {
			keys = append(keys, m.Key)
		}
	}
	return keys
}

// machineTargets are Machines by name: all of them, or none.
func (f *factory) machineTargets(ctx context.Context, store *opened, names []string) (apply.Targets, error) {
	keys := namedKeys("machine", names, store.namespace)
	missing := &apply.NoRecordError{Store: store.String()}
	for _, k := range keys {
		_, ok, err := store.Record(ctx, k)
		if err != nil {
			return apply.Targets{}, err
		}
		if !ok {
			missing.Keys = append(missing.Keys, k)
		}
	}
	switch len(missing.Keys) {
	case 0:
		return apply.Targets{Machines: keys}, nil
	case len(keys):
		return apply.Targets{}, missing
	}
	return apply.Targets{}, nextError{missing, f.commandLineWith(func(word string) string {
		if slices.Contains(missing.Keys, capi.ParseKey(strings.TrimPrefix(word, "machine/"), store.namespace)) {
			return ""
		}
		return word
	})}
}

// commandLineWith is the command line with other words; "" leaves a word out.
func (f *factory) commandLineWith(change func(string) string) string {
	other := factory{}
	for _, word := range f.args {
		if w := change(word); w != "" {
			other.args = append(other.args, w)
		}
	}
	return other.commandLine()
}

// clusterTargets are Clusters by name: all of them, or none.
func clusterTargets(ctx context.Context, store *opened, names []string) (apply.Targets, error) {
	keys := namedKeys("cluster", names, store.namespace)
	known, err := readRecorded(ctx, store, namespacesOf(keys...)...)
	if err != nil {
		return apply.Targets{}, err
	}
	missing := &apply.NoRecordError{Store: store.String()}
	for _, k := range keys {
		if !known.hasCluster(k) {
			missing.Clusters = append(missing.Clusters, k)
		}
	}
	if len(missing.Clusters) > 0 {
		return apply.Targets{}, missing
	}
	return apply.Targets{Clusters: keys}, nil
}

// fileOptions are -f, -R and -k of deletions.
type fileOptions struct {
	filenames []string
	recursive bool
	kustomize string
}

func (o *fileOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&o.filenames, "filename", "f", nil, "`path` to read names from: file, directory, URL, or - for standard input; may be repeated")
	fs.BoolVarP(&o.recursive, "recursive", "R", false, "read directories below the given ones, too")
	fs.StringVarP(&o.kustomize, "kustomize", "k", "", "`directory` with a kustomization to build and read names from")
}

func (o *fileOptions) given() bool { return len(o.filenames) > 0 || o.kustomize != "" }

// fileTargets are what files name and the store has, and what else it has. What it has
// not is told; an error if it has nothing of it.
func (o *deletion) fileTargets(ctx context.Context, store *opened, docs []capi.Document) (apply.Targets, *recorded, error) {
	names, warnings, err := capi.DecodeOptions{Namespace: o.namespace, DefaultNamespace: store.namespace}.Names(docs)
	if err != nil {
		return apply.Targets{}, nil, err
	}
	for _, w := range warnings {
		o.f.warnf("%s", w)
	}
	keys := make([]capi.Key, len(names))
	for i, n := range names {
		keys[i] = n.Key
	}
	known, err := readRecorded(ctx, store, namespacesOf(keys...)...)
	if err != nil {
		return apply.Targets{}, nil, err
	}
	var t apply.Targets
	missing := &apply.NoRecordError{Store: store.String()}
	var notices []string
	for _, n := range names {
		switch {
		case n.Kind == "Machine" && known.hasMachine(n.Key):
			t.Machines = append(t.Machines, n.Key)
		case n.Kind == "Cluster" && known.hasCluster(n.Key):
			t.Clusters = append(t.Clusters, n.Key)
		case n.Kind == "Machine":
			missing.Keys = append(missing.Keys, n.Key)
			notices = append(notices, fmt.Sprintf("%s: the %s has no Machine %s: nothing to delete", n.Origin, store, n.Key))
		default:
			missing.Clusters = append(missing.Clusters, n.Key)
			notices = append(notices, fmt.Sprintf("%s: the %s has no Cluster %s: nothing to delete", n.Origin, store, n.Key))
		}
	}
	if len(t.Machines)+len(t.Clusters) == 0 {
		return apply.Targets{}, nil, missing
	}
	for _, n := range notices {
		o.f.warnf("%s", n)
	}
	return t, known, nil
}

// onlyWhatIsNamed refuses Clusters of which machines would be deleted that no file
// names, now or when they turn up later.
func (o *deletion) onlyWhatIsNamed(t apply.Targets, known *recorded) error {
	for _, c := range t.Clusters {
		var left []string
		for _, m := range known.machinesOf(c) {
			if !slices.Contains(t.Machines, m) {
				left = append(left, m.String())
			}
		}
		if len(left) > 0 {
			all := o.f.commandLineWith(func(word string) string {
				if word == "delete" {
					return "destroy"
				}
				return word
			})
			return &refusedError{
				message: fmt.Sprintf("Cluster %s still has Machines that are not in the files: %s; nothing was changed", c, strings.Join(left, ", ")),
				next:    all + "    # with all machines of the Clusters in the files",
			}
		}
	}
	o.only = append([]capi.Key{}, t.Machines...)
	return nil
}

// allTargets are everything of one namespace or of all; Targets is empty if there is
// nothing.
func allTargets(ctx context.Context, store *opened, everywhere bool) (apply.Targets, error) {
	t := apply.Targets{All: true, Namespaces: []string{store.namespace}}
	if everywhere {
		t.Namespaces = nil
	}
	known, err := readRecorded(ctx, store, t.Namespaces...)
	if err != nil || len(known.machines)+len(known.clusters) == 0 {
		return apply.Targets{}, err
	}
	return t, nil
}

func (o *fileOptions) read(ctx context.Context, f *factory) ([]capi.Document, error) {
	return state.Files(ctx, state.FileOptions{Paths: o.filenames, Recursive: o.recursive, Kustomize: o.kustomize, Stdin: f.io.In})
}
