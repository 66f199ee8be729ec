package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

type logsOptions struct {
	f *factory
	namespaceOptions

	machine  string
	follow   bool
	task     string
	timeout  time.Duration
	interval time.Duration
	output   string
}

func newLogsCmd(f *factory, runF func(context.Context, *logsOptions) error) *cobra.Command {
	o := &logsOptions{f: f}
	cmd := &cobra.Command{
		Use:   "logs machine NAME",
		Short: "Show what plunder runs on a machine over SSH",
		Long: `Show what plunder runs on a machine over SSH, or ran there last: every action, how
it ended, and what it printed. What looks like a secret is hidden.

This only reads: the log stays where it is. The plunder server keeps it in memory,
one for each address, and an apply begins a new one for every job.`,
		Example: `  capplunder logs machine worker
  capplunder logs machine worker --follow
  capplunder logs machine production/worker --task kube.packages
  capplunder logs machine worker -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd, args); err != nil {
				return err
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runLogs(cmd.Context(), o)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []cobra.Completion{"machine"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return f.completeMachines(&o.namespaceOptions)(cmd, args, toComplete)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	fs := cmd.Flags()
	o.namespaceOptions.addFlags(fs)
	fs.BoolVarP(&o.follow, "follow", "f", false, "go on and show what is added, until the machine is ready or has failed, or Ctrl-C")
	fs.StringVar(&o.task, "task", "", "show only the actions of this `name`")
	fs.DurationVar(&o.timeout, "timeout", 0, "limit over all (`duration` as 90s, 45m, 1h30m; 0 = none)")
	fs.DurationVar(&o.interval, "interval", 0, "pause between two looks of --follow (default 2s)")
	addOutputFlag(cmd, &o.output, "json; with --follow one object per action, and at last the state")
	return cmd
}

func (o *logsOptions) check(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && slices.Contains([]string{"machine", "machines", "ma"}, args[0]) {
		args = args[1:]
	} else if len(args) > 0 && !strings.HasPrefix(args[0], "machine/") {
		return usagef(cmd, "unexpected argument %q: there are logs of machines: \"machine NAME\"", args[0])
	}
	switch {
	case len(args) == 0:
		return usagef(cmd, "of which machine? Give its name: \"machine NAME\"")
	case len(args) > 1:
		return usagef(cmd, "logs of one machine at a time, not of %s", strings.Join(args, " and "))
	case o.timeout < 0 || o.interval < 0:
		return usagef(cmd, "--timeout and --interval must not be negative")
	}
	o.machine = strings.TrimPrefix(args[0], "machine/")
	return nil
}

// machineLog is a log as JSON; the fields are documented in docs/commands/logs.md.
type machineLog struct {
	Machine string      `json:"machine"` // namespace/name
	Address string      `json:"address"`
	Server  string      `json:"server"`
	State   string      `json:"state"` // "" for no log
	Entries []loggedRun `json:"entries"`
}

// loggedRun is one action that ended.
type loggedRun struct {
	Machine string    `json:"machine"`
	Time    time.Time `json:"time"`
	Task    string    `json:"task"`
	Job     string    `json:"job,omitempty"`
	Error   string    `json:"error,omitempty"`
	Output  string    `json:"output,omitempty"`
}

// logState ends the entries of --follow -o json.
type logState struct {
	Machine string `json:"machine"`
	State   string `json:"state"`
}

func runLogs(ctx context.Context, o *logsOptions) (err error) {
	f := o.f
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("logs", formatTable, formatJSON); err != nil {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = wait.WithLimit(ctx, o.timeout, "--timeout")
		defer cancel()
	}
	store, err := f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return err
	}
	key := capi.ParseKey(o.machine, store.namespace)
	rec, ok, err := store.Record(ctx, key)
	switch {
	case err != nil:
		return err
	case !ok:
		return &apply.NoRecordError{Keys: []capi.Key{key}, Store: store.String()}
	case rec.Address == "" && !o.follow:
		return o.nothing(out, rec, "", "no hardware was given to it yet")
	}
	server, err := f.Server(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if rec.Server != "" && rec.Server != server.URL() {
		f.warnf("Machine %s was installed by %s; this is the log of its address on %s", key, rec.Server, server.URL())
	}
	r := &logReader{o: o, out: out, rec: rec, server: server, shown: map[string]bool{}, look: func(ctx context.Context) (capi.Record, bool, error) {
		return store.Record(ctx, key)
	}}
	if o.follow {
		return r.followed(ctx)
	}
	return r.once(ctx)
}

// nothing says that there is no log, which is no failure.
func (o *logsOptions) nothing(out output, rec capi.Record, server, why string) error {
	f := o.f
	f.noticef("no log of Machine %s: %s", rec.Key, why)
	f.noticef("next: %s get machines %s -n %s -o yaml%s", name, rec.Name, rec.Namespace, f.place)
	if out.format != formatJSON {
		return nil
	}
	if o.follow {
		return printLine(f, logState{Machine: rec.Key.String()})
	}
	return f.printObject(out, machineLog{Machine: rec.Key.String(), Address: rec.Address, Server: server, Entries: []loggedRun{}})
}

// noLog is why a server has no log of an address.
const noLog = "plunder has run nothing at its address since the server was started, or the first action has not ended yet"

// logSource is a plunder server.
type logSource interface {
	URL() string
	Log(ctx context.Context, address string) (wire.Log, error)
}

// logReader shows the log of one address, every entry once.
type logReader struct {
	o      *logsOptions
	out    output
	rec    capi.Record
	server logSource
	shown  map[string]bool // the entries that were seen
	others []string        // tasks that --task left out
	found  bool            // an entry was shown
	// look is the record as it stands; ok is false when there is none any more.
	look func(ctx context.Context) (rec capi.Record, ok bool, err error)
}

func (r *logReader) once(ctx context.Context) error {
	log, err := r.server.Log(ctx, r.rec.Address)
	switch {
	case errors.Is(err, wire.ErrNoLog):
		return r.o.nothing(r.out, r.rec, r.server.URL(), noLog)
	case err != nil:
		return fmt.Errorf("log of Machine %s: %w", r.rec.Key, limitOf(ctx, err))
	}
	entries := r.news(log)
	if r.out.format == formatJSON {
		object, err := r.o.f.markSimulated(machineLog{
			Machine: r.rec.Key.String(), Address: r.rec.Address, Server: r.server.URL(), State: log.State, Entries: entries,
		})
		if err != nil {
			return err
		}
		return r.o.f.printObject(r.out, object)
	}
	if err := r.print(entries); err != nil {
		return err
	}
	r.end(log)
	return nil
}

// limitOf names the limit that ended a request, if one did.
func limitOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// followed shows what is added, until a job ended and no other one is to come: an
// installation is several jobs, and each begins the log anew. A server that does not
// answer is asked again, and so is a store.
func (r *logReader) followed(ctx context.Context) error {
	f := r.o.f
	var last wire.Log
	none := false
	told := map[string]bool{}
	tell := func(format string, args ...any) {
		if !told[format] {
			f.noticef(format, args...)
		}
		told[format] = true
	}
	spec := wait.Spec{What: "follow the log", Object: r.rec.Key.String(), Interval: r.o.interval}
	if spec.Interval == 0 {
		spec.Interval = defaultWatchInterval
	}
	err := wait.Until(ctx, spec, func(ctx context.Context) (string, error) {
		// Before the log: what ran until the machine was ready is in a log of afterwards.
		rec, ok, err := r.look(ctx)
		switch {
		case err != nil:
			return "", wait.Pending(err)
		case ok:
			r.rec = rec
		}
		if r.rec.Address == "" {
			tell("Machine %s has no hardware yet: waiting for it", r.rec.Key)
			return "no hardware yet", wait.Pending(nil)
		}
		log, err := r.server.Log(ctx, r.rec.Address)
		switch {
		case errors.Is(err, wire.ErrNoLog) && r.rec.Ready && len(r.shown) == 0:
			none = true
			return "", nil
		case errors.Is(err, wire.ErrNoLog):
			tell("no log of Machine %s yet: waiting for one", r.rec.Key)
			return "no log yet", wait.Pending(nil)
		case errors.Is(err, wire.ErrUnreachable), errors.Is(err, wire.ErrNoAnswer):
			return "", wait.Pending(err)
		case err != nil:
			return "", err
		}
		last = log
		if err := r.print(r.news(log)); err != nil {
			return "", err
		}
		switch {
		case log.State == wire.StateRunning:
			return "the job is running", wait.Pending(nil)
		case ok && !r.rec.Ready && r.rec.Phase != capi.PhaseFailed:
			tell("a job ended, and Machine %s is not ready: waiting for the next job", r.rec.Key)
			return "between two jobs", wait.Pending(nil)
		}
		return "", nil
	})
	switch {
	case errors.Is(err, context.Canceled):
		return &silentError{context.Canceled}
	case err != nil:
		return err
	case none:
		return r.o.nothing(r.out, r.rec, r.server.URL(), noLog)
	case r.out.format == formatJSON:
		return printLine(f, logState{Machine: r.rec.Key.String(), State: last.State})
	}
	r.end(last)
	return nil
}

// news are the entries that were not shown yet, without those that --task leaves out.
func (r *logReader) news(log wire.Log) []loggedRun {
	entries := []loggedRun{}
	for _, e := range log.Entries {
		// A new job begins a new log, so positions mean nothing.
		id := e.Task + " " + e.Created.String()
		if r.shown[id] {
			continue
		}
		r.shown[id] = true
		task, job, _ := strings.Cut(e.Task, "#")
		if r.o.task != "" && task != r.o.task {
			if !slices.Contains(r.others, task) {
				r.others = append(r.others, task)
			}
			continue
		}
		text := e.Entry
		if strings.TrimSpace(text) == wire.NoOutput {
			text = ""
		}
		r.found = true
		entries = append(entries, loggedRun{
			Machine: r.rec.Key.String(), Time: e.Created.UTC(), Task: printable(task), Job: printable(job), Error: hidden(e.Error), Output: hidden(text),
		})
	}
	return entries
}

func (r *logReader) print(entries []loggedRun) error {
	var buf bytes.Buffer
	for _, e := range entries {
		if r.out.format == formatJSON {
			if err := printLine(r.o.f, e); err != nil {
				return err
			}
			continue
		}
		how := "ok"
		if e.Error != "" {
			how = "failed: " + strings.ReplaceAll(strings.TrimSpace(e.Error), "\n", "; ")
		}
		fmt.Fprintf(&buf, "%s%s %s %s\n", r.o.f.prefix(), e.Time.Format(time.RFC3339), e.Task, how)
		for line := range strings.Lines(strings.TrimRight(e.Output, "\n")) {
			fmt.Fprintf(&buf, "%s  %s\n", r.o.f.prefix(), strings.TrimRight(line, "\n"))
		}
	}
	_, err := r.o.f.io.Out.Write(buf.Bytes())
	return err
}

// end says how the job stands, and what may have been meant if nothing was shown.
func (r *logReader) end(log wire.Log) {
	f := r.o.f
	if r.o.task != "" && !r.found {
		tasks := map[string]bool{}
		for _, t := range r.others {
			tasks[t] = true
		}
		f.noticef("no action %q in the log of Machine %s, there are %s%s", r.o.task, r.rec.Key, strings.Join(r.others, ", "), didYouMean(r.o.task, tasks))
	}
	text := fmt.Sprintf("Machine %s at %s: the job is %s", r.rec.Key, r.rec.Address, strings.ToLower(log.State))
	if log.State == wire.StateRunning {
		f.noticef("%s, actions that have ended: %d; --follow shows the rest", text, len(log.Entries))
		return
	}
	f.noticef("%s, actions: %d", text, len(log.Entries))
}

// printLine writes an object as one line of JSON.
func printLine(f *factory, object any) error {
	object, err := f.markSimulated(object)
	if err != nil {
		return err
	}
	data, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	_, err = f.io.Out.Write(append(data, '\n'))
	return err
}

// fenced is what lies between two markers of ours: a kubeconfig, which may be readable.
var fenced = regexp.MustCompile(`(?s)(CAPPLUNDER-[A-Z]+-BEGIN).*?(CAPPLUNDER-[A-Z]+-END|$)`)

// hidden is a text from a machine to show: without secrets, and without what a terminal
// would obey.
func hidden(text string) string {
	return printable(translate.Mask(fenced.ReplaceAllString(text, "$1 *** $2")))
}

// printable drops control characters.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && unicode.IsControl(c) {
			return -1
		}
		return c
	}, text)
}
