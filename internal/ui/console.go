package ui

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"github.com/briandowns/spinner"
)

// eraseLine goes to the first column and clears to the end of the line.
const eraseLine = "\r\x1b[K"

// Console is the stream for people, usually stderr. It keeps lines whole: what
// is written while a spinner turns goes above it, and every line starts with the
// prefix, if one is set. Safe for many goroutines.
type Console struct {
	mu     sync.Mutex
	w      io.Writer
	file   *os.File // w, when that is a file
	smart  bool     // a terminal whose cursor can be moved
	color  bool
	prefix string
	inLine bool // the last write did not end its line
	spin   *spinner.Spinner
}

// NewConsole makes a console on w that is not a terminal; System knows more.
func NewConsole(w io.Writer) *Console {
	c := &Console{w: w}
	c.file, _ = w.(*os.File)
	return c
}

// SetPrefix makes every following line start with prefix.
func (c *Console) SetPrefix(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prefix = prefix
}

// Prefix is what every line starts with.
func (c *Console) Prefix() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prefix
}

// Smart reports whether the console is a terminal whose cursor can be moved.
func (c *Console) Smart() bool { return c.smart }

// Linef writes one line.
func (c *Console) Linef(format string, args ...any) {
	fmt.Fprintf(c, format+"\n", args...)
}

// Write implements io.Writer.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := prefixLines(p, c.prefix, &c.inLine)
	if c.spin != nil {
		// The spinner draws itself again at its next turn.
		c.spin.Lock()
		defer c.spin.Unlock()
		if c.spin.Active() {
			out = append([]byte(eraseLine), out...)
		}
	}
	if _, err := c.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// EndLine says that the open line has ended without being written to: somebody
// pressed Enter on the terminal.
func (c *Console) EndLine() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inLine = false
}

// Restore leaves a terminal usable when the program ends without stopping its
// spinner: the cursor is shown and the line is cleared. It takes no locks.
func (c *Console) Restore() {
	if c.smart && c.file != nil {
		fmt.Fprint(c.file, eraseLine+"\x1b[?25h")
	}
}

// attach puts a spinner on the last line, or takes it off again (nil).
func (c *Console) attach(s *spinner.Spinner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spin = s
}

// Styles of text, as ANSI codes.
const (
	styleGreen  = "32"
	styleRed    = "31"
	styleYellow = "33"
	styleDim    = "2"
)

// paint styles text when the console has colours.
func (c *Console) paint(style, text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return paint(c.color, style, text)
}

func paint(on bool, style, text string) string {
	if !on || style == "" || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// prefixLines puts prefix at the start of every line of p. inLine says, and is
// told, whether a line was left open.
func prefixLines(p []byte, prefix string, inLine *bool) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(p) {
		if !*inLine {
			out.WriteString(prefix)
		}
		out.Write(line)
		*inLine = line[len(line)-1] != '\n'
	}
	return out.Bytes()
}

// oneLine makes somebody else's text safe for one line of a terminal: white space
// is folded, control characters (escape sequences!) and those that turn the direction
// of writing are dropped.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// cut shortens s to at most width characters.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:max(0, width-1)]) + "…"
}
