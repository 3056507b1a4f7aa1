package boot

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/version"
)

// setClock sets a clock that can't be right forward to a moment that is known to be past: a
// machine without a battery begins in 1970, where no certificate is valid yet. A clock that is ahead
// is left alone: nothing here knows better.
func (b *boot) setClock() {
	if b.mode == Namespace {
		return // the clock is the system's
	}
	now := b.config.Now()
	right := b.past().correct(now)
	if right.Equal(now) {
		return
	}
	tv := unix.NsecToTimeval(right.UnixNano())
	said := fmt.Sprintf("the clock said %s, which is past; it was set to %s", now.UTC().Format(time.RFC3339), right.UTC().Format(time.RFC3339))
	if err := unix.Settimeofday(&tv); err != nil {
		said = fmt.Sprintf("the clock says %s, which is past, and can't be set: %v", now.UTC().Format(time.RFC3339), err)
	}
	b.remark(said, "set the machine's clock")
}

// past is what is known of times that are over. What this machine noted is as good as its clock was then, so
// that it never decides that a clock is wrong, only how far one is set that is.
type past struct {
	// source is when the agent's source was written.
	source time.Time
	// notBefore and notAfter are those of the node's certificate, by the platform's clock; zero without one.
	notBefore, notAfter time.Time
	// noted are times by this machine's own clock: of generations and of boots.
	noted []time.Time
}

// correct returns the time to set a clock to that says now, which is now where nothing says that it is wrong.
func (p past) correct(now time.Time) time.Time {
	sure := p.source
	if p.notBefore.After(sure) {
		sure = p.notBefore
	}
	// Within the certificate's time the platform can be asked, which a wrong note must not spoil.
	within := !p.notAfter.IsZero() && !now.Before(p.notBefore) && !now.After(p.notAfter)
	if within || !now.Before(sure) {
		return now
	}
	for _, t := range p.noted {
		if t.After(sure) && t.Before(p.notAfter) {
			sure = t
		}
	}
	return sure
}

// past reads what is known; what can't be read counts for nothing here.
func (b *boot) past() past {
	var p past
	if t, err := time.Parse(time.RFC3339, version.Get().Date); err == nil {
		p.source = t
	}
	if b.store == nil {
		return p
	}
	state, err := enroll.Inspect(PKIDir(b.store.Path()), enroll.Wish{}, b.config.Now())
	if err == nil && state.Credentials != nil && state.Credentials.Leaf != nil {
		p.notBefore, p.notAfter = state.Credentials.Leaf.NotBefore, state.Credentials.Leaf.NotAfter
	}
	generations, _ := b.store.Generations()
	for _, g := range generations {
		p.noted = append(p.noted, g.Created)
	}
	journals, _ := ReadJournals(b.store.Path())
	for _, j := range journals {
		if j.BootID != b.voice.journal.doc.BootID {
			p.noted = append(p.noted, j.Begun)
		}
	}
	return p
}
