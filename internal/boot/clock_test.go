package boot

import (
	"crypto/x509"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// TestCorrectTime: one boot with a clock that was years ahead doesn't put it there for ever.
func TestCorrectTime(t *testing.T) {
	day := func(year, month, day int) time.Time {
		return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	}
	source, from, until, noted, poison := day(2026, 1, 1), day(2026, 11, 1), day(2027, 1, 30), day(2026, 12, 1), day(2041, 11, 1)
	for _, c := range []struct {
		name      string
		p         past
		now, want time.Time
	}{
		{"nothing is known", past{}, day(1970, 1, 1), day(1970, 1, 1)},
		{"a new node without a battery", past{source: source}, day(1970, 1, 1), source},
		{"a new node once had a clock far ahead", past{source: source, noted: []time.Time{poison}}, day(2026, 11, 3), day(2026, 11, 3)},
		{"the same, without a battery", past{source: source, noted: []time.Time{poison}}, day(1970, 1, 1), source},
		{"no battery", past{source, from, until, []time.Time{noted}}, day(1970, 1, 1), noted},
		{"no battery, and a wrong note", past{source, from, until, []time.Time{poison, noted}}, day(1970, 1, 1), noted},
		{"no battery, and only wrong notes", past{source, from, until, []time.Time{poison}}, day(1970, 1, 1), from},
		{"right, and a wrong note", past{source, from, until, []time.Time{poison}}, day(2026, 11, 5), day(2026, 11, 5)},
		{"before a note, within the certificate's time", past{source, from, until, []time.Time{noted}}, day(2026, 11, 5), day(2026, 11, 5)},
		{"before a newer agent, within the certificate's time", past{day(2026, 12, 24), from, until, nil}, day(2026, 12, 1), day(2026, 12, 1)},
		{"years ahead", past{source, from, until, []time.Time{noted}}, poison, poison},
		{"the certificate has ended", past{source, from, until, []time.Time{noted}}, day(2027, 3, 1), day(2027, 3, 1)},
	} {
		if got := c.p.correct(c.now); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestNotedTimes are those of the generations and of other boots.
func TestNotedTimes(t *testing.T) {
	h := newHistory(t)
	b := newBoot(Config{Sysroot: "/sysroot", Now: time.Now, Console: io.Discard})
	b.store = h.store
	b.voice.journal.doc.BootID = "this"
	h.ran("base 1") // of 1970
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for id, begun := range map[string]time.Time{"before": at, "this": at.AddDate(1, 0, 0)} {
		j := newJournal()
		j.doc.BootID, j.doc.Begun = id, begun
		if err := j.open(h.store.Path()); err != nil {
			t.Fatal(err)
		}
		j.close()
	}
	p := b.past()
	if !p.notAfter.IsZero() || !slices.EqualFunc(p.noted, []time.Time{time.Unix(1, 0), at}, time.Time.Equal) {
		t.Errorf("%+v", p)
	}
}

const year = 365 * 24 * time.Hour

// TestWrong: the machine's clock is left alone where it is nearly right.
func TestWrong(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		off, within time.Duration
		want        bool
	}{
		{0, 0, false},
		{5 * time.Second, 0, false},
		{-5 * time.Second, 0, false},
		{5*time.Second + 1, 0, true},
		{-5*time.Second - 1, 0, true},
		{6 * time.Second, 2 * time.Second, false},
		{15 * year, time.Second, true},
		{-15 * year, time.Second, true},
		{290 * year, 0, true},
	} {
		if got := wrong(now.Add(c.off), now, c.within); got != c.want {
			t.Errorf("off by %s, give or take %s: %t", c.off, c.within, got)
		}
	}
}

// signing starts a platform that signs its time, and returns what a node needs to ask it.
func signing(t *testing.T, now func() time.Time) *nodehttp.Material {
	t.Helper()
	ca := pkitest.NewCA(t, "CA")
	mux := http.NewServeMux()
	mux.Handle("POST "+nodeapi.PathTime, ca.Time(now))
	return &nodehttp.Material{PlatformURL: ca.Serve(ca.Web(), mux, nil).URL, CAs: []*x509.Certificate{ca.Cert}}
}

// TestObeyClock: the machine's clock is set to the signed time, forward and back, but never that of a system
// that isn't this boot's.
func TestObeyClock(t *testing.T) {
	m := signing(t, nil)
	for _, c := range []struct {
		name string
		mode Mode
		off  time.Duration
		set  bool
	}{
		{"right", Machine, 0, false},
		{"years behind", Machine, -15 * year, true},
		{"years ahead", Machine, 15 * year, true},
		{"years ahead, in namespaces", Namespace, 15 * year, false},
		{"years ahead, on an ordinary system", Sysroot, 15 * year, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(t)
			off := c.off
			b := newBoot(Config{Sysroot: "/sysroot", Now: func() time.Time { return time.Now().Add(off) }, Console: io.Discard})
			b.mode, b.store = c.mode, h.store
			var sets []time.Time
			b.setTime = func(to time.Time) error {
				sets, off = append(sets, to), 0
				return nil
			}
			b.openClock()
			if j := (judge{b}); j.Judges() || !j.Due() {
				t.Error("it judges before it asked")
			}
			for range 2 {
				if err := (judge{b}).Ask(t.Context(), m, nodehttp.Options{}); err != nil {
					t.Fatal(err)
				}
			}
			if now := b.now(); time.Until(now).Abs() > time.Minute {
				t.Errorf("it is %s", now)
			}
			if c.set != (len(sets) == 1) || len(sets) > 1 || c.set && time.Until(sets[0]).Abs() > time.Minute {
				t.Errorf("set to %v", sets)
			}
			if len(b.facts.Remarks) != len(sets) {
				t.Errorf("remarks %q", b.facts.Remarks)
			}
			// The store's own directory keeps the time for the next boot, whatever its clock says.
			off = -15 * year
			b.clock = nil
			if b.openClock(); time.Until(b.now()).Abs() > time.Minute {
				t.Errorf("the next boot begins at %s", b.now())
			}
		})
	}
}

// TestClockThatCantBeSet is remarked, and certificates are judged by the signed time all the same.
func TestClockThatCantBeSet(t *testing.T) {
	b := newBoot(Config{Now: func() time.Time { return time.Unix(0, 0) }, Console: io.Discard})
	b.store = newHistory(t).store
	b.setTime = func(time.Time) error { return unix.EPERM }
	b.openClock()
	if err := (judge{b}).Ask(t.Context(), signing(t, nil), nodehttp.Options{}); err != nil {
		t.Fatal(err)
	}
	if r := b.facts.Remarks; len(r) != 1 || !strings.Contains(r[0], "can't be set") || time.Until(b.now()).Abs() > time.Minute {
		t.Errorf("%s, %q", b.now(), r)
	}
}

// TestClockRefused: a platform whose time is long past isn't believed.
func TestClockRefused(t *testing.T) {
	b := newBoot(Config{Now: time.Now, Console: io.Discard})
	b.store = newHistory(t).store
	b.setTime = func(time.Time) error { t.Error("the clock was set"); return nil }
	b.openClock()
	late := signing(t, func() time.Time { return b.past().source.Add(-48 * time.Hour) })
	if err := (judge{b}).Ask(t.Context(), late, nodehttp.Options{}); !refused(err) || time.Until(b.now()).Abs() > time.Minute {
		t.Errorf("%s, %v", b.now(), err)
	}
}
