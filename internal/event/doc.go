// Package event is what a node has to tell: things that happened, in a queue on the disk until the platform has them.
//
// It promises that an event that was put into the queue survives a power cut and keeps its ID for ever, so that
// what is told twice counts once; that the queue stays within its bounds, and what is given up for that is the
// least important and then the oldest, an audit record last; that how much was given up is counted on the disk,
// and told like an event; and that a damaged file costs one event and not the queue.
//
// Several processes may use one queue. It trusts its directory, and nothing of a text: what isn't printable, or is
// too long, is cut to what the platform takes.
package event
