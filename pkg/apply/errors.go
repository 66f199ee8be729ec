package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// ErrNoHardware says that there was no free machine within the hardware time-out.
var ErrNoHardware = errors.New("no hardware found")

// SafetyError stops where going on could touch the wrong machine; nothing was done.
type SafetyError struct{ Message string }

// Error implements error.
func (e *SafetyError) Error() string { return e.Message }

// RecordError says that work was done whose result could not be recorded.
type RecordError struct {
	Key        capi.Key
	ProviderID string // of the finished machine, "" when it is not finished
	Err        error
}

// Error implements error.
func (e *RecordError) Error() string {
	if e.ProviderID != "" {
		return fmt.Sprintf("the machine is ready as %s, but that could not be recorded (the next run records it and installs nothing): %v", e.ProviderID, e.Err)
	}
	return fmt.Sprintf("could not record progress: %v", e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *RecordError) Unwrap() error { return e.Err }

// MachineError is why one machine is not ready.
type MachineError struct {
	Key  capi.Key // of the Machine
	Step event.Step
	Err  error
	Next string // a command to type
}

// Error implements error.
func (e *MachineError) Error() string {
	return fmt.Sprintf("Machine %s: %s: %v", e.Key, e.Step, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *MachineError) Unwrap() error { return e.Err }

// RunError is the end of a run in which not all machines became ready. Its
// machines' errors are found with errors.Is and errors.As.
type RunError struct {
	Counts   event.Counts
	Machines []*MachineError
}

// Error implements error: one line per machine.
func (e *RunError) Error() string {
	if len(e.Machines) == 1 && e.Counts.Ready+e.Counts.Skipped == 0 {
		return e.Machines[0].Error()
	}
	lines := []string{countsText(e.Counts)}
	for _, m := range e.Machines {
		lines = append(lines, m.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As every machine's error.
func (e *RunError) Unwrap() []error {
	errs := make([]error, len(e.Machines))
	for i, m := range e.Machines {
		errs[i] = m
	}
	return errs
}

// outcome classifies the error of one machine.
func outcome(err error) event.Type {
	var te *wait.TimeoutError
	var re *RecordError
	switch {
	case err == nil:
		return event.Ready
	case errors.As(err, &re) && re.ProviderID != "":
		return event.Failed // whatever kept the store from answering
	case errors.Is(err, ErrNoHardware):
		return event.NoHardware
	case errors.As(err, &te):
		return event.TimedOut
	case errors.Is(err, context.Canceled):
		return event.Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return event.TimedOut
	default:
		return event.Failed
	}
}
