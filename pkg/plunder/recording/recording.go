// Package recording loads the recorded exchanges with real plunder servers: the
// contract that the client and the simulator are held to. It is for tests; no
// product code imports it. It knows no HTTP client and no server: whoever
// replays a recording sends the requests and compares the answers.
package recording

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// ConnectionClosed is Response.Connection when the server's handler died: the
// stream ended without an answer.
const ConnectionClosed = "closed without a response"

//go:embed testdata/*/*.json
var files embed.FS

// Recording is one scenario, played against one version of the server.
type Recording struct {
	Version  string `json:"-"` // the directory: "2020-05" or "v0.5"
	Scenario string `json:"scenario"`
	About    string `json:"about"`
	Server   string `json:"server"`
	Setup    Setup  `json:"setup"`
	Steps    []Step `json:"steps"`
}

// Name is "version/scenario", e.g. "v0.5/empty".
func (r Recording) Name() string { return r.Version + "/" + r.Scenario }

// Setup is what the server knew before the first step.
type Setup struct {
	BootConfigs []wire.BootConfig `json:"bootConfigs"`
	// Unleased are the MACs in the order of GET /dhcp/unleased; null when none was ever seen.
	Unleased []string `json:"unleased"`
	// Hosts describes, in words, what answers SSH at an address.
	Hosts map[string]string `json:"hosts"`
}

// Step is a request and its answer.
type Step struct {
	Request Request `json:"request"`
	// RepeatUntilState: the request was repeated until the log was in one of these states.
	RepeatUntilState []string `json:"repeatUntilState,omitempty"`
	Note             string   `json:"note,omitempty"`
	Response         Response `json:"response"`
}

// Request is what was sent.
type Request struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty"`
}

// String is "METHOD path".
func (r Request) String() string { return r.Method + " " + r.Path }

// Bytes is the body as it went over the wire, nil without one: a body recorded
// as a JSON string was sent as plain text (rubbish).
func (r Request) Bytes() []byte {
	var text string
	if len(r.Body) > 0 && json.Unmarshal(r.Body, &text) == nil {
		return []byte(text)
	}
	return bytes.Clone(r.Body)
}

// Response is what came back: a status and a body, or a dead connection.
type Response struct {
	Status     int             `json:"status,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"`
	Connection string          `json:"connection,omitempty"`
}

// Closed is true when the stream ended without an answer.
func (r Response) Closed() bool { return r.Connection == ConnectionClosed }

// Bytes is the body as it came over the wire: one recorded as {"text": "..."}
// was plain text.
func (r Response) Bytes() []byte {
	var plain struct {
		Text *string `json:"text"`
	}
	if len(r.Body) > 0 && json.Unmarshal(r.Body, &plain) == nil && plain.Text != nil {
		return []byte(*plain.Text)
	}
	return bytes.Clone(r.Body)
}

// All returns every recording of both server versions, sorted by name.
func All() ([]Recording, error) {
	sub, err := fs.Sub(files, "testdata")
	if err != nil {
		return nil, err
	}
	return Load(sub)
}

// Load reads VERSION/SCENARIO.json files, sorted by name. An unknown field is an
// error: a recording that is only half understood proves nothing.
func Load(fsys fs.FS) ([]Recording, error) {
	names, err := fs.Glob(fsys, "*/*.json") // sorted
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no recordings (VERSION/SCENARIO.json) found")
	}
	all := make([]Recording, 0, len(names))
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		r := Recording{Version: path.Dir(name)}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("recording %s: %w", name, err)
		}
		if want := strings.TrimSuffix(path.Base(name), ".json"); r.Scenario != want {
			return nil, fmt.Errorf("recording %s: scenario %q, want %q", name, r.Scenario, want)
		}
		all = append(all, r)
	}
	return all, nil
}

// Diff compares two JSON bodies and returns "" when they are alike. Times vary
// from run to run: they only have to be times.
func Diff(want, got []byte) (string, error) {
	var w, g any
	if err := json.Unmarshal(want, &w); err != nil {
		return "", fmt.Errorf("recorded body: %w", err)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return "", fmt.Errorf("body: %w", err)
	}
	return cmp.Diff(maskTimes(w), maskTimes(g)), nil
}

// maskTimes replaces the values of the two fields that hold times.
func maskTimes(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if s, ok := x.(string); ok && (k == "time" || k == "created") {
				if _, err := time.Parse(time.RFC3339Nano, s); err == nil {
					v[k] = "<time>"
				}
				continue
			}
			v[k] = maskTimes(x)
		}
	case []any:
		for i, x := range v {
			v[i] = maskTimes(x)
		}
	}
	return v
}
