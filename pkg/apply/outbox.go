package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// outbox keeps writes that a store did not take because it does not answer, and
// sends them when it does again. A machine that installs does not stop for an API
// server that restarts; what must be on record before it goes on, waits (sent).
//
// A newer write of the same name replaces one that was not sent yet, so the store
// gets the last state of each thing and never an older one after a newer one.
type outbox struct {
	run *run

	flushing sync.Mutex // one flush at a time: nothing is sent twice

	mu      sync.Mutex
	waiting map[string]*letter
	order   []string         // names of waiting, oldest first
	down    error            // why the store took nothing the last time; nil when it answers
	sending bool             // a goroutine sends what waits
	wrong   map[string]error // what no repetition mends, until somebody asks
	changed chan struct{}    // closed, and replaced, when something was sent
}

// letter is one write.
type letter struct {
	send func(context.Context) error
}

func newOutbox(r *run) *outbox {
	return &outbox{run: r, waiting: map[string]*letter{}, wrong: map[string]error{}, changed: make(chan struct{})}
}

// put sends a write, or keeps it when the store does not answer. The error is one
// that no repetition mends.
func (o *outbox) put(ctx context.Context, name string, send func(context.Context) error) error {
	o.mu.Lock()
	if err := o.wrong[name]; err != nil {
		delete(o.wrong, name)
		o.mu.Unlock()
		return err
	}
	if len(o.waiting) > 0 { // it is known to be down
		o.keep(name, send)
		o.mu.Unlock()
		return nil
	}
	o.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	err := send(ctx)
	if !errors.Is(err, capi.ErrUnavailable) {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down == nil {
		o.run.emit(event.Event{Type: event.Warning, Message: fmt.Sprintf("%s: %v; the work goes on and is recorded when it answers again", o.run.store, err)})
	}
	o.down = err
	o.keep(name, send)
	return nil
}

// keep adds to what waits; o.mu is held.
func (o *outbox) keep(name string, send func(context.Context) error) {
	if _, there := o.waiting[name]; !there {
		o.order = append(o.order, name)
	}
	o.waiting[name] = &letter{send}
	if !o.sending {
		o.sending = true
		o.run.background.Go(o.deliver)
	}
}

// deliver sends what waits, again and again, until nothing does or the run ends.
func (o *outbox) deliver() {
	began := time.Now()
	for {
		err := wait.Sleep(o.run.base, interval(o.run.opts.Interval, time.Since(began), 10*time.Second))
		if err == nil {
			o.flush(context.WithoutCancel(o.run.base))
		}
		o.mu.Lock()
		if err != nil || len(o.waiting) == 0 {
			o.sending = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
	}
}

// flush tries to send everything once, in order, up to the first that the store
// does not answer. That goes to the end: it may be the only one (a webhook that is
// away keeps Machines from being written, and nothing else).
func (o *outbox) flush(ctx context.Context) {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	for {
		o.mu.Lock()
		if len(o.order) == 0 {
			if o.down != nil {
				o.run.emit(event.Event{Type: event.Info, Message: fmt.Sprintf("%s answers again, everything is recorded", o.run.store)})
			}
			o.down = nil
			o.mu.Unlock()
			return
		}
		name := o.order[0]
		l := o.waiting[name]
		o.mu.Unlock()

		limited, cancel := context.WithTimeout(ctx, saveLimit)
		err := l.send(limited)
		cancel()

		o.mu.Lock()
		if errors.Is(err, capi.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			o.down = err
			o.order = append(o.order[1:], name)
			o.mu.Unlock()
			return
		}
		if o.waiting[name] == l { // else a newer one has replaced it, and counts
			delete(o.waiting, name)
			o.order = slices.Delete(o.order, 0, 1)
			if err != nil {
				o.wrong[name] = err
			}
		}
		close(o.changed)
		o.changed = make(chan struct{})
		o.mu.Unlock()
	}
}

// sent waits until a write has left the outbox, and says how that ended.
func (o *outbox) sent(ctx context.Context, name string, observe func(string)) error {
	for {
		o.mu.Lock()
		err := o.wrong[name]
		delete(o.wrong, name)
		_, waiting := o.waiting[name]
		down, changed := o.down, o.changed
		o.mu.Unlock()
		if err != nil || !waiting {
			return err
		}
		observe(fmt.Sprintf("waiting for the %s: %v", o.run.store, down))
		select {
		case <-changed:
		case <-ctx.Done():
			o.last(ctx)
			o.mu.Lock()
			defer o.mu.Unlock()
			if _, waiting := o.waiting[name]; waiting {
				return fmt.Errorf("%w (%v)", o.down, context.Cause(ctx)) //nolint:errorlint // it is the store that failed, whatever ended the wait
			}
			return o.wrong[name]
		}
	}
}

// last tries once more, at the end of a run or of a wait.
func (o *outbox) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLimit)
	defer cancel()
	o.flush(ctx)
}

// close sends what is left, if the store answers now, and reports what it did not
// take.
func (o *outbox) close(ctx context.Context) {
	o.last(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) > 0 {
		o.run.emit(event.Event{Type: event.Warning, Message: fmt.Sprintf("%s: %d writes (records and events) could not be stored: %v", o.run.store, len(o.waiting), o.down)})
	}
	for _, name := range slices.Sorted(maps.Keys(o.wrong)) {
		o.run.emit(event.Event{Type: event.Warning, Message: fmt.Sprintf("%s: %s could not be stored: %v", o.run.store, name, o.wrong[name])})
	}
}

// lastLimit is how long the end of a run tries to store what is left.
const lastLimit = 5 * time.Second
