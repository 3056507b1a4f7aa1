package retain

import (
	"time"

	"github.com/powernode/powernode-agent/internal/trial"
)

// State says what is known of how a generation works.
type State string

// The states.
const (
	Good     State = "good"     // a boot with it was found good
	OnTrial  State = "on trial" // boots with it have begun, and none was found good so far
	Live     State = "live"     // it went live in a running system, and wasn't booted yet
	Failed   State = "failed"   // it isn't tried any more
	Untested State = "untested" // it never ran, or what became of it isn't known
	Damaged  State = "damaged"  // its record can't be read
)

// Health is a State with what is known of it.
type Health struct {
	State State `json:"state"`
	// Reason is why it failed, or what ended the last attempt.
	Reason string `json:"reason,omitempty"`
	// Since is when it was found good or bad, went live, or when the last attempt began; zero where that isn't known.
	Since time.Time `json:"since,omitzero"`
	// Attempts is how many boots began with it.
	Attempts int `json:"attempts"`
}

// HealthOf returns what is known of a generation. Those that are current or were before count as good, as in
// package trial, unless they came there without a boot.
func HealthOf(in Input, n uint64) Health {
	t, l := in.trial(n), in.Live(n)
	unproven := l.Unproven(t)
	vouched := n != 0 && (n == in.Current || n == in.Previous) && !unproven
	h := Health{Attempts: t.Attempts}
	_, readable := in.generation(n)
	switch {
	case !readable:
		h.State = Damaged
	case vouched:
		h.State, h.Since = Good, t.Good
	case t.Exhausted():
		h.State, h.Reason, h.Since = Failed, trial.Reason(t), t.FailedAt
	case !t.Good.IsZero():
		h.State, h.Since = Good, t.Good
	case t.Limit > 0 && t.Attempts > 0:
		h.State, h.Reason, h.Since = OnTrial, t.Ended, t.Begun
	case unproven:
		h.State, h.Since = Live, l.At
	default:
		h.State = Untested
	}
	return h
}

// String returns it in words.
func (h Health) String() string {
	if h.Reason == "" {
		return string(h.State)
	}
	return string(h.State) + ": " + h.Reason
}
