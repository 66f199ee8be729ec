package ui

import (
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// Heartbeat is how often the plain reporter says what is awaited.
const Heartbeat = 30 * time.Second

// Reporter renders the events of one run. Report is safe for many goroutines and
// never waits for the output; Close renders what is left and says whether
// everything could be written.
type Reporter interface {
	Report(e event.Event)
	Close() error
}

// ReportOptions change how much is said.
type ReportOptions struct {
	// Verbosity 1 and above also shows every new observation of what is awaited.
	Verbosity int
	// Quiet shows only failures and warnings.
	Quiet bool
}

// shows reports whether a line of this level is wanted.
func (o ReportOptions) shows(level int) bool {
	if o.Quiet {
		return level <= quietLine
	}
	return level <= o.Verbosity
}

// NewReporter is for people: a spinner where the console is a smart terminal,
// else plain lines.
func NewReporter(s *IOStreams, opts ReportOptions) Reporter {
	if s.Err.Smart() && !opts.Quiet {
		return newQueue(newTerminal(s.Err, opts))
	}
	return newQueue(&plain{console: s.Err, opts: opts, board: newBoard()})
}

// sink renders events, one after the other.
type sink interface {
	handle(e event.Event)
	// beat is called every Heartbeat.
	beat(now time.Time)
	close() error
}

// queue keeps a slow terminal or pipe from holding up the engine.
type queue struct {
	mu     sync.Mutex
	events []event.Event
	closed bool
	wake   chan struct{}
	done   chan struct{}
	err    error
}

func newQueue(s sink) *queue {
	q := &queue{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run(s)
	return q
}

func (q *queue) run(s sink) {
	defer close(q.done)
	ticker := time.NewTicker(Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			s.beat(now)
		case <-q.wake:
		}
		q.mu.Lock()
		events, closed := q.events, q.closed
		q.events = nil
		q.mu.Unlock()
		for _, e := range events {
			s.handle(e)
		}
		if closed {
			q.err = s.close()
			return
		}
	}
}

// Report implements Reporter.
func (q *queue) Report(e event.Event) {
	q.mu.Lock()
	if !q.closed {
		q.events = append(q.events, e)
	}
	q.mu.Unlock()
	q.signal()
}

// Close implements Reporter.
func (q *queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
	<-q.done
	return q.err
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
