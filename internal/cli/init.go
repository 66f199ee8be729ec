package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/install"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/plunder"
)

type initOptions struct {
	f *factory

	standalone     bool
	uninstall      bool
	dryRun         bool
	yes            bool
	forceConflicts bool
	output         string
}

func newInitCmd(f *factory, runF func(context.Context, *initOptions) error) *cobra.Command {
	o := &initOptions{f: f}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Prepare a Kubernetes cluster to be worked from and recorded in",
		Long: `Install what capplunder needs in a Kubernetes cluster: the kinds PlunderCluster,
PlunderMachine and PlunderMachineTemplate, the namespace capplunder-system, and
the ClusterRole capplunder, which is enough to run everything but init.

Running it again changes nothing, or brings what is there up to date. Where
Cluster API is not installed, --standalone adds its kinds Cluster and Machine.
With --plunder-config the client configuration is stored as a secret, from which
every command can read it (--plunder-secret).

--uninstall removes all of this, but refuses as long as there are machines.`,
		Example: `  # A cluster that has Cluster API, one that has not
  capplunder init
  capplunder init --standalone

  # Keep the configuration of the plunder client in the cluster
  capplunder init --plunder-config plunderclient.yaml
  capplunder get unleased --plunder-secret capplunder-system/plunder

  # Look at the manifests, or have somebody else apply them
  capplunder init --dry-run
  capplunder init --standalone -o yaml | kubectl apply -f -`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runInit(cmd.Context(), o)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.standalone, "standalone", false, "add Cluster and Machine, for a cluster without Cluster API")
	fs.BoolVar(&o.uninstall, "uninstall", false, "remove what was installed; refused while there are machines")
	fs.BoolVar(&o.dryRun, "dry-run", false, "print the manifests and send nothing; with --uninstall show what would be removed")
	fs.BoolVar(&o.yes, "yes", false, "with --uninstall: do not ask")
	fs.BoolVar(&o.forceConflicts, "force-conflicts", false, "take over fields that others have set to something else")
	fs.StringVarP(&o.output, "output", "o", "", "print the manifests in this `format`, yaml or json, and send nothing")
	return cmd
}

// check refuses what does not go together.
func (o *initOptions) check(cmd *cobra.Command) error {
	given := func(flag string) bool { return cmd.Flags().Changed(flag) }
	switch {
	case o.f.opts.simulate && given("simulate"):
		return usagef(cmd, "--simulate: simulated machines need no Kubernetes cluster, there is nothing to prepare")
	case o.output != "" && o.output != formatYAML && o.output != formatJSON:
		return usagef(cmd, "-o %q: init knows -o yaml and -o json", o.output)
	case given("plunder-secret") && !given("plunder-config"):
		return usagef(cmd, "--plunder-secret says where to store a configuration: say which with --plunder-config FILE")
	}
	for _, flag := range []string{"standalone", "plunder-config", "force-conflicts", "output"} {
		if o.uninstall && given(flag) {
			return usagef(cmd, "--%s does not go with --uninstall", flag)
		}
	}
	if o.yes && !o.uninstall {
		return usagef(cmd, "--yes goes with --uninstall: installing asks nothing")
	}
	return nil
}

func runInit(ctx context.Context, o *initOptions) error {
	if o.uninstall {
		return runUninstall(ctx, o)
	}
	f := o.f
	opts := install.Options{Standalone: o.standalone, Force: o.forceConflicts}
	var err error
	if opts.Secret, err = o.secret(); err != nil {
		return err
	}
	if o.dryRun || o.output != "" {
		return o.print(opts)
	}
	client, err := f.dial()
	if err != nil {
		return err
	}
	f.noticef("preparing %s", client.Target)
	if err := install.Install(ctx, client, opts, o.report); err != nil {
		return o.failing(err)
	}
	o.goOn(ctx, client, opts)
	return nil
}

// dial connects to the cluster that is meant. Nothing is asked of it yet.
func (f *factory) dial() (*kube.Client, error) {
	target, err := f.target()
	if errors.Is(err, kube.ErrNoConfig) {
		return nil, nextError{failing(err), f.commandLine() + " --kubeconfig FILE"}
	}
	if err != nil {
		return nil, failing(err)
	}
	client, err := kube.Dial(target)
	return client, failing(err)
}

