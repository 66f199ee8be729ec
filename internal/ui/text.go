package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// duration writes d for people: "0.3s", "12s", "4m5s".
func duration(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// whole writes d in whole seconds: "0s", "12s", "4m5s".
func whole(d time.Duration) string { return d.Truncate(time.Second).String() }

// doing says what a machine does in a step.
func doing(s event.Step) string {
	switch s {
	case event.StepHardware:
		return "looking for free hardware"
	case event.StepDeployment:
		return "posting the deployment"
	case event.StepOS:
		return "waiting for the operating system"
	case event.StepPackages:
		return "installing packages"
	case event.StepInit:
		return "initialising the control plane"
	case event.StepJoin:
		return "joining the cluster"
	case event.StepBootstrap:
		return "running its bootstrap data"
	case event.StepNode:
		return "waiting for the node"
	case event.StepRecord:
		return "recording the result"
	case event.StepIdentity:
		return "proving the identity of the host"
	case event.StepDrain:
		return "taking the node out of its cluster"
	case event.StepRelease:
		return "pointing the machine at the reboot loop"
	case event.StepWipe:
		return "wiping the disks"
	case event.StepReturn:
		return "waiting until plunder sees the machine boot"
	case event.StepForget:
		return "removing deployment and record"
	}
	return string(s)
}

// line is one event as people read it.
type line struct {
	mark  string // of the terminal reporter
	style string
	text  string
	// level is the verbosity from which the line is shown; quietLine is shown even with --quiet.
	level int
}

const (
	quietLine   = -1
	normalLine  = 0
	verboseLine = 1
)

// lineOf renders an event; text is "" for events that have no line of their own.
func lineOf(e event.Event) line {
	who := e.Machine + ": "
	if e.Machine == "" {
		who = ""
	}
	msg := oneLine(e.Message)
	took := ""
	if e.Elapsed.Duration() >= 100*time.Millisecond {
		took = " (" + duration(e.Elapsed.Duration()) + ")"
	}
	switch e.Type {
	case event.PlanReady, event.Info:
		return line{mark: "•", text: who + msg}
	case event.Started:
		return line{mark: "•", style: styleDim, text: who + doing(e.Step)}
	case event.Waiting:
		return line{mark: "…", style: styleDim, text: who + string(e.Step) + ": " + oneLine(e.Observation) + took, level: verboseLine}
	case event.Done:
		return line{mark: "✓", style: styleGreen, text: who + string(e.Step) + ": " + orElse(msg, "done") + took}
	case event.Skipped:
		return line{mark: "✓", style: styleGreen, text: who + "unchanged: " + msg}
	case event.Ready:
		return line{mark: "✓", style: styleGreen, text: who + msg + took}
	case event.Deleted:
		return line{mark: "✓", style: styleGreen, text: strings.TrimSuffix(who+"deleted: "+msg, ": ") + took}
	case event.Failed:
		return line{mark: "✗", style: styleRed, text: who + string(e.Step) + ": failed: " + msg + took, level: quietLine}
	case event.TimedOut:
		return line{mark: "✗", style: styleRed, text: who + string(e.Step) + ": " + msg, level: quietLine}
	case event.Cancelled:
		return line{mark: "✗", style: styleYellow, text: who + string(e.Step) + ": " + orElse(msg, "interrupted"), level: quietLine}
	case event.NoHardware:
		return line{mark: "!", style: styleYellow, text: who + msg, level: quietLine}
	case event.Warning:
		return line{mark: "!", style: styleYellow, text: "warning: " + who + msg, level: quietLine}
	case event.Summary:
		return line{mark: "•", text: summary(e)}
	}
	return line{}
}

func summary(e event.Event) string {
	if c := e.Counts; c != nil && c.Skipped > 0 && *c == (event.Counts{Skipped: c.Skipped}) {
		return fmt.Sprintf("nothing to do: %s unchanged", count(c.Skipped, "machine"))
	}
	return oneLine(e.Message) + " in " + duration(e.Elapsed.Duration())
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// count is "1 machine", "2 machines".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
