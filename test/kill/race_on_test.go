//go:build race

package kill

// every is which places of a long list are tried, beside the events of a destroy: each seventh. The race detector makes the
// simulator several times slower, and cannot look into the program that is killed.
const every = 7
