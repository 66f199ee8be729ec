package ui

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// Password asks for something that is not to be seen while it is typed. There has to be
// a terminal (InTTY).
func (s *IOStreams) Password(ctx context.Context, prompt string) ([]byte, error) {
	in, ok := s.In.(*os.File)
	if !ok || !s.InTTY {
		return nil, errors.New("there is no terminal to ask on")
	}
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("ask on the terminal: %w", err)
	}
	fmt.Fprintf(s.Err, "%s: ", prompt)
	defer fmt.Fprintln(s.Err)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(int(in.Fd()))
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		// The reader waits on; the terminal is to echo again all the same.
		return nil, errors.Join(ctx.Err(), term.Restore(int(in.Fd()), before))
	case a := <-answers:
		return a.text, a.err
	}
}
