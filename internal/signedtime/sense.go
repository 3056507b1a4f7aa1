package signedtime

import "time"

// slack is how far a signed time may lie before what is known to be past without a word: the platform's own clock
// may have been set back a little.
const slack = 24 * time.Hour

// sensed is how a signed time goes with what is known to be past.
type sensed int

const (
	// goesOn: it is later, or earlier by so little that a clock may have been set.
	goesOn sensed = iota
	// wentBack: the platform once signed a later time, and its CAs are valid then too. Its clock was wrong, and has
	// been set right: to refuse that would lock out each node that has seen the wrong time.
	wentBack
	// contradicts: it is before this program was written; or its CAs had ended when a later time was signed, so
	// that an ended CA's stolen key may be what says it.
	contradicts
)

// sense judges a reading by the date of the source and the floor, which isn't before it.
func sense(r Reading, source, floor time.Time) sensed {
	switch {
	case !r.Time.Before(floor.Add(-slack)):
		return goesOn
	case r.Time.Before(source.Add(-slack)), r.Vouched(floor) != nil:
		return contradicts
	default:
		return wentBack
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
