package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/internal/kubeconfig"
	"github.com/plunder-app/capplunder/pkg/capi"
)

type getKubeconfigOptions struct {
	f *factory
	namespaceOptions

	cluster    string
	merge      bool
	overwrite  bool
	useContext bool
	output     string
}

func newGetKubeconfigCmd(f *factory, runF func(context.Context, *getKubeconfigOptions) error) *cobra.Command {
	o := &getKubeconfigOptions{f: f}
	cmd := &cobra.Command{
		Use:   "kubeconfig CLUSTER",
		Short: "Print the kubeconfig of a new cluster, or merge it into yours",
		Long: `Print the kubeconfig of a new cluster. Who has it is its administrator.

With --merge it becomes a context of your own kubeconfig (--kubeconfig, else the
files of KUBECONFIG, else ~/.kube/config), named as Cluster API names it:
CLUSTER-admin@CLUSTER. What is there stays, the current context as well; merging
again changes nothing.`,
		Example: `  capplunder get kubeconfig cluster-plunder > cluster-plunder.yaml
  capplunder get kubeconfig cluster-plunder --merge
  kubectl --context cluster-plunder-admin@cluster-plunder get nodes`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.cluster = strings.TrimPrefix(args[0], "cluster/")
			switch {
			case !o.merge && o.overwrite:
				return usagef(cmd, "--overwrite goes with --merge")
			case !o.merge && o.useContext:
				return usagef(cmd, "--use-context goes with --merge")
			case o.merge && o.output != "":
				return usagef(cmd, "-o and --merge do not go together")
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runGetKubeconfig(cmd.Context(), o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	o.namespaceOptions.addFlags(fs)
	fs.BoolVar(&o.merge, "merge", false, "add it to your kubeconfig instead of printing it")
	fs.BoolVar(&o.overwrite, "overwrite", false, "with --merge: replace entries of the same names that say something else")
	fs.BoolVar(&o.useContext, "use-context", false, "with --merge: make it the current context")
	addOutputFlag(cmd, &o.output, "yaml (default) or json")
	return cmd
}

func runGetKubeconfig(ctx context.Context, o *getKubeconfigOptions) error {
	f := o.f
	if o.output == "" {
		o.output = formatYAML
	}
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("get kubeconfig", formatYAML, formatJSON); err != nil {
		return err
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return err
	}
	key := capi.ParseKey(o.cluster, store.namespace)
	data, ok, err := store.Kubeconfig(ctx, key)
	switch {
	case err != nil:
		return err
	case !ok:
		return &usageError{
			err:  fmt.Errorf("no kubeconfig is recorded for Cluster %s in %s: it is when the control plane is ready and recorded", key, store),
			next: name + " get machines -n " + key.Namespace + " -o wide",
		}
	case o.merge:
		return o.mergeInto(ctx, store, key.Name, data)
	case out.format == formatJSON:
		if data, err = yaml.YAMLToJSON(data); err != nil {
			// The cause may quote the file, which holds a key.
			return failing(fmt.Errorf("what is recorded for Cluster %s is no kubeconfig", key))
		}
		data = append(data, '\n')
	}
	_, err = f.io.Out.Write(data)
	return err
}

func (o *getKubeconfigOptions) mergeInto(ctx context.Context, store *opened, cluster string, data []byte) error {
	f := o.f
	files, err := kubeconfig.Files(f.opts.kubeconfig, f.getenv)
	if err != nil {
		return usagef(nil, "%w", err)
	}
	res, err := kubeconfig.Merge(ctx, cluster, data, kubeconfig.Options{Files: files, Overwrite: o.overwrite, UseContext: o.useContext})
	var conflict *kubeconfig.ConflictError
	switch {
	case errors.As(err, &conflict):
		return nextError{err, f.commandLine() + " --overwrite"}
	case err != nil:
		return err
	}
	what := "unchanged"
	switch {
	case len(res.Replaced) > 0:
		what = "replaced"
	case len(res.Added) > 0:
		what = "added"
	}
	for _, did := range []struct {
		what    string
		entries []string
	}{{"added", res.Added}, {"replaced", res.Replaced}} {
		if len(did.entries) > 0 {
			f.noticef("%s %s in %s", did.what, strings.Join(did.entries, ", "), strings.Join(res.Files, ", "))
		}
	}
	if store.source == nil && !f.opts.simulate {
		// Without a kubeconfig the choice was the local store; now there is one.
		if target, err := f.chooseStore(); target != nil || err != nil {
			f.warnf("your kubeconfig names a cluster now, so --store %s no longer means the %s: say --store %s, or set %s=%s",
				storeAuto, store, storeLocal, envName("store"), storeLocal)
		}
	}
	_, err = fmt.Fprintf(f.io.Out, "%scontext/%s %s\n", f.prefix(), res.Context, what)
	return err
}
