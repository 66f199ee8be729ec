package ui

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// board folds events into what every machine does right now. It is a plain value:
// its owner guards it.
type board struct {
	total    int
	finished map[string]bool
	running  map[string]task
}

// task is what one machine does.
type task struct {
	machine     string
	step        event.Step
	since       time.Time
	observation string
}

func newBoard() *board {
	return &board{finished: map[string]bool{}, running: map[string]task{}}
}

// add folds one event in and reports whether it said anything new.
func (b *board) add(e event.Event) bool {
	switch e.Type { //nolint:exhaustive // the others change nothing here
	case event.PlanReady:
		b.total = len(e.Machines)
	case event.Started:
		b.running[e.Machine] = task{machine: e.Machine, step: e.Step, since: e.Time}
	case event.Waiting:
		t, ok := b.running[e.Machine]
		if !ok || t.step != e.Step {
			t = task{machine: e.Machine, step: e.Step, since: e.Time.Add(-e.Elapsed.Duration())}
		}
		changed := t.observation != e.Observation
		t.observation = e.Observation
		b.running[e.Machine] = t
		return changed
	case event.NoHardware:
		if e.Next != "" { // for good: while there is hope, there is no other command to type
			delete(b.running, e.Machine)
			b.finished[e.Machine] = true
			return true
		}
		t, ok := b.running[e.Machine]
		if !ok {
			t = task{machine: e.Machine, step: e.Step, since: e.Time}
		}
		t.observation = e.Message
		b.running[e.Machine] = t
	case event.Done:
		delete(b.running, e.Machine)
	case event.Ready, event.Deleted, event.Skipped, event.Failed, event.TimedOut, event.Cancelled:
		delete(b.running, e.Machine)
		b.finished[e.Machine] = true
	case event.Summary:
		clear(b.running)
	}
	return true
}

// tasks is what runs, by step and machine.
func (b *board) tasks() []task {
	return slices.SortedFunc(maps.Values(b.running), func(x, y task) int {
		return cmp.Or(strings.Compare(string(x.step), string(y.step)), strings.Compare(x.machine, y.machine))
	})
}

// status is one line of at most width characters about everything that runs.
func (b *board) status(now time.Time, width int) string {
	tasks := b.tasks()
	if len(tasks) == 0 {
		return cut(fmt.Sprintf("%d of %s", len(b.finished), count(b.total, "machine")), width)
	}
	short := shortNames(tasks)
	parts := make([]string, len(tasks))
	for i, t := range tasks {
		parts[i] = fmt.Sprintf("%s: %s %s", short(t.machine), t.step, whole(now.Sub(t.since)))
	}
	text := strings.Join(parts, ", ")
	if len([]rune(text)) > width {
		text = strings.Join(bySteps(tasks, now), ", ")
	}
	return cut(text, width)
}

// bySteps sums tasks up: "os: 98 machines 12s".
func bySteps(tasks []task, now time.Time) []string {
	var parts []string
	for len(tasks) > 0 {
		n := 1
		oldest := tasks[0].since
		for n < len(tasks) && tasks[n].step == tasks[0].step {
			if tasks[n].since.Before(oldest) {
				oldest = tasks[n].since
			}
			n++
		}
		parts = append(parts, fmt.Sprintf("%s: %s %s", tasks[0].step, count(n, "machine"), whole(now.Sub(oldest))))
		tasks = tasks[n:]
	}
	return parts
}

// shortNames drops the namespace when all machines share one.
func shortNames(tasks []task) func(string) string {
	common, _, _ := strings.Cut(tasks[0].machine, "/")
	for _, t := range tasks {
		if ns, _, _ := strings.Cut(t.machine, "/"); ns != common {
			return func(s string) string { return s }
		}
	}
	return func(s string) string { return strings.TrimPrefix(s, common+"/") }
}

// maxNames is how many machines one line of a heartbeat names.
const maxNames = 20

// awaited is one line per thing that is awaited, with the machines that wait for it.
func (b *board) awaited(now time.Time) []string {
	type wait struct {
		step        event.Step
		observation string
	}
	var order []wait
	machines := map[wait][]string{}
	oldest := map[wait]time.Time{}
	for _, t := range b.tasks() {
		w := wait{t.step, t.observation}
		if _, ok := machines[w]; !ok {
			order = append(order, w)
			oldest[w] = t.since
		}
		machines[w] = append(machines[w], t.machine)
		if t.since.Before(oldest[w]) {
			oldest[w] = t.since
		}
	}
	lines := make([]string, 0, len(order))
	for _, w := range order {
		names := machines[w]
		more := ""
		if len(names) > maxNames {
			more = fmt.Sprintf(" and %d more", len(names)-maxNames)
			names = names[:maxNames]
		}
		text := fmt.Sprintf("still %s for %s: %s%s", doing(w.step), whole(now.Sub(oldest[w])), strings.Join(names, ", "), more)
		if w.observation != "" {
			text += " (" + oneLine(w.observation) + ")"
		}
		lines = append(lines, text)
	}
	return lines
}
