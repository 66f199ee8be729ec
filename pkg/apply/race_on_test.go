//go:build race

package apply_test

// sample: the race detector makes everything several times slower, and sees in a
// part of the matrix what it would see in all of it. Odd, so that both versions of the
// server have their turn.
const sample = 5
