package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
	"github.com/plunder-app/capplunder/pkg/translate"
)

type applyOptions struct {
	f *factory
	namespaceOptions
	limits
	installFlags

	bootstrapData []bootstrapFlag

	filenames      []string
	recursive      bool
	kustomize      string
	cluster        string
	allClusters    bool
	machines       []string
	forceConflicts bool
	dryRun         bool
	skipKubernetes bool
	output         string
}

func newApplyCmd(f *factory, runF func(context.Context, *applyOptions) error) *cobra.Command {
	o := &applyOptions{f: f}
	var bootstrapData []string
	cmd := &cobra.Command{
		Use:   "apply -f PATH... | -k DIRECTORY | --cluster NAME | --all | machine NAME...",
		Short: "Install the machines of Cluster API manifests or of a Kubernetes cluster",
		Long: `Install the machines of Cluster API manifests, or those that are described in a
Kubernetes cluster.

Every Machine gets free hardware, an operating system and Kubernetes, all
machines in parallel. The result is recorded: what is ready is never installed
again, and an apply that was interrupted goes on where it stopped when the same
command is run again.

With the Kubernetes store manifests are applied to the cluster first; --cluster,
--all and "machine NAME" take what is there. Machines that are being deleted there
are wiped and given back. What is paused is left alone.`,
		Example: `  # Two simulated machines; nothing real is touched
  capplunder apply -f examples/simple --simulate

  # Show what would be done, and do nothing
  capplunder apply -f cluster.yaml --dry-run

  # Operating systems only, with a limit over all
  capplunder apply -f cluster/ -R --skip-kubernetes --timeout 1h

  # What is in a Kubernetes cluster: one of its Clusters, or one Machine
  capplunder apply --cluster cluster-plunder
  capplunder apply machine worker -n production

  # For programs: one JSON object per event
  capplunder apply -f - -o json < cluster.yaml`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.bootstrapData, err = parseBootstrapFlags(cmd, bootstrapData); err != nil {
				return err
			}
			if err := o.check(cmd, args); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runApply(cmd.Context(), o)
		},
		ValidArgsFunction: o.complete,
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&o.filenames, "filename", "f", nil, "`path` to read: file, directory, URL, or - for standard input; may be repeated")
	fs.BoolVarP(&o.recursive, "recursive", "R", false, "read directories below the given ones, too")
	fs.StringVarP(&o.kustomize, "kustomize", "k", "", "`directory` with a kustomization to build and read")
	fs.StringVar(&o.cluster, "cluster", "", "`name` of a Cluster in Kubernetes, to work on what is there")
	fs.BoolVar(&o.allClusters, "all", false, "work on all Clusters of the namespace in Kubernetes")
	fs.BoolVar(&o.forceConflicts, "force-conflicts", false, "take fields over that others own in the cluster")
	fs.BoolVar(&o.dryRun, "dry-run", false, "show what would be done: plunder gets no request, nothing is written")
	fs.BoolVar(&o.skipKubernetes, "skip-kubernetes", false, "stop when the operating systems run")
	fs.StringArrayVar(&bootstrapData, "bootstrap-data", nil, "`MACHINE=FILE`: cloud-config that makes the machine a node; may be repeated")
	o.namespaceOptions.addFlags(fs)
	o.addAllFlag(fs, "with --all: of all namespaces")
	o.limits.addFlags(fs)
	o.addApplyFlags(fs)
	o.installFlags.addFlags(fs)
	completeInstallFlags(cmd)
	cmd.SetUsageFunc(groupedUsage)
	addOutputFlag(cmd, &o.output, "table, wide, name, json (one object per event); with --dry-run also yaml and jsonpath=TEMPLATE")
	return cmd
}

// complete offers "machine", and then the names of machines.
func (o *applyOptions) complete(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []cobra.Completion{"machine"}, cobra.ShellCompDirectiveNoFileComp
	}
	return o.f.completeMachines(&o.namespaceOptions)(cmd, args, toComplete)
}

