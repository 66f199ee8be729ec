package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

type protectOptions struct {
	f *factory
	namespaceOptions

	names  []string
	on     bool
	output string
}

// newProtectCmd is protect, or unprotect.
func newProtectCmd(f *factory, on bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "protect",
		Short: "Keep machines from being deleted",
		Args:  noSubcommand,
		RunE:  help,
	}
	if !on {
		cmd.Use, cmd.Short = "unprotect", "Allow protected machines to be deleted again"
	}
	cmd.AddCommand(newProtectMachineCmd(f, on, nil))
	return cmd
}

func newProtectMachineCmd(f *factory, on bool, runF func(context.Context, *protectOptions) error) *cobra.Command {
	o := &protectOptions{f: f, on: on}
	cmd := &cobra.Command{
		Use:     "machine NAME...",
		Aliases: []string{"machines", "ma"},
		Short:   "Keep machines from being deleted",
		Long: `Keep machines from being deleted. A protected machine is neither wiped nor given
up nor forgotten, whatever a command or a manifest asks for, and its cluster is not
deleted either; other machines are not concerned.

It is the annotation ` + capi.AnnotationProtected + `: "true" of its
Machine, which a manifest may have as well, there or on the PlunderMachine. This
changes the store and sends no request to plunder. Running it twice is once.`,
		Example: `  capplunder protect machine controlplane
  capplunder get machines -o wide
  capplunder unprotect machine controlplane`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runProtect(cmd.Context(), o)
		},
		ValidArgsFunction: f.completeMachines(&o.namespaceOptions),
	}
	if !on {
		cmd.Short = "Allow protected machines to be deleted again"
		cmd.Long = `Allow protected machines to be deleted again. A manifest that has the annotation
` + capi.AnnotationProtected + ` protects its machine again when it is
applied. This changes the store and sends no request to plunder. Running it twice is
once.`
		cmd.Example = "  capplunder unprotect machine controlplane"
	}
	o.namespaceOptions.addFlags(cmd.Flags())
	addOutputFlag(cmd, &o.output, "table, wide or name")
	return cmd
}

func runProtect(ctx context.Context, o *protectOptions) error {
	f := o.f
	command, done := "unprotect machine", "not protected any more"
	if o.on {
		command, done = "protect machine", "protected"
	}
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow(command, formatTable, formatWide, formatName); err != nil {
		return err
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return err
	}
	for _, k := range namedKeys("machine", o.names, store.namespace) {
		err := store.Protect(ctx, k, o.on)
		var missing *state.MissingError
		if errors.As(err, &missing) {
			return &apply.NoRecordError{Keys: []capi.Key{k}, Store: store.String()}
		}
		if err != nil {
			return err
		}
		text := "machine/" + k.Name
		if out.format != formatName {
			text = f.prefix() + text + " " + done
		}
		if _, err := fmt.Fprintln(f.io.Out, text); err != nil {
			return err
		}
	}
	return nil
}