// failing marks an error as the cluster's and adds what to type next.
func (o *initOptions) failing(err error) error {
	var conflict *install.ConflictError
	switch {
	case errors.As(err, &conflict):
		return nextError{failing(err), o.f.commandLine() + " --force-conflicts"}
	case errors.Is(err, capi.ErrUnavailable):
		return nextError{failing(err), o.f.commandLine()}
	}
	return failing(err)
}

// report tells what happened to an object, as kubectl does.
func (o *initOptions) report(object, what, detail string) {
	kind, name, _ := strings.Cut(object, " ")
	line := strings.ToLower(kind) + "/" + name + " " + what
	if detail != "" {
		line += " (" + detail + ")"
	}
	fmt.Fprintln(o.f.io.Out, line)
}

// secret is the configuration to store: that of --plunder-config, if it was typed here.
// A file that is only found by looking around is nobody's wish to store it.
func (o *initOptions) secret() (*install.Secret, error) {
	f := o.f
	if !strings.HasPrefix(f.source("plunder-config"), "flag ") {
		return nil, nil //nolint:nilnil // no secret is an answer
	}
	where := f.opts.plunderSecret
	if where == "" {
		where = install.SecretName
	}
	key, err := secretKey(where)
	if err != nil {
		return nil, err
	}
	path, err := plunder.FindConfig(f.opts.plunderConfig, f.getenv)
	if err != nil {
		return nil, usagef(nil, "%w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef(nil, "%w", err)
	}
	cfg, err := plunder.ParseConfig(data, path)
	if err != nil {
		return nil, usagef(nil, "%w", err)
	}
	// What a client needs and nothing else: the server's own file has its private key.
	if data, err = cfg.Encode(); err != nil {
		return nil, err
	}
	return &install.Secret{Key: key, Data: data}, nil
}

// print shows the manifests. A secret is not among them.
func (o *initOptions) print(opts install.Options) error {
	secret := opts.Secret
	opts.Secret = nil
	manifests := install.Manifests(opts)
	if secret != nil {
		o.f.noticef("secret %s with %s is not shown: init stores it when it runs against the cluster", secret.Key, install.SecretKey)
	}
	if o.output == formatJSON {
		list := map[string]any{"apiVersion": "v1", "kind": "List"}
		var items []any
		for _, m := range manifests {
			items = append(items, m.Object.Object)
		}
		list["items"] = items
		return o.f.printObject(output{format: formatJSON}, list)
	}
	for _, m := range manifests {
		text := strings.TrimSpace(string(m.YAML))
		if !strings.HasPrefix(text, "---") {
			text = "---\n" + text
		}
		if _, err := fmt.Fprintln(o.f.io.Out, text); err != nil {
			return err
		}
	}
	return nil
}

// goOn says what is still missing, or what to do with what is there.
func (o *initOptions) goOn(ctx context.Context, client *kube.Client, opts install.Options) {
	f := o.f
	if s := opts.Secret; s != nil {
		f.noticef("every command can read the configuration with --plunder-secret %s", s.Key)
	}
	_, err := kube.Connect(ctx, client.Target)
	if err == nil {
		return
	}
	f.warnf("%v", err)
	for _, next := range nextCommands(err) {
		f.noticef("next: %s", next+f.cluster)
	}
}

func runUninstall(ctx context.Context, o *initOptions) error {
	f := o.f
	if !o.yes && !o.dryRun && !f.io.InTTY {
		return &notConfirmedError{
			message: "not confirmed: there is no terminal to ask on, nothing was changed",
			next:    f.commandLine() + " --yes",
		}
	}
	client, err := f.dial()
	if err != nil {
		return err
	}
	plan, err := install.PlanUninstall(ctx, client)
	if err != nil {
		return o.failing(err)
	}
	if o.dryRun {
		for _, u := range plan.Remove {
			o.report(install.Name(u), install.Deleted, "dry run")
		}
		for _, k := range plan.Keep {
			o.report(k.Object, install.Kept, k.Why)
		}
		return nil
	}
	if len(plan.Remove) == 0 {
		f.noticef("nothing that capplunder installed is in %s", client.Target)
	} else if !o.yes {
		for _, u := range plan.Remove {
			f.io.Err.Linef("%s", install.Name(u))
		}
		word := client.Target.Context
		if word == "" {
			word = crd.Role
		}
		if err := f.confirm(ctx, fmt.Sprintf("This removes them from %s. To go on type %s", client.Target, word), word); err != nil {
			return err
		}
	}
	return o.failing(install.Uninstall(ctx, client, plan, o.report))
}
