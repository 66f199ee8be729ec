//go:build race

package apply_test

// sample: the race detector makes everything several times slower, and sees in a
// part of the matrix what it would see in all of it.
const sample = 3
