package wait

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// pendingError marks an error after which to look again.
type pendingError struct{ err error }

func (e *pendingError) Error() string { return e.err.Error() }
func (e *pendingError) Unwrap() error { return e.err }

// Pending marks err as "not yet": Until looks again. Pending(nil) is pending too.
func Pending(err error) error {
	if err == nil {
		err = errors.New("pending")
	}
	return &pendingError{err: err}
}

// Pendingf is Pending of a formatted error; %w works.
func Pendingf(format string, args ...any) error {
	return &pendingError{err: fmt.Errorf(format, args...)}
}

// IsPending reports whether err was made by Pending or Pendingf.
func IsPending(err error) bool {
	var p *pendingError
	return errors.As(err, &p)
}

// LimitError is the cause of a context that WithLimit made and that ran out.
type LimitError struct {
	Name  string // as a person set it, "--timeout"; may be ""
	Limit time.Duration
}

// Error implements error.
func (e *LimitError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("the limit of %s ran out", e.Limit)
	}
	return fmt.Sprintf("%s of %s ran out", e.Name, e.Limit)
}

// Unwrap makes the error a context.DeadlineExceeded.
func (e *LimitError) Unwrap() error { return context.DeadlineExceeded }

// TimeoutError is a wait that a limit ended: its own, or one around it. It is a
// context.DeadlineExceeded, and whatever the last pending error was.
type TimeoutError struct {
	What, Object string
	// Limit and LimitName are the limit that ran out. They are zero when it was a
	// deadline of the context that WithLimit did not make.
	Limit     time.Duration
	LimitName string
	Elapsed   time.Duration // in this wait; less than Limit when that spans several
	Last      string        // last observation, "" when nothing was ever seen
	LastErr   error         // last pending error, or nil
}

// Error is, for example,
//
//	install OS on default/worker: timed out after 45m0s (last: parlay state "Running"); --os-timeout is 45m0s
func (e *TimeoutError) Error() string {
	text := subject(e.What, e.Object) + "timed out after " + round(e.Elapsed).String() + lastSeen(e.Last)
	if e.LimitName != "" {
		text += "; " + e.LimitName + " is " + e.Limit.String()
	}
	return text
}

// Unwrap gives errors.Is and errors.As the deadline and the last pending error.
func (e *TimeoutError) Unwrap() []error {
	if e.LastErr == nil {
		return []error{context.DeadlineExceeded}
	}
	return []error{context.DeadlineExceeded, e.LastErr}
}

// CancelledError is a wait that was interrupted. It is a context.Canceled.
type CancelledError struct {
	What, Object string
	Elapsed      time.Duration
	Last         string // last observation, "" when nothing was ever seen
	Cause        error  // context.Cause, often just context.Canceled
}

// Error implements error.
func (e *CancelledError) Error() string {
	text := subject(e.What, e.Object) + "interrupted after " + round(e.Elapsed).String() + lastSeen(e.Last)
	if e.Cause != nil && !errors.Is(e.Cause, context.Canceled) {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives errors.Is and errors.As the cancellation and its cause.
func (e *CancelledError) Unwrap() []error {
	if e.Cause == nil {
		return []error{context.Canceled}
	}
	return []error{context.Canceled, e.Cause}
}

func subject(what, object string) string {
	switch {
	case what == "" && object == "":
		return ""
	case object == "":
		return what + ": "
	case what == "":
		return object + ": "
	default:
		return what + " on " + object + ": "
	}
}

func lastSeen(last string) string {
	if last == "" {
		return ""
	}
	// An observation is somebody else's text; an error is one line.
	return " (last: " + strings.Join(strings.Fields(last), " ") + ")"
}

// round drops digits nobody reads.
func round(d time.Duration) time.Duration {
	if d >= 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}
