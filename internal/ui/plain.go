package ui

import (
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// plain writes one line per transition, for logs and pipes, and now and then
// what is still awaited.
type plain struct {
	console *Console
	opts    ReportOptions
	board   *board
}

func (p *plain) handle(e event.Event) {
	if !p.board.add(e) {
		return
	}
	if l := lineOf(e); l.text != "" && p.opts.shows(l.level) {
		p.console.Linef("%s", l.text)
	}
}

func (p *plain) beat(now time.Time) {
	if !p.opts.shows(normalLine) {
		return
	}
	for _, text := range p.board.awaited(now) {
		p.console.Linef("%s", text)
	}
}

func (p *plain) close() error { return nil }
