package capi

import (
	"fmt"
	"strings"
)

// Problem is one thing wrong with the input.
type Problem struct {
	Origin  Origin
	Object  string // "PlunderMachine default/worker", or "" when unknown
	Field   string // "spec.macaddress", or ""
	Message string
}

// String is "file:line: Kind ns/name: field: message".
func (p Problem) String() string {
	parts := []string{p.Origin.String()}
	for _, s := range []string{p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// InputError is every problem of an input at once.
type InputError struct{ Problems []Problem }

// Error implements error: one line per problem.
func (e *InputError) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, fmt.Sprintf("%d problems in the input", len(e.Problems)))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}
