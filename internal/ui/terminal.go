package ui

import (
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/briandowns/spinner"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// terminal keeps one line that turns and says what every machine does, and
// writes a permanent line above it for every transition.
type terminal struct {
	console *Console
	opts    ReportOptions
	spin    *spinner.Spinner

	mu    sync.Mutex // guards board: the spinner reads it while it turns
	board *board
}

const (
	brailleDots  = 11 // the spinner's character set
	spinnerDelay = 100 * time.Millisecond
)

func newTerminal(c *Console, opts ReportOptions) *terminal {
	t := &terminal{console: c, opts: opts, board: newBoard()}
	if c.file == nil {
		return t
	}
	// WithWriter would ask stdout whether it is a terminal, and stay silent if not.
	t.spin = spinner.New(spinner.CharSets[brailleDots], spinnerDelay, spinner.WithWriterFile(c.file), spinner.WithHiddenCursor(true))
	t.spin.Prefix = c.Prefix()
	if !c.color {
		t.spin.Writer = uncoloured{c.file}
	}
	t.spin.PreUpdate = func(s *spinner.Spinner) {
		t.mu.Lock()
		defer t.mu.Unlock()
		// One column for the spinner, one blank, one that stays free so that nothing wraps.
		s.Suffix = " " + t.board.status(time.Now(), widthOf(c.file)-len(s.Prefix)-3)
	}
	c.attach(t.spin)
	return t
}

func (t *terminal) handle(e event.Event) {
	t.mu.Lock()
	news := t.board.add(e)
	busy := len(t.board.running) > 0
	t.mu.Unlock()
	if t.spin != nil {
		if busy {
			t.spin.Start() // no-op while it turns
		} else if e.Type == event.Summary {
			t.spin.Stop()
		}
	}
	l := lineOf(e)
	// The spinner shows what has started.
	if !news || l.text == "" || !t.opts.shows(l.level) || e.Type == event.Started && t.opts.Verbosity < verboseLine {
		return
	}
	t.console.Linef("%s %s", t.console.paint(l.style, l.mark), l.text)
}

func (t *terminal) beat(time.Time) {}

func (t *terminal) close() error {
	if t.spin != nil {
		t.spin.Stop()
		t.console.attach(nil)
	}
	return nil
}

// uncoloured drops colours: the spinner's library decides about them by
// environment variables alone and knows no --no-color.
type uncoloured struct{ w io.Writer }

var sgr = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func (u uncoloured) Write(p []byte) (int, error) {
	if _, err := u.w.Write(sgr.ReplaceAll(p, nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}
