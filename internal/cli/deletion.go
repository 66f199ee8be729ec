package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// deletion is what the commands have in common that take machines away: their flags,
// the question, the run.
type deletion struct {
	f *factory
	namespaceOptions
	limits
	receiptFlags

	yes    bool
	dryRun bool
	engine apply.DeleteOptions
	output string
	// only, if not nil, are the machines that may be deleted, whatever a cluster has.
	only []capi.Key
}

// deletionHelp is the part of the help that all commands share.
const deletionHelp = `Every host has to prove that it is the recorded hardware, with the recorded disks.
Its node leaves its cluster, its deployment is pointed at plunder's reboot loop, its
disks are wiped and read back, it is reset, and when plunder has seen it boot again
its deployment and its record are removed. A machine whose wipe is not proved is
recorded as Dirty and is not free. A protected machine is refused.

All data on the disks is lost. What is on them is shown first, and on a terminal the
name of the machine has to be typed, for several machines that of their cluster;
elsewhere --yes is needed. A deletion that was interrupted goes on when it is run
again. A machine whose host will never answer again is given up with --force-remove:
nothing is wiped, its disks keep their data.`

func (o *deletion) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&o.yes, "yes", false, "do not ask")
	fs.BoolVar(&o.dryRun, "dry-run", false, "show what would be wiped and done: hosts are looked at, nothing is changed")
	fs.BoolVar(&o.engine.ForceRemove, "force-remove", false, "drop machines whose hosts no longer answer, without a wipe: their disks keep their data")
	fs.BoolVar(&o.engine.ForceQuorum, "force-quorum", false, "take control planes away even where the rest of etcd has no majority: the cluster may be lost")
	fs.BoolVar(&o.engine.SkipDrain, "skip-drain", false, "delete nodes with the pods that run on them, instead of moving those away first")
	fs.BoolVar(&o.engine.NoWait, "no-wait", false, "do not wait until plunder sees wiped machines boot")
	fs.StringVar(&o.engine.Disk, "disk", capi.DisksInstalled, "`which` disks to wipe: installed (those that hold the system), all-internal, or a device beside the system's (/dev/sdb)")
	fs.StringVar((*string)(&o.engine.Mode), "wipe", string(capi.WipeQuick), "`how` to wipe: quick, zero, discard or secure")
	o.receiptFlags.addFlags(fs)
	o.namespaceOptions.addFlags(fs)
	o.limits.addFlags(fs)
	o.addDeleteFlags(fs)
	addOutputFlag(cmd, &o.output, "table, wide, name or json (one object per event); with --dry-run also yaml and jsonpath=TEMPLATE")
	complete := func(flag string, words ...string) {
		// Only a flag that does not exist can fail.
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	var modes []string
	for _, m := range capi.WipeModes() {
		modes = append(modes, string(m))
	}
	complete("wipe", modes...)
	complete("disk", capi.DisksInstalled, capi.DisksAllInternal)
}

// device is a disk as --disk takes it.
var device = regexp.MustCompile(`^/dev/[A-Za-z0-9][A-Za-z0-9._+:/-]*$`)

// check refuses what can't be meant, before anything is opened.
func (o *deletion) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	switch disk := o.engine.Disk; {
	case disk != capi.DisksInstalled && disk != capi.DisksAllInternal && (!device.MatchString(disk) || strings.Contains(disk, "..")):
		return usagef(cmd, "--disk %q: want %s, %s or a device as /dev/sdb", disk, capi.DisksInstalled, capi.DisksAllInternal)
	case !slices.Contains(capi.WipeModes(), o.engine.Mode):
		return usagef(cmd, "--wipe %q: want one of %v", string(o.engine.Mode), capi.WipeModes())
	case o.receiptKey != "" && o.receipt == "":
		return usagef(cmd, "--receipt-key goes with --receipt")
	}
	if o.engine.ForceRemove {
		for _, flag := range []string{"disk", "wipe", "receipt"} {
			if changed(flag) {
				return usagef(cmd, "--force-remove wipes nothing, so --%s means nothing with it", flag)
			}
		}
	}
	return o.limits.check(cmd)
}

