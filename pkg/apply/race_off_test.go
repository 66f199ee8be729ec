//go:build !race

package apply_test

// sample: how many cases of a matrix there are to each that runs.
const sample = 1
