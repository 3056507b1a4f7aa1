package task

import "time"

// Do is what an Action asks for.
type Do uint8

// What may be asked for. All but Wait and Stop are told of when they have been done.
const (
	// Wait: there is nothing to do until At, or until something is told. Stop: there never will be.
	Wait Do = iota
	Stop
	// Save puts Record on the disk, Forget removes it there; then Saved, at once: nothing else is told in between.
	Save
	Forget
	// Lease asks the platform for Max tasks, which may let it Wait; then Leased.
	Lease
	// Renew renews the lease of Record, Tell tells what its output has, or Message; then Answered.
	Renew
	Tell
	// Report tells the outcome of Record; then Reported.
	Report
	// Begin begins the Handler's run of Record's task; then Finished. End ends the context of a run with Cause.
	Begin
	End
	// Restart does what the handler of Record came back with; then Restarted.
	Restart
)

// Action is what is to be done next.
type Action struct {
	Do     Do
	At     time.Time // zero: nothing happens by itself
	Record Record
	// Handler and Cause are of Begin and End.
	Handler Handler
	Cause   error
	// Message takes the place of what the output has.
	Message string
	// Max, Wait and Holding are of Lease. A nil Holding says nothing.
	Max     int
	Wait    time.Duration
	Holding []string
}
