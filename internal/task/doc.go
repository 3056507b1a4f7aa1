// Package task is what a node does with the tasks that the platform leases to it: what to lease, renew, run, report
// and drop, and what of it is on the disk.
//
// It promises that a task is on the disk before its handler is begun, and its outcome before it is reported and until the
// platform has it; that an answer which was lost never runs a task twice; that a task which was begun and
// whose end isn't known, as after a power cut, is begun again or failed once, as its handler declares; that one
// task that changes the root runs at a time, and a bounded number of those that only read; that work whose lease
// is lost goes on only where the platform gives the task again, and what became of it is told under another lease or
// never; and that a restart of the machine is asked for only after the platform has heard of it, and is a success
// only once another boot runs.
//
// Desk is the decision alone: it is told the time and every answer, and says what is to be done next. Journal is what is
// on the disk. Package runtime does what a Desk says.
//
// It trusts the platform's word on what is to be done as far as there is a handler for it, and nothing of its form.
package task
