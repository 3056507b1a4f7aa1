//go:build !race

package faults

// oneIn has every fault tried at every request.
const oneIn = 1