// check reads the arguments and refuses what does not go together.
func (o *applyOptions) check(cmd *cobra.Command, args []string) error {
	var err error
	if o.machines, err = machineArguments(cmd, args); err != nil {
		return err
	}
	given := o.fromCluster()
	if len(o.filenames) > 0 || o.kustomize != "" {
		given = append(given, "-f or -k")
	}
	switch {
	case len(given) == 0:
		return usagef(cmd, "nothing to apply: give -f PATH or -k DIRECTORY, or, for what is in a Kubernetes cluster, --cluster NAME, --all or \"machine NAME\"")
	case len(given) > 1:
		return usagef(cmd, "%s do not go together: each says what to apply", strings.Join(given, " and "))
	case o.all && !o.allClusters:
		return usagef(cmd, "--all-namespaces goes with --all")
	case o.all && o.namespace != "" && cmd.Flags().Changed("namespace"):
		return usagef(cmd, "--namespace and --all-namespaces do not go together")
	case o.forceConflicts && len(o.fromCluster()) > 0:
		return usagef(cmd, "--force-conflicts is for manifests (-f, -k); %s writes no fields of others", given[0])
	}
	return o.limits.check(cmd)
}

// fromCluster names what says that objects are taken from a Kubernetes cluster.
func (o *applyOptions) fromCluster() []string {
	var given []string
	if o.cluster != "" {
		given = append(given, "--cluster")
	}
	if o.allClusters {
		given = append(given, "--all")
	}
	if len(o.machines) > 0 {
		given = append(given, `"machine NAME"`)
	}
	return given
}

// machineArguments reads "machine NAME..." and "machine/NAME...".
func machineArguments(cmd *cobra.Command, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	switch args[0] {
	case "machine", "machines", "ma":
		if len(args) == 1 {
			return nil, usagef(cmd, "%s: which one? Give its name, or --all", args[0])
		}
		args = args[1:]
	default:
		if !strings.HasPrefix(args[0], "machine/") {
			return nil, usagef(cmd, "unexpected argument %q: manifests are given with -f, machines in a Kubernetes cluster as \"machine NAME\"", args[0])
		}
	}
	var names []string
	for _, a := range args {
		if n := strings.TrimPrefix(a, "machine/"); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
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
	defaults, err := o.defaults(ctx, f)
	docs, filesErr := o.files(ctx)
	if err := errors.Join(err, filesErr); err != nil {
		return err
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions, forceConflicts: o.forceConflicts})
	if err != nil {
		return err
	}
	if err := o.fits(store); err != nil {
		return err
	}
	set, plan, err := o.plan(ctx, docs, store, defaults)
	if err != nil {
		return err
	}
	for _, w := range set.Warnings {
		f.warnf("%s", w)
	}
	if o.dryRun {
		return errors.Join(f.printPlan(ctx, out, set, plan, store, defaults), set.Left())
	}
	for _, u := range set.Unfit { // said again at the end, which may be far away
		f.warnf("%s", u)
	}
	server, err := f.Server(ctx, true)
	if err != nil {
		return err
	}
	reporter := f.reporter(out)
	res, err := apply.New(server, store, reporter.Report, f.engineOptions(o.limits)).Apply(ctx, set, plan)
	err = errors.Join(err, reporter.Close(), server.Close())
	err = errors.Join(err, set.Left(), f.printResult(out, res))
	f.adviseOnClusters(ctx, store, plan, res, defaults)
	if o.cluster != "" || o.allClusters {
		f.adviseOnEmpty(set)
	}
	return err
}

