package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

func newDeleteCmd(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Give machines back",
		Args:  noSubcommand,
		RunE:  help,
	}
	cmd.AddCommand(newDeleteMachineCmd(f, nil))
	return cmd
}

type deleteMachineOptions struct {
	f *factory
	namespaceOptions
	limits

	names       []string
	yes         bool
	forceRemove bool
	output      string
}

func newDeleteMachineCmd(f *factory, runF func(context.Context, *deleteMachineOptions) error) *cobra.Command {
	o := &deleteMachineOptions{f: f}
	cmd := &cobra.Command{
		Use:     "machine NAME...",
		Aliases: []string{"machines", "ma"},
		Short:   "Wipe machines and give them back to the pool",
		Long: `Wipe machines and give them back to the pool.

The host has to prove that it is the recorded hardware. Then its deployment is
pointed at plunder's reboot loop, its disks are wiped and read back, it is reset,
and when plunder has seen it boot again its deployment and its record are
removed. A machine whose wipe is not proved keeps its record.

With the Kubernetes store the deletion shows there at once, and the machine's
objects go when the wipe is proved. A machine whose host will never answer again
is given up with --force-remove: nothing is wiped, its disks keep their data.

All data on the disks is lost. On a terminal the name of the machine has to be
typed (for several machines the name of their cluster); elsewhere --yes is
needed. A deletion that was interrupted goes on when it is run again.`,
		Example: `  capplunder delete machine worker
  capplunder delete machine worker-1 worker-2 -n production --yes

  # The host burnt down
  capplunder delete machine worker --force-remove`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := o.limits.check(cmd); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runDeleteMachine(cmd.Context(), o)
		},
		ValidArgsFunction: f.completeMachines(&o.namespaceOptions),
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.yes, "yes", false, "do not ask")
	fs.BoolVar(&o.forceRemove, "force-remove", false, "drop machines whose hosts no longer answer, without a wipe: their disks keep their data")
	o.namespaceOptions.addFlags(fs)
	o.limits.addFlags(fs)
	o.addDeleteFlags(fs)
	addOutputFlag(cmd, &o.output, "table, wide, name or json (one object per event)")
	return cmd
}

func runDeleteMachine(ctx context.Context, o *deleteMachineOptions) error {
	f := o.f
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("delete machine", formatTable, formatWide, formatName, formatJSON); err != nil {
		return err
	}
	if !o.yes && !f.io.InTTY {
		return &notConfirmedError{
			message: "not confirmed: there is no terminal to ask on, nothing was changed",
			next:    f.commandLine() + " --yes",
		}
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return err
	}
	var keys []capi.Key
	seen := map[capi.Key]bool{}
	for _, n := range o.names {
		k := capi.ParseKey(strings.TrimPrefix(n, "machine/"), store.namespace)
		if !seen[k] {
			keys = append(keys, k)
		}
		seen[k] = true
	}
	server, err := f.Server(ctx, true)
	if err != nil {
		return err
	}
	reporter := f.reporter(out)
	engine := apply.New(server, store, reporter.Report, f.engineOptions(o.limits))
	res, err := engine.Delete(ctx, apply.Targets{Machines: keys}, apply.DeleteOptions{ForceRemove: o.forceRemove}, func(p apply.Preview) error {
		victims := make([]capi.Record, len(p.Machines))
		for i, m := range p.Machines {
			victims[i] = m.Record
		}
		return o.confirm(ctx, victims)
	})
	err = errors.Join(err, reporter.Close(), server.Close())
	return errors.Join(err, f.printDeleted(out, res))
}

// confirm shows what would be wiped and asks.
func (o *deleteMachineOptions) confirm(ctx context.Context, victims []capi.Record) error {
	if !o.f.opts.quiet || !o.yes {
		if err := o.showVictims(victims); err != nil {
			return err
		}
	}
	if o.yes {
		return nil
	}
	if len(victims) == 1 {
		what := "This wipes its disks"
		if o.forceRemove {
			what = "This gives the machine up without a wipe: its disks keep their data"
		}
		return o.f.confirm(ctx, fmt.Sprintf("%s. To go on type the name of the machine (%s)", what, victims[0].Name), victims[0].Name)
	}
	cluster := victims[0].Cluster
	for _, v := range victims {
		if v.Cluster != cluster || v.Namespace != victims[0].Namespace || cluster == "" {
			return &notConfirmedError{message: "machines of several clusters are deleted one cluster at a time, or with --yes; nothing was changed"}
		}
	}
	what := fmt.Sprintf("This wipes the disks of %d machines", len(victims))
	if o.forceRemove {
		what = fmt.Sprintf("This gives %d machines up without a wipe: their disks keep their data", len(victims))
	}
	return o.f.confirm(ctx, fmt.Sprintf("%s. To go on type the name of their cluster (%s)", what, cluster), cluster)
}

func (o *deleteMachineOptions) showVictims(victims []capi.Record) error {
	t := ui.Table{Columns: []ui.Column{{Name: "MACHINE"}, {Name: "HOST"}, {Name: "MAC ADDRESS"}, {Name: "ADDRESS"}, {Name: "DISKS"}}}
	for _, v := range victims {
		disks := make([]string, len(v.Disks))
		for i, d := range v.Disks {
			disks[i] = describeDisk(d)
		}
		t.Rows = append(t.Rows, []string{v.Key.String(), v.HostName, v.MAC, v.Address, strings.Join(disks, "; ")})
	}
	// The console adds the prefix of simulated runs.
	return t.Write(o.f.io.Err, ui.TableOptions{})
}

// describeDisk is "/dev/sda 40.0 GB (root) wwn-0x5000".
func describeDisk(d capi.Disk) string {
	text := fmt.Sprintf("%s %.1f GB", d.Device, float64(d.Bytes)/1e9)
	if d.Flags != "" && d.Flags != "-" {
		text += " (" + d.Flags + ")"
	}
	if d.ID != "" && d.ID != "-" {
		text += " " + d.ID
	}
	return text
}

// printDeleted names the machines that are gone; those that are not have an error.
func (f *factory) printDeleted(out output, res apply.Result) error {
	if out.format == formatJSON {
		return nil
	}
	for _, m := range res.Machines {
		if m.Outcome != event.Deleted {
			continue
		}
		text := "machine/" + m.Record.Name
		if out.format != formatName {
			text = f.prefix() + text + " deleted"
		}
		if _, err := fmt.Fprintln(f.io.Out, text); err != nil {
			return err
		}
	}
	return nil
}
