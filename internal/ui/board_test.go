package ui

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

func TestStatus(t *testing.T) {
	started := func(machine string, step event.Step, second float64) event.Event {
		return event.Event{Time: at(second), Type: event.Started, Machine: machine, Step: step}
	}
	many := []event.Event{{Type: event.PlanReady, Machines: make([]event.PlannedMachine, 100)}}
	for i := range 98 {
		many = append(many, started(fmt.Sprintf("default/worker-%d", i), event.StepOS, 0))
	}
	many = append(many, started("default/cp", event.StepInit, 10))

	tests := []struct {
		name   string
		events []event.Event
		width  int
		want   string
	}{
		{"one namespace", []event.Event{started("default/cp", event.StepInit, 0), started("default/worker", event.StepOS, 3)}, 80, "cp: init 12s, worker: os 9s"},
		{"two namespaces", []event.Event{started("a/cp", event.StepOS, 0), started("b/cp", event.StepOS, 0)}, 80, "a/cp: os 12s, b/cp: os 12s"},
		{"too many to name", many, 40, "init: 1 machine 2s, os: 98 machines 12s"},
		{"too narrow", many, 10, "init: 1 m…"},
		{"between steps", []event.Event{{Type: event.PlanReady, Machines: make([]event.PlannedMachine, 3)}, {Type: event.Ready, Machine: "default/a"}}, 80, "1 of 3 machines"},
		{"no width at all", many, -3, "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard()
			for _, e := range tt.events {
				b.add(e)
			}
			if got := b.status(at(12), tt.width); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAwaitedNamesNotTooMany(t *testing.T) {
	b := newBoard()
	for i := range 100 {
		b.add(event.Event{Time: at(0), Type: event.Started, Machine: fmt.Sprintf("default/worker-%02d", i), Step: event.StepOS})
	}
	lines := b.awaited(at(30))
	if len(lines) != 1 || !strings.HasSuffix(lines[0], "default/worker-19 and 80 more") {
		t.Errorf("got %q", lines)
	}
}

func TestBoardForgetsWhatEnded(t *testing.T) {
	b := newBoard()
	for _, e := range story() {
		b.add(e)
	}
	if tasks := b.tasks(); len(tasks) > 0 {
		t.Errorf("still running: %v", tasks)
	}
}

func TestNoHardwareForGood(t *testing.T) {
	b := newBoard()
	for _, next := range []string{"", "capplunder get unleased"} {
		b.add(event.Event{Time: at(0), Type: event.NoHardware, Machine: "default/a", Step: event.StepHardware, Next: next})
		if got, want := len(b.tasks()), 1; next == "" && got != want {
			t.Errorf("while it waits: %d tasks, want %d", got, want)
		}
	}
	if len(b.tasks()) > 0 || !b.finished["default/a"] {
		t.Errorf("still running: %v", b.tasks())
	}
}
