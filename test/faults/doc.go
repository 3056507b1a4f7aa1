// Package faults tests what faults on the wire do to a node. A real agent's side, from the enrollment over heartbeats, tasks, events,
// boot reports and modules to the next certificate, speaks with a real platform through a proxy of the test's own; and at every kind of request in turn every
// kind of fault strikes there, for longer than a lease lasts. Afterwards every task has ended, and what may be done once wasn't done twice; every event has arrived once; and
// neither connections, goroutines nor descriptors are left.
//
// The agent's side and the proxy run in a bubble whose time costs nothing (testing/synctest), over connections in memory
// that can be reset, cut and muted; the platform runs outside, behind its own TLS, and its clock follows the bubble's.
//
// The kinds of request are read off package nodeapi, so that an endpoint that is added to the wire fails here until a node asks it in the cycle.
//
// It holds no program code.
package faults
