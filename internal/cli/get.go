package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
)

func newGetCmd(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show machines, events, kubeconfigs, and what the plunder server knows",
		Args:  noSubcommand,
		RunE:  help,
	}
	for _, r := range []resource{machinesResource(), eventsResource(), unleasedResource(), leasesResource(), deploymentsResource(), bootConfigsResource()} {
		cmd.AddCommand(newGetResourceCmd(f, r, nil))
	}
	cmd.AddCommand(newGetKubeconfigCmd(f, nil))
	return cmd
}

// resource is something that `get` can show.
type resource struct {
	name       string
	aliases    []string
	short      string
	long       string
	example    string
	namespaced bool
	// named: NAME arguments choose among the objects.
	named bool
	fetch func(ctx context.Context, o *getOptions) (list, error)
}

type getOptions struct {
	f *factory
	namespaceOptions
	resource resource

	names    []string
	watch    bool
	interval time.Duration
	output   string
	// client is kept between the looks of --watch.
	client getClient
}

// defaultWatchInterval is the pause between two looks of --watch.
const defaultWatchInterval = 2 * time.Second

func newGetResourceCmd(f *factory, r resource, runF func(context.Context, *getOptions) error) *cobra.Command {
	o := &getOptions{f: f, resource: r}
	cmd := &cobra.Command{
		Use:     r.name,
		Aliases: r.aliases,
		Short:   r.short,
		Long:    r.long,
		Example: r.example,
		Args:    arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if o.interval < 0 {
				return usagef(cmd, "--interval %s: must not be negative", o.interval)
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runGet(cmd.Context(), o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	if r.named {
		cmd.Use += " [NAME...]"
		cmd.Args = cobra.ArbitraryArgs
		cmd.ValidArgsFunction = f.completeMachines(&o.namespaceOptions)
	}
	fs := cmd.Flags()
	if r.namespaced {
		o.namespaceOptions.addFlags(fs)
		o.addAllFlag(fs, "objects of all namespaces")
	}
	fs.BoolVarP(&o.watch, "watch", "w", false, "go on and show what changes, until Ctrl-C")
	fs.DurationVar(&o.interval, "interval", 0, "pause between two looks of --watch (default 2s)")
	addOutputFlag(cmd, &o.output, "table, wide, json, yaml, name or jsonpath=TEMPLATE")
	return cmd
}

func runGet(ctx context.Context, o *getOptions) (err error) {
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.client.close()) }()
	l, err := o.resource.fetch(ctx, o)
	if err != nil {
		return err
	}
	if !o.watch {
		err = o.f.show(out, l, len(o.names) == 1)
		for _, text := range l.notices {
			o.f.noticef("%s", text)
		}
		return err
	}
	return o.runWatch(ctx, out, l)
}

// runWatch shows l, and from then on every object that is new or has changed.
// It ends with the context.
func (o *getOptions) runWatch(ctx context.Context, out output, l list) error {
	interval := o.interval
	if interval == 0 {
		interval = defaultWatchInterval
	}
	w := &watch{f: o.f, out: out}
	if err := w.show(l); err != nil {
		return err
	}
	failing := false
	for {
		if wait.Sleep(ctx, interval) != nil {
			return &silentError{ctx.Err()}
		}
		next, err := o.resource.fetch(ctx, o)
		switch {
		case ctx.Err() != nil:
			return &silentError{ctx.Err()}
		case err == nil:
			if err := w.show(next); err != nil {
				return err
			}
		case !failing:
			o.f.warnf("%v; still watching", err)
		}
		failing = err != nil
	}
}

// watch shows what differs between two looks at a list.
type watch struct {
	f      *factory
	out    output
	before map[string]item
	header string // the last one that was printed
}

func (w *watch) show(l list) error {
	now := map[string]item{}
	changed := make([]bool, len(l.items))
	for i, it := range l.items {
		now[it.key] = it
		old, known := w.before[it.key]
		changed[i] = !known || w.mark(old) != w.mark(it)
	}
	for _, key := range slices.Sorted(maps.Keys(w.before)) {
		if _, there := now[key]; !there {
			w.f.noticef("%s is gone", w.before[key].name)
		}
	}
	first := w.before == nil
	w.before = now
	switch {
	case w.out.format == formatTable || w.out.format == formatWide:
		if !first && !slices.Contains(changed, true) {
			return nil
		}
		return w.rows(l, changed)
	case first:
		return w.f.show(w.out, l, false)
	}
	for i, it := range l.items {
		if changed[i] {
			if err := w.f.show(w.out, list{kind: l.kind, items: []item{it}}, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *watch) mark(it item) string {
	if w.out.format == formatTable && it.brief != "" {
		return it.brief
	}
	return it.mark
}

// rows prints some rows of a table. All rows decide about the widths of the
// columns; when those change, the header comes again.
func (w *watch) rows(l list, which []bool) error {
	t := ui.Table{Columns: l.columns}
	for _, it := range l.items {
		t.Rows = append(t.Rows, it.cells)
	}
	lines, err := t.Lines(w.f.tableOptions(w.out))
	if err != nil {
		return err
	}
	for i, line := range lines {
		show := i > 0 && which[i-1]
		if i == 0 {
			show, w.header = line != w.header, line
		}
		if show {
			if _, err := fmt.Fprintln(w.f.io.Out, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose keeps the items with the given names, in the order of the list.
func choose(l list, what string, names []string) (list, error) {
	if len(names) == 0 {
		return l, nil
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[strings.TrimPrefix(n, what+"/")] = false
	}
	l.items = slices.DeleteFunc(l.items, func(it item) bool {
		n := strings.TrimPrefix(it.name, what+"/")
		_, ok := wanted[n]
		if ok {
			wanted[n] = true
		}
		return !ok
	})
	var missing []error
	for _, n := range names {
		if n = strings.TrimPrefix(n, what+"/"); !wanted[n] {
			missing = append(missing, usagef(nil, "no %s %q", what, n))
		}
	}
	return l, errors.Join(missing...)
}
