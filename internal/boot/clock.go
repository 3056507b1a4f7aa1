package boot

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/version"
)

// setClock sets a clock that can't be right forward to the latest moment that is known to be past: a
// machine without a battery begins in 1970, where no certificate is valid yet. A clock that is ahead
// is left alone: nothing here knows better.
func (b *boot) setClock() {
	if b.mode == Namespace {
		return // the clock is the system's
	}
	floor := b.floor()
	now := b.config.Now()
	if !now.Before(floor) {
		return
	}
	tv := unix.NsecToTimeval(floor.UnixNano())
	said := fmt.Sprintf("the clock said %s, which is past; it was set to %s", now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
	if err := unix.Settimeofday(&tv); err != nil {
		said = fmt.Sprintf("the clock says %s, which is past, and can't be set: %v", now.UTC().Format(time.RFC3339), err)
	}
	b.remark(said, "set the machine's clock")
}

// floor returns the latest time that is known to be past: that of the agent's source, of what the
// store recorded, and of the last boots.
func (b *boot) floor() time.Time {
	var floor time.Time
	later := func(t time.Time) {
		// A record from a time when the clock ran far ahead must not make that last.
		if t.After(floor) && t.Before(farFuture) {
			floor = t
		}
	}
	if t, err := time.Parse(time.RFC3339, version.Get().Date); err == nil {
		later(t)
	}
	if b.store == nil {
		return floor
	}
	// What can't be read counts for nothing here.
	generations, _ := b.store.Generations()
	for _, g := range generations {
		later(g.Created)
	}
	journals, _ := ReadJournals(b.store.Path())
	for _, j := range journals {
		if j.BootID != b.voice.journal.doc.BootID {
			later(j.Begun)
		}
	}
	return floor
}

// farFuture is a time that no record of this agent bears unless a clock was wrong.
var farFuture = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
