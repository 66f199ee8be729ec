package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// addOutputFlag adds -o.
func addOutputFlag(cmd *cobra.Command, value *string, formats string) {
	cmd.Flags().StringVarP(value, "output", "o", "", "output `format`: "+formats)
	// The formats are words, not files.
	_ = cmd.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{formatTable, formatWide, formatJSON, formatYAML, formatName, formatJSONPath + "="}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
}

// groupedUsage is the usage of a command without subcommands whose flags stand under
// several headings.
func groupedUsage(cmd *cobra.Command) error {
	general, groups := pflag.NewFlagSet("", pflag.ContinueOnError), map[string]*pflag.FlagSet{}
	cmd.LocalFlags().VisitAll(func(fl *pflag.Flag) {
		names := fl.Annotations[groupAnnotation]
		if len(names) == 0 {
			general.AddFlag(fl)
			return
		}
		if groups[names[0]] == nil {
			groups[names[0]] = pflag.NewFlagSet("", pflag.ContinueOnError)
		}
		groups[names[0]].AddFlag(fl)
	})
	text := fmt.Sprintf("Usage:\n  %s\n\nExamples:\n%s\n\nFlags:\n%s", cmd.UseLine(), cmd.Example, general.FlagUsages())
	for _, title := range slices.Sorted(maps.Keys(groups)) {
		text += fmt.Sprintf("\n%s:\n%s", title, groups[title].FlagUsages())
	}
	if cmd.HasAvailableInheritedFlags() {
		text += "\nGlobal Flags:\n" + cmd.InheritedFlags().FlagUsages()
	}
	_, err := io.WriteString(cmd.OutOrStderr(), text)
	return err
}

// namespaceOptions are -n and -A.
type namespaceOptions struct {
	namespace string
	all       bool
}

func (n *namespaceOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&n.namespace, "namespace", "n", "", "`namespace` of the objects (default that of the kubeconfig's context, else \""+capi.DefaultNamespace+"\")")
}

// addAllFlag adds -A.
func (n *namespaceOptions) addAllFlag(fs *pflag.FlagSet, usage string) {
	fs.BoolVarP(&n.all, "all-namespaces", "A", false, usage)
}

// limits are how long a run may take and how much it does at once. Defaults that
// are not zero here are shown in help; zero means the engine's.
type limits struct {
	timeout, hardware, os, kubernetes time.Duration
	drain, wipe, returned             time.Duration
	concurrency                       int
	interval                          time.Duration
	lock, record                      time.Duration
}

func (l *limits) addFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&l.timeout, "timeout", 0, "limit over all (`duration` as 90s, 45m, 1h30m; 0 = none)")
	fs.IntVar(&l.concurrency, "concurrency", 50, "how many machines are worked on over SSH at once")
	fs.DurationVar(&l.interval, "interval", 0, "shortest pause between two looks at the same thing (default 2s; long waits look less often)")
	fs.DurationVar(&l.lock, "lock-timeout", 0, "how long to wait for another run that works on the same machines")
}

func (l *limits) addApplyFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&l.hardware, "hardware-timeout", 10*time.Minute, "how long machines wait for free hardware")
	fs.DurationVar(&l.os, "os-timeout", 45*time.Minute, "limit for one machine's operating system")
	fs.DurationVar(&l.record, "record-timeout", 2*time.Minute, "how long a finished machine waits for a store that does not answer")
	fs.DurationVar(&l.kubernetes, "kubernetes-timeout", 30*time.Minute, "limit for one machine's Kubernetes")
}

func (l *limits) addDeleteFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&l.drain, "drain-timeout", 5*time.Minute, "limit for moving the pods of one node away")
	fs.DurationVar(&l.wipe, "wipe-timeout", 15*time.Minute, "limit for each of identity check, release and wipe of one machine")
	fs.DurationVar(&l.returned, "return-timeout", 15*time.Minute, "how long to wait until a wiped machine is seen in the pool")
}

// check refuses what can't be meant.
func (l *limits) check(cmd *cobra.Command) error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"timeout", l.timeout}, {"hardware-timeout", l.hardware}, {"os-timeout", l.os}, {"kubernetes-timeout", l.kubernetes},
		{"drain-timeout", l.drain}, {"wipe-timeout", l.wipe}, {"return-timeout", l.returned}, {"interval", l.interval}, {"lock-timeout", l.lock}, {"record-timeout", l.record},
	} {
		fl := cmd.Flags().Lookup(d.flag)
		if fl == nil {
			continue
		}
		zeroMeansDefault := d.flag == "timeout" || d.flag == "interval" || d.flag == "lock-timeout"
		if d.value < 0 || d.value == 0 && !zeroMeansDefault {
			return usagef(cmd, "--%s %s: must be more than 0", d.flag, d.value)
		}
	}
	if l.concurrency < 1 {
		return usagef(cmd, "--concurrency %d: must be 1 or more", l.concurrency)
	}
	return nil
}

// simulatedInterval is for simulated machines, which take seconds, not minutes.
const simulatedInterval = 200 * time.Millisecond

// engineOptions is limits as the engine takes them.
func (f *factory) engineOptions(l limits) apply.Options {
	if f.opts.simulate && l.interval == 0 {
		l.interval = simulatedInterval
	}
	return apply.Options{
		Timeout:           l.timeout,
		HardwareTimeout:   l.hardware,
		OSTimeout:         l.os,
		KubernetesTimeout: l.kubernetes,
		WipeTimeout:       l.wipe,
		ReturnTimeout:     l.returned,
		Concurrency:       l.concurrency,
		Interval:          l.interval,
		LockTimeout:       l.lock,
		RecordTimeout:     l.record,
		Resume:            f.commandLine(),
		Simulated:         f.opts.simulate,
	}
}
