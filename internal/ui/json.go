package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
)

// jsonLines writes one JSON object per event. The fields are documented in
// docs/commands/apply.md.
type jsonLines struct {
	enc *json.Encoder
	err error
}

// NewJSONReporter writes one JSON object per line and event to out.
func NewJSONReporter(out io.Writer) Reporter {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return newQueue(&jsonLines{enc: enc})
}

func (j *jsonLines) handle(e event.Event) {
	if err := j.enc.Encode(e); err != nil && j.err == nil {
		j.err = fmt.Errorf("write event: %w", err)
	}
}

func (j *jsonLines) beat(time.Time) {}

func (j *jsonLines) close() error { return j.err }
