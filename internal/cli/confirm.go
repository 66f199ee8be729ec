package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// confirm asks a person to type word. It answers nil only for exactly that.
func (f *factory) confirm(ctx context.Context, question, word string) error {
	fmt.Fprintf(f.io.Err, "%s: ", question)
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	if f.typed == nil { // one for all questions: it may read more than a line
		f.typed = bufio.NewReader(f.io.In)
	}
	go func() {
		text, err := f.typed.ReadString('\n')
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(f.io.Err)
		return fmt.Errorf("confirm: %w", ctx.Err())
	case a := <-answers:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return fmt.Errorf("confirm: %w", a.err)
		}
		if strings.HasSuffix(a.text, "\n") {
			f.io.Err.EndLine() // the terminal has shown the Enter
		} else {
			fmt.Fprintln(f.io.Err)
		}
		if strings.TrimSpace(a.text) != word {
			return &notConfirmedError{message: "not confirmed: nothing was changed"}
		}
	}
	return nil
}
