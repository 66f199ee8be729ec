// Package ui owns everything a person sees: the streams and what is known about
// them, progress (spinner, plain lines or JSON lines) and tables. It renders the
// events of pkg/apply/event and knows nothing of the engine, the store or flags.
package ui

import (
	"os"

	"golang.org/x/term"
)

// defaultWidth is assumed for terminals that do not tell their width.
const defaultWidth = 80

// lookupEnv reads an environment variable; os.LookupEnv is one.
type lookupEnv = func(string) (string, bool)

// isTerminal reports whether w (a reader or a writer) is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// isSmart reports whether a terminal can move its cursor.
func isSmart(tty bool, env lookupEnv) bool {
	if name, ok := env("TERM"); ok && name == "dumb" {
		return false
	}
	return tty
}

// hasColor reports whether colours belong on a terminal: it is a smart one, and
// NO_COLOR (https://no-color.org) is empty or not set.
func hasColor(tty bool, env lookupEnv) bool {
	if v, ok := env("NO_COLOR"); ok && v != "" {
		return false
	}
	return isSmart(tty, env)
}

// widthOf is the number of columns of the terminal f.
func widthOf(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return defaultWidth
}
