package boot

import (
	"io"
	"slices"
	"testing"
	"time"
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