// run deletes what choose says. Without somebody to ask, and without --yes, it ends
// before anything is opened.
func (o *deletion) run(ctx context.Context, command string, choose func(context.Context, *opened) (apply.Targets, error)) error {
	f := o.f
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := out.allow(command, formatTable, formatWide, formatName, formatJSON); err != nil {
			return err
		}
		if !o.yes && !f.io.InTTY {
			return &notConfirmedError{
				message: "not confirmed: there is no terminal to ask on, nothing was changed",
				next:    f.commandLine() + " --yes",
			}
		}
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return err
	}
	targets, err := choose(ctx, store)
	if err != nil {
		return err
	}
	if !targets.All && len(targets.Machines)+len(targets.Clusters) == 0 {
		f.noticef("nothing to delete")
		return nil
	}
	opts := o.engine
	opts.DrainTimeout, opts.RunID, opts.By = o.drain, newRunID(time.Now()), person()
	if o.dryRun {
		return o.preview(ctx, out, store, targets, opts)
	}
	server, err := f.Server(ctx, true)
	if err != nil {
		return err
	}
	receipt, err := openReceipt(ctx, f, o.receiptFlags, server.URL())
	if err != nil {
		return errors.Join(err, server.Close())
	}
	opts.Wiped = receipt.add
	reporter := f.reporter(out)
	engine := apply.New(server, store, reporter.Report, f.engineOptions(o.limits))
	res, err := engine.Delete(ctx, targets, opts, func(p apply.Preview) error { return o.confirm(ctx, p) })
	err = errors.Join(err, reporter.Close(), server.Close(), receipt.close())
	err = errors.Join(err, f.printDeleted(out, res))
	receipt.summary()
	return err
}

// preview is --dry-run. What simulated machines go through meanwhile is forgotten.
func (o *deletion) preview(ctx context.Context, out output, store *opened, targets apply.Targets, opts apply.DeleteOptions) error {
	f := o.f
	server, err := f.Server(ctx, false)
	if err != nil {
		return err
	}
	reporter := f.reporter(output{format: formatTable}) // stdout is for the plan
	p, err := apply.New(server, store, reporter.Report, f.engineOptions(o.limits)).Preview(ctx, targets, opts)
	if err = errors.Join(err, reporter.Close(), server.Close()); err != nil {
		return err
	}
	if err := o.permitted(p); err != nil {
		return err
	}
	if err := f.printPreview(out, p, o.engine.Mode); err != nil {
		return err
	}
	f.noticef("dry run: hosts were looked at, nothing was changed")
	return refusals(p)
}

// permitted refuses machines that turned up beside those that were chosen.
func (o *deletion) permitted(p apply.Preview) error {
	if o.only == nil {
		return nil
	}
	for _, d := range p.Machines {
		if !slices.Contains(o.only, d.Record.Key) {
			return &refusedError{message: fmt.Sprintf("Machine %s has turned up meanwhile and was not named: nothing was changed", d.Record.Key), next: o.f.commandLine()}
		}
	}
	return nil
}

// refusals is the error of a dry run that found machines which would be refused.
func refusals(p apply.Preview) error {
	var errs []error
	for _, d := range p.Machines {
		if d.Fate == apply.FateRefuse {
			errs = append(errs, &refusedError{message: fmt.Sprintf("Machine %s would be refused: %s", d.Record.Key, reason(d))})
		}
	}
	return errors.Join(errs...)
}

// reason is d.Reason without what the row of a table says anyway: the machine, and a step.
func reason(d apply.Doomed) string {
	text := strings.TrimPrefix(d.Reason, fmt.Sprintf("Machine %s: ", d.Record.Key))
	step, why, found := strings.Cut(text, ": ")
	if found && slices.Contains([]event.Step{event.StepIdentity, event.StepDrain}, event.Step(step)) {
		return why
	}
	return text
}

// printDeleted names what is gone; the rest has an error.
func (f *factory) printDeleted(out output, res apply.Result) error {
	if out.format == formatJSON {
		return nil
	}
	var names []string
	for _, m := range res.Machines {
		if m.Outcome == event.Deleted {
			names = append(names, "machine/"+m.Record.Name)
		}
	}
	for _, c := range res.Clusters {
		names = append(names, "cluster/"+c.Name)
	}
	for _, text := range names {
		if out.format != formatName {
			text = f.prefix() + text + " deleted"
		}
		if _, err := fmt.Fprintln(f.io.Out, text); err != nil {
			return err
		}
	}
	return nil
}

// newRunID names a run for good: "20261123T150405Z-4f6h2kq7".
func newRunID(now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:8])
}

// person is who runs the program, as far as the system knows: "ann@desk".
func person() string {
	who, where := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		where = h
	}
	return who + "@" + where
}
