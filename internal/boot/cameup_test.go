package boot

import (
	"fmt"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestSilent: only systems that were handed over to and never came as far as the service count.
func TestSilent(t *testing.T) {
	dir := t.TempDir()
	boot := func(id string, outcome Outcome, generation uint64) {
		t.Helper()
		j := &journal{doc: Journal{BootID: id, Outcome: outcome, Generation: generation}, clock: func() time.Duration { return 0 }}
		defer j.close()
		if err := j.open(dir); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what, id string, generation uint64, times int) {
		t.Helper()
		if got := silent(dir, id); got.times != times || got.generation != generation {
			t.Errorf("%s: %+v, want generation %d, %d times", what, got, generation, times)
		}
	}
	want("nothing has booted", "1", 0, 0)
	boot("1", HandedOver, 5)
	want("the boot itself", "1", 0, 0)
	want("no word of the last one", "2", 5, 1)
	if silent(dir, "2").known {
		t.Error("systems of a disk without a word are said to be heard of")
	}
	if err := CameUp(dir, "1"); err != nil {
		t.Fatal(err)
	}
	want("the last one came up", "2", 0, 0)
	boot("2", HandedOver, 5)
	want("an older one came up", "3", 5, 1)
	boot("3", UnderWay, 0)
	want("the last one was cut off before it handed over", "4", 0, 0)
	boot("4", HandedOver, 5)
	want("twice, and one that was cut off", "5", 5, 2)
	boot("5", HandedOver, 6)
	want("another one", "6", 6, 1)
}

// TestASilentGeneration: what was good and is heard of no more makes way for what was good before it, once, and only
// where there is that.
func TestASilentGeneration(t *testing.T) {
	for _, c := range []struct {
		name         string
		times        int
		heard, alone bool
		makesWay     bool
	}{
		{"less often than it may", 2, true, false, false},
		{"as often as it may", 3, true, false, true},
		{"there is nothing else", 3, true, true, false},
		{"a disk whose systems are never heard of", 3, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(t)
			var before store.Generation
			if !c.alone {
				before = h.ran("base 1")
			}
			g := h.ran("base 2")
			for i := range c.times + 1 {
				j := &journal{doc: Journal{BootID: fmt.Sprint("boot ", i), Outcome: HandedOver, Generation: g.Number}, clock: func() time.Duration { return 0 }}
				if err := j.open(h.store.Path()); err != nil {
					t.Fatal(err)
				}
				j.close()
			}
			if c.heard {
				if err := CameUp(h.store.Path(), "boot 0"); err != nil {
					t.Fatal(err)
				}
			}
			b := h.machineBoot()
			b.settings.Tries = 3
			first := g.Number
			if c.makesWay {
				first = before.Number
			}
			for i, want := range []uint64{first, g.Number} {
				b.plan.unfit = nil
				b.listen()
				wanted, err := assemble.WantedOf(h.store, g)
				if err != nil {
					t.Fatal(err)
				}
				err = b.passedOver(wanted)
				if (err != nil) != (want != g.Number) || b.candidates()[0].Generation != want {
					t.Errorf("try %d: generation %d, %v, want %d", i+1, b.candidates()[0].Generation, err, want)
				}
				if err != nil {
					b.plan.wanted = wanted
					if err := b.fallBack(err); err != nil || b.plan.back.Generation != want || b.facts.Refused == "" {
						t.Errorf("it falls back to %d, %v; refused %q", b.plan.back.Generation, err, b.facts.Refused)
					}
				}
				if !b.doubted() {
					t.Error("it isn't doubted")
				}
			}
		})
	}
}
