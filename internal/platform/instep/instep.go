// Package instep says whether a node runs what it should.
//
// It promises a pure decision: the same facts make the same answer, and nothing is asked, kept or written. It trusts what it is
// told, a node's own report above all: a node that was taken over says what it likes.
package instep

import (
	"cmp"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// Facts are what is known of a node.
type Facts struct {
	Now time.Time
	// Heard is the time of its last heartbeat; zero if there was none.
	Heard time.Time
	// SilentAfter is after how long without one it is silent; 0 is operatorapi.StaleAfter.
	SilentAfter time.Duration
	// Expected is the root digest of its modules, "" where it has none; Unexpected says why that isn't known, if it isn't.
	Expected, Unexpected string
	// Reported is the root digest that it runs by its own word, "" where it runs none; Mounted that it runs modules at all.
	Reported string
	Mounted  bool
	// Explained says that Reported is what was expected of the node at some time.
	Explained bool
}

// Judge returns the node's state and, where it isn't in step, why.
func Judge(f Facts) (operatorapi.NodeState, string) {
	switch {
	case f.Heard.IsZero():
		return operatorapi.StateUnknown, "it hasn't been heard of yet"
	case f.Now.Sub(f.Heard) > cmp.Or(f.SilentAfter, operatorapi.StaleAfter):
		return operatorapi.StateSilent, "nothing was heard of it since " + f.Heard.UTC().Format(time.RFC3339)
	case f.Reported == "" && f.Mounted:
		return operatorapi.StateUnknown, "it runs modules and doesn't say which root they make"
	case f.Unexpected == "" && f.Reported == f.Expected:
		return operatorapi.StateInStep, ""
	case f.Reported != "" && !f.Explained:
		return operatorapi.StateDrifted, "it runs a root that its assignments don't explain, now or earlier"
	case f.Unexpected != "":
		return operatorapi.StateUnknown, f.Unexpected
	case f.Reported == "":
		return operatorapi.StateBehind, "it doesn't run its modules yet"
	default:
		return operatorapi.StateBehind, "it runs what its assignments were earlier"
	}
}
