package scripts

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// jsonLines checks that a file holds JSON values and nothing else, each of them
// with the given top-level fields: jsonl FILE [FIELD=VALUE...]
func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: jsonl FILE [FIELD=VALUE...]")
	}
	text := ts.ReadFile(args[0])
	dec := json.NewDecoder(strings.NewReader(text))
	n := 0
	for ; dec.More(); n++ {
		var v map[string]any
		if err := dec.Decode(&v); err != nil {
			ts.Fatalf("value %d: %v\n%s", n+1, err, text)
		}
		for _, want := range args[1:] {
			field, value, _ := strings.Cut(want, "=")
			got, err := json.Marshal(v[field])
			ts.Check(err)
			if strings.Trim(string(got), `"`) != value {
				ts.Fatalf("value %d: %s is %s, want %s\n%s", n+1, field, got, value, text)
			}
		}
	}
	if n == 0 {
		ts.Fatalf("%s holds no JSON", args[0])
	}
}

// prefixed checks that a file has lines and that each begins with the text: prefixed FILE TEXT
func prefixed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: prefixed FILE TEXT")
	}
	text := ts.ReadFile(args[0])
	if text == "" {
		ts.Fatalf("%s is empty", args[0])
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, args[1]) {
			ts.Fatalf("line without %q: %q", args[1], line)
		}
	}
}

// before checks an order of lines: the last line of a file that matches the first
// pattern comes before the first one that matches the second: before FILE PATTERN PATTERN
func before(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: before FILE PATTERN PATTERN")
	}
	early, err := regexp.Compile(args[1])
	ts.Check(err)
	late, err := regexp.Compile(args[2])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	last, first := -1, -1
	for i, line := range strings.Split(text, "\n") {
		if early.MatchString(line) {
			last = i
		}
		if first < 0 && late.MatchString(line) {
			first = i
		}
	}
	switch {
	case last < 0:
		ts.Fatalf("no line matches %q in\n%s", args[1], text)
	case first < 0:
		ts.Fatalf("no line matches %q in\n%s", args[2], text)
	case last >= first:
		ts.Fatalf("line %d matches %q, after line %d with %q in\n%s", last+1, args[1], first+1, args[2], text)
	}
}
