// Package wait owns the one way in which capplunder waits for something: look at
// once, look again at intervals, under a context and a named limit, and say at
// the end what was seen last. It knows nothing of what is waited for, prints
// nothing and never treats a limit that ran out as success.
package wait

import (
	"context"
	"errors"
	"time"
)

const (
	// defaultInterval keeps a Spec without an interval from spinning.
	defaultInterval = time.Second
	// defaultProbeTimeout is generous: a probe is one request, not a piece of work.
	defaultProbeTimeout = 30 * time.Second
)

// Spec says what is waited for, how often to look, and for how long.
type Spec struct {
	// What is the work, as in "install OS"; Object is whose, as in
	// "default/worker". They begin every error: "install OS on default/worker: ...".
	What, Object string
	// Interval is the pause between the end of one probe and the start of the
	// next (default 1s), so that a slow server is never asked back to back.
	Interval time.Duration
	// IntervalFunc, when set, gives the pause instead, from the time waited so far.
	IntervalFunc func(elapsed time.Duration) time.Duration
	// ProbeTimeout is the deadline of each single probe (default 30s). A probe
	// that runs into it is pending, not failed.
	ProbeTimeout time.Duration
	// Limit is how long to wait in all; 0 means as long as the context allows.
	Limit time.Duration
	// LimitName names the limit in errors, as a person set it: "--os-timeout".
	LimitName string
	// Emit, when set, is told after every pending probe how long the wait has
	// lasted and what was seen last. It is called from the waiting goroutine.
	Emit func(elapsed time.Duration, last string)
}

// Probe looks once. A nil error ends the wait; Pending continues it; any other
// error ends it at once. The observation is what a person should read about the
// thing waited for; when it is empty the text of the pending error stands in.
// A probe must end when its context does.
type Probe func(ctx context.Context) (observation string, err error)

// Until calls probe at once and then at intervals, until it succeeds, fails for
// good, or the limit or the context ends. A permanent error is returned as the
// probe made it; else the error is a *TimeoutError or a *CancelledError.
func Until(ctx context.Context, spec Spec, probe Probe) error {
	start := time.Now()
	cancel := context.CancelFunc(func() {})
	if spec.Limit > 0 {
		ctx, cancel = WithLimit(ctx, spec.Limit, spec.LimitName)
	}
	defer cancel()

	var last string
	var lastErr error
	for {
		if ctx.Err() != nil {
			return spec.ended(ctx, time.Since(start), last, lastErr)
		}
		observation, err := spec.probeOnce(ctx, probe)
		if err == nil {
			return nil
		}
		// A probe that dies because the wait ends has seen nothing: what was seen
		// before it is worth more than "context deadline exceeded".
		if ctx.Err() != nil && isContextError(err) {
			if observation != "" {
				last = observation
			}
			return spec.ended(ctx, time.Since(start), last, lastErr)
		}
		var pending *pendingError
		if !errors.As(err, &pending) {
			return err
		}
		last, lastErr = observation, pending.err
		if last == "" {
			last = err.Error()
		}
		elapsed := time.Since(start)
		if spec.Emit != nil {
			spec.Emit(elapsed, last)
		}
		if err := Sleep(ctx, spec.pause(elapsed)); err != nil {
			return spec.ended(ctx, time.Since(start), last, lastErr)
		}
	}
}

// probeOnce runs the probe under its own deadline. Running into that deadline,
// and only that one, is pending.
func (s Spec) probeOnce(ctx context.Context, probe Probe) (string, error) {
	timeout := s.ProbeTimeout
	if timeout <= 0 {
		timeout = defaultProbeTimeout
	}
	probeCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	observation, err := probe(probeCtx)
	if err != nil && ctx.Err() == nil && probeCtx.Err() != nil && isContextError(err) {
		return observation, Pendingf("no answer within %s", timeout)
	}
	return observation, err
}

func (s Spec) pause(elapsed time.Duration) time.Duration {
	d := s.Interval
	if s.IntervalFunc != nil {
		d = s.IntervalFunc(elapsed)
	}
	if d <= 0 {
		d = defaultInterval
	}
	return d
}

// ended is the error of a wait whose context is over.
func (s Spec) ended(ctx context.Context, elapsed time.Duration, last string, lastErr error) error {
	cause := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return &CancelledError{What: s.What, Object: s.Object, Elapsed: elapsed, Last: last, Cause: cause}
	}
	e := &TimeoutError{What: s.What, Object: s.Object, Elapsed: elapsed, Last: last, LastErr: lastErr}
	// The cause tells which of the nested limits ran out first.
	var limit *LimitError
	if errors.As(cause, &limit) {
		e.Limit, e.LimitName = limit.Limit, limit.Name
	}
	return e
}

// WithLimit is context.WithTimeout for a limit that a person has set: when it runs
// out, every Until under it names it. Use it for limits that span several waits.
func WithLimit(ctx context.Context, limit time.Duration, name string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, &LimitError{Name: name, Limit: limit})
}

// Sleep pauses for d, or until ctx ends, whose error it then returns.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isContextError(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
