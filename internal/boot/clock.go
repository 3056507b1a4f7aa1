package boot

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/signedtime"
	"github.com/powernode/powernode-agent/internal/version"
)

// now is the time as well as it is known: the platform's signed one once it was asked, and until then this
// machine's, but no earlier than what is known to be past. Certificates and keys are judged by it.
func (b *boot) now() time.Time {
	if b.clock == nil {
		return b.config.Now()
	}
	return b.clock.Now()
}

// openClock begins with what the directory of record knows of the time. A signed time outlives it.
func (b *boot) openClock() {
	if b.clock != nil {
		if _, known := b.clock.Signed(); known {
			return
		}
	}
	b.clock = signedtime.Open(b.store.Path(), signedtime.Options{Floor: []time.Time{version.Get().Written()}, Wall: b.config.Now})
	for _, text := range b.clock.Remarks() {
		b.remark(text, "")
	}
}

// judge is the boot's clock for whoever is to ask the platform for the time: the machine's clock is set to the answer.
type judge struct{ b *boot }

var _ enroll.Clock = judge{}

// Now implements enroll.Clock.
func (j judge) Now() time.Time { return j.b.now() }

// Judges implements enroll.Clock.
func (j judge) Judges() bool { return j.b.clock.Judges() }

// Due implements enroll.Clock.
func (j judge) Due() bool { return j.b.clock.Due() }

// Doubt has the time be asked for anew.
func (j judge) Doubt() { j.b.clock.Doubt() }

// Ask implements enroll.Clock.
func (j judge) Ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options) error {
	if err := j.b.clock.Ask(ctx, m, o); err != nil {
		return err
	}
	for _, text := range j.b.clock.Remarks() {
		j.b.remark(text, "")
	}
	j.b.obeyClock()
	return nil
}

// prepareCall makes sure, before a call with the node's credentials, that a time is known which can judge the platform's
// certificate.
func (b *boot) prepareCall(ctx context.Context) error {
	c := b.credentials
	if c == nil || c.LocalClock || !b.clock.Due() {
		return nil
	}
	m, err := c.Material()
	if err != nil {
		return err
	}
	err = judge{b}.Ask(ctx, m, b.patience().HTTP)
	if err != nil && b.clock.Judges() {
		return nil //nolint:nilerr // the time that is known still judges
	}
	return err
}

// clockOff is how far the machine's clock may be from the signed time.
const clockOff = 5 * time.Second

// wrong decides whether a clock is to be set that says now where right, give or take within, is signed.
func wrong(now, right time.Time, within time.Duration) bool {
	return now.Sub(right).Abs() > clockOff+within
}

// obeyClock sets the machine's clock to the platform's signed time, forward or back, where the machine is this boot's own.
func (b *boot) obeyClock() {
	if b.mode == Namespace || b.mode == Sysroot && !inInitramfs("/") {
		return // the clock is the system's
	}
	reading, known := b.clock.Signed()
	now, right := b.config.Now(), b.clock.Now()
	if !known || !wrong(now, right, reading.Within) {
		return
	}
	b.set(now, right, "and the platform's signed time is "+right.UTC().Format(time.RFC3339))
}

// set sets the machine's clock, and says so.
func (b *boot) set(now, right time.Time, why string) {
	said, hint := fmt.Sprintf("the clock said %s, %s; it was set to that", now.UTC().Format(time.RFC3339), why), "look at the machine's battery"
	if err := b.setTime(right); err != nil {
		said = fmt.Sprintf("the clock says %s, %s; it can't be set: %v", now.UTC().Format(time.RFC3339), why, err)
		hint = "set the machine's clock"
	}
	b.remark(said, hint)
}

// setTimeOfDay sets the kernel's clock.
func setTimeOfDay(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// setClock sets a clock that can't be right forward to a moment that is known to be past: a
// machine without a battery begins in 1970, where no certificate is valid yet. A clock that is ahead
// is left alone: nothing here knows better, until the platform was asked.
func (b *boot) setClock() {
	if b.mode == Namespace {
		return // the clock is the system's
	}
	now := b.config.Now()
	right := b.past().correct(now)
	if right.Equal(now) {
		return
	}
	b.set(now, right, "which is past: it is "+right.UTC().Format(time.RFC3339)+" at least")
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
	p := past{source: version.Get().Written()}
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
