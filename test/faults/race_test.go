//go:build race

package faults

// oneIn is how many of the pairs of a request and a fault one is tried of under the race detector, with which all of them take minutes.
// make test tries all of them without it.
const oneIn = 56
