package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// jsonLines writes one JSON object per event. The fields are documented in
// docs/commands/apply.md. A machine that still waits for the same gets a line at
// most every Heartbeat.
type jsonLines struct {
	enc   *json.Encoder
	board *board
	last  map[string]time.Time // of the last line, by machine
	err   error
}

// NewJSONReporter writes one JSON object per line and event to out.
func NewJSONReporter(out io.Writer) Reporter {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return newQueue(&jsonLines{enc: enc, board: newBoard(), last: map[string]time.Time{}})
}

func (j *jsonLines) handle(e event.Event) {
	if !j.board.add(e) && e.Time.Sub(j.last[e.Machine]) < Heartbeat {
		return
	}
	j.last[e.Machine] = e.Time
	if err := j.enc.Encode(e); err != nil && j.err == nil {
		j.err = fmt.Errorf("write event: %w", err)
	}
}

func (j *jsonLines) beat(time.Time) {}

func (j *jsonLines) close() error { return j.err }
