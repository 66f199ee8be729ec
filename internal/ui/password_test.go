package ui

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// What is typed arrives, and is not shown.
func TestPassword(t *testing.T) {
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	defer keyboard.Close()
	s := &IOStreams{In: tty, Err: NewConsole(tty), InTTY: true}
	// It is typed once it was asked for: before, the terminal would show it.
	typed := make(chan string, 1)
	go func() {
		var seen strings.Builder
		buf := make([]byte, 64)
		for !strings.HasSuffix(seen.String(), "Passphrase of x: ") {
			n, err := keyboard.Read(buf)
			if err != nil {
				return
			}
			seen.Write(buf[:n])
		}
		typed <- seen.String()
	}()
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := s.Password(t.Context(), "Passphrase of x")
		answers <- answer{text, err}
	}()
	<-typed
	if _, err := io.WriteString(keyboard, "secret\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.err != nil || string(a.text) != "secret" {
		t.Errorf("%q, %v", a.text, a.err)
	}
	// Nobody answers. The one who still waits for it ends with the terminal.
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = keyboard.Read(make([]byte, 64))
		cancel()
	}()
	if _, err := s.Password(ctx, "Passphrase of y"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestPasswordNeedsTerminal(t *testing.T) {
	streams, _, _ := Test("secret\n", true)
	if _, err := streams.Password(t.Context(), "?"); err == nil {
		t.Error("took a pipe for a terminal")
	}
}
