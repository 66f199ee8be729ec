//go:build race

package kill

// every is how much of a long list of places is left out: the race detector makes the
// simulator several times slower, and cannot look into the program that is killed.
const every = 7
