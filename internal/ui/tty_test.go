package ui

import (
	"bytes"
	"testing"
)

func TestTerminalFacts(t *testing.T) {
	tests := []struct {
		name         string
		tty          bool
		env          map[string]string
		smart, color bool
	}{
		{"pipe", false, nil, false, false},
		{"terminal", true, map[string]string{"TERM": "xterm-256color"}, true, true},
		{"terminal without TERM", true, nil, true, true},
		{"dumb terminal", true, map[string]string{"TERM": "dumb"}, false, false},
		{"NO_COLOR", true, map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, true, false},
		{"empty NO_COLOR", true, map[string]string{"NO_COLOR": ""}, true, true},
		{"NO_COLOR in a pipe", false, map[string]string{"NO_COLOR": "1"}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := func(k string) (string, bool) {
				v, ok := tt.env[k]
				return v, ok
			}
			if got := isSmart(tt.tty, env); got != tt.smart {
				t.Errorf("isSmart = %v, want %v", got, tt.smart)
			}
			if got := hasColor(tt.tty, env); got != tt.color {
				t.Errorf("hasColor = %v, want %v", got, tt.color)
			}
		})
	}
}

func TestBufferIsNoTerminal(t *testing.T) {
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer passes for a terminal")
	}
}

func TestConsolePrefixesWholeLines(t *testing.T) {
	var buf bytes.Buffer
	c := NewConsole(&buf)
	c.SetPrefix("> ")
	for _, s := range []string{"a", "b\nc", "\n", "\nd\n"} {
		if n, err := c.Write([]byte(s)); err != nil || n != len(s) {
			t.Fatalf("Write(%q) = %d, %v", s, n, err)
		}
	}
	if got, want := buf.String(), "> ab\n> c\n> \n> d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
