//go:build !race

package kill

// every is which places of a long list are tried: all.
const every = 1