// plan checks and plans; nothing is touched. docs are those of files, if there are any.
func (o *applyOptions) plan(ctx context.Context, docs []capi.Document, store *opened, defaults capi.Defaults) (*capi.Set, *translate.Plan, error) {
	decode := capi.DecodeOptions{DefaultNamespace: store.namespace, Lenient: store.source != nil, Defaults: defaults}
	var err error
	if len(o.fromCluster()) > 0 {
		docs, err = o.intents(ctx, store)
	} else {
		decode.Namespace = o.namespace
		decode.Known, err = store.Clusters(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	set, err := decode.Decode(docs)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range o.machines {
		set.Only = append(set.Only, capi.ParseKey(m, store.namespace))
	}
	if err := giveBootstrapData(set, o.bootstrapData, store.namespace); err != nil {
		return nil, nil, err
	}
	plan, err := translate.NewPlan(set, translate.Options{SkipKubernetes: o.skipKubernetes, Defaults: defaults, Providers: store.source != nil})
	if err != nil {
		return nil, nil, errors.Join(err, set.Left())
	}
	return set, plan, nil
}

// fits refuses options that mean nothing for the store.
func (o *applyOptions) fits(store *opened) error {
	if store.source != nil {
		return nil
	}
	if given := o.fromCluster(); len(given) > 0 {
		return &usageError{
			err:  fmt.Errorf("%s takes manifests from a Kubernetes cluster, and this run uses %s: give them with -f", given[0], store),
			next: name + " apply -f PATH" + o.f.place,
		}
	}
	if o.forceConflicts {
		return usagef(nil, "--force-conflicts is for manifests that are applied to a Kubernetes cluster, and this run uses %s", store)
	}
	return nil
}

// files are the objects that were given.
func (o *applyOptions) files(ctx context.Context) ([]capi.Document, error) {
	if len(o.fromCluster()) > 0 {
		return nil, nil
	}
	return state.Files(ctx, state.FileOptions{
		Paths:     o.filenames,
		Recursive: o.recursive,
		Kustomize: o.kustomize,
		Stdin:     o.f.io.In,
	})
}

// intents are the objects of the cluster that are to be worked on.
func (o *applyOptions) intents(ctx context.Context, store *opened) ([]capi.Document, error) {
	selection := state.Selection{Namespace: store.namespace, AllNamespaces: o.all, Cluster: o.cluster, All: o.allClusters}
	if len(o.machines) == 0 {
		docs, err := store.source.Intents(ctx, selection)
		return docs, failing(err)
	}
	var docs []capi.Document
	seen := map[string]bool{} // machines of one cluster come with the same Cluster
	for _, m := range o.machines {
		key := capi.ParseKey(m, store.namespace)
		selection.Namespace, selection.Machine = key.Namespace, key.Name
		more, err := store.source.Intents(ctx, selection)
		if err != nil {
			return nil, failing(err)
		}
		for _, doc := range more {
			id, err := identity(doc)
			if err != nil {
				return nil, failing(err)
			}
			if !seen[id] {
				docs = append(docs, doc)
			}
			seen[id] = true
		}
	}
	return docs, nil
}

// identity names the object of a document that was read from a cluster.
func identity(doc capi.Document) (string, error) {
	var o struct {
		Kind     string   `json:"kind"`
		Metadata capi.Key `json:"metadata"`
	}
	if err := json.Unmarshal(doc.Raw, &o); err != nil {
		return "", fmt.Errorf("object of the cluster: %w", err)
	}
	return o.Kind + " " + o.Metadata.String(), nil
}

// adviseOnClusters says what is left to do about clusters whose control plane was
// installed just now.
func (f *factory) adviseOnClusters(ctx context.Context, store *opened, plan *translate.Plan, res apply.Result, defaults capi.Defaults) {
	ready := map[capi.Key]bool{}
	for _, m := range res.Machines {
		ready[m.Record.Key] = m.Outcome == event.Ready
	}
	told := map[capi.Key]bool{}
	for _, mp := range plan.Machines {
		c := mp.Machine.Cluster
		if mp.Kubernetes == nil || !mp.Machine.ControlPlane || !ready[mp.Machine.Key] || told[c.Key] {
			continue
		}
		told[c.Key] = true
		if c.ClusterOptionsFor(defaults).CNI == nil && !mp.Machine.Bootstrapped() {
			f.noticef("Cluster %s: its nodes stay NotReady until a network add-on is installed: kubectl apply one, and give new clusters one with --cni", c.Key)
		}
		if _, ok, err := store.Kubeconfig(ctx, c.Key); err == nil && ok {
			f.noticef("next: %s get kubeconfig %s --merge%s", name, c.Key, f.place)
		}
	}
}

// adviseOnEmpty says of which clusters there is no machine to work on, and what those
// wait for that make them.
func (f *factory) adviseOnEmpty(set *capi.Set) {
	for _, c := range set.Clusters {
		if len(set.Unfit) > 0 || slices.ContainsFunc(set.Machines, func(m *capi.Machine) bool { return m.Cluster.Key == c.Key }) {
			continue
		}
		also := ""
		if c.Endpoint.IsZero() {
			also = ", and no control plane endpoint, which Cluster API waits for: set spec.controlPlaneEndpoint of its PlunderCluster"
		}
		f.noticef("Cluster %s has no Machines for plunder yet%s", c.Key, also)
	}
}

// printResult prints the machines of a run, unless events were printed instead.
func (f *factory) printResult(out output, res apply.Result) error {
	if out.format == formatJSON {
		return nil
	}
	var records []capi.Record
	for _, m := range res.Machines {
		if m.Outcome != event.Deleted {
			records = append(records, m.Record)
		}
	}
	var err error
	if len(records) > 0 {
		err = f.show(out, machineList(records, severalNamespaces(records)), false)
	}
	if err != nil || out.format == formatName { // names are those of machines that there are
		return err
	}
	return f.printDeleted(out, res)
}

func severalNamespaces(records []capi.Record) bool {
	for _, r := range records {
		if r.Namespace != records[0].Namespace {
			return true
		}
	}
	return false
}
