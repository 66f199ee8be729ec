package ui

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// IOStreams is where a command reads and writes: results go to Out, everything
// for people to Err.
type IOStreams struct {
	In  io.Reader
	Out io.Writer
	Err *Console

	// InTTY: questions can be asked. OutTTY: Out is read by a person.
	InTTY, OutTTY bool
	// OutColor: colours belong on Out.
	OutColor bool
}

// System is the streams of the process. env is os.LookupEnv.
func System(env lookupEnv) *IOStreams {
	s := &IOStreams{
		In:     os.Stdin,
		Out:    os.Stdout,
		Err:    NewConsole(os.Stderr),
		InTTY:  isTerminal(os.Stdin),
		OutTTY: isTerminal(os.Stdout),
	}
	s.OutColor = hasColor(s.OutTTY, env)
	tty := isTerminal(os.Stderr)
	s.Err.smart, s.Err.color = isSmart(tty, env), hasColor(tty, env)
	return s
}

// Test is streams over buffers, for tests; tty says whether all three pretend to
// be terminals (without a spinner, which needs a real one).
func Test(input string, tty bool) (streams *IOStreams, out, errOut *bytes.Buffer) {
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	s := &IOStreams{
		In:     strings.NewReader(input),
		Out:    out,
		Err:    NewConsole(errOut),
		InTTY:  tty,
		OutTTY: tty,
	}
	s.OutColor, s.Err.smart, s.Err.color = tty, tty, tty
	return s, out, errOut
}

// NoColor turns colours off everywhere.
func (s *IOStreams) NoColor() {
	s.OutColor = false
	s.Err.mu.Lock()
	defer s.Err.mu.Unlock()
	s.Err.color = false
}
