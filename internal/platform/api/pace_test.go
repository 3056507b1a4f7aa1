package api

import (
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// TestLimiters: who uses up one leaves the others.
func TestLimiters(t *testing.T) {
	now := time.Now()
	l := newLimiters(2, time.Minute, func() time.Time { return now })
	for i, c := range []struct {
		name string
		want bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"a", false}} {
		if l.allow(c.name) != c.want {
			t.Errorf("%d, %s: not %t", i, c.name, c.want)
		}
	}
	now = now.Add(time.Minute)
	if !l.allow("a") {
		t.Error("none for ever")
	}
}

// TestPace: pulses are put off first, then all; a node that was put off asks for less than one that wasn't, and isn't silent for it.
func TestPace(t *testing.T) {
	p := newPace(20*time.Second, 2, time.Now)
	if p.seconds() != 20 || !p.enter(true) || !p.enter(true) || p.enter(true) {
		t.Error("two pulses may be under way")
	}
	for i := range 2*fullShare - 2 {
		if !p.enter(false) {
			t.Errorf("after %d, no state", i)
		}
	}
	if p.enter(false) || p.enter(true) {
		t.Error("there is no bound")
	}
	p.leave()
	if p.enter(true) || !p.enter(false) {
		t.Error("room for one with all of the state, and for no pulse")
	}
	different := map[time.Duration]bool{}
	for range 100 {
		d := p.putOff()
		if d < 20*time.Second || d >= 40*time.Second {
			t.Fatalf("put off by %s", d)
		}
		different[d.Truncate(time.Second)] = true
	}
	if len(different) < 5 {
		t.Error("all come back together")
	}
	for interval, want := range map[time.Duration]time.Duration{0: operatorapi.StaleAfter, 5 * time.Second: operatorapi.StaleAfter, 5 * time.Minute: 20 * time.Minute} {
		if got := newPace(interval, 0, time.Now).silence(); got != want {
			t.Errorf("%s: silent after %s", interval, got)
		}
	}
}
