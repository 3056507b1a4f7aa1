package store

import (
	"strings"
	"testing"
	"time"
)

// TestTheWayBackWasBooted: what only went live becomes current, and never previous.
func TestTheWayBackWasBooted(t *testing.T) {
	s := openStore(t, t.TempDir())
	x := makeSample("nginx", 1)
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"one", "two", "three"} {
		if _, err := s.PutGeneration(x.generation([]byte(image)), strings.NewReader(image)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1_700_000_000, 0)
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, current, previous uint64) {
		t.Helper()
		c, err := s.Pointer(Current)
		step(err)
		p, err := s.Pointer(Previous)
		step(err)
		if c != current || p != previous {
			t.Errorf("%s: current %d, previous %d", what, c, p)
		}
	}
	live := func(n, from uint64) {
		t.Helper()
		step(s.PutLive(Live{Generation: n, From: from, At: now}))
		step(s.Promote(n))
	}
	step(s.Pass(1, now, nil))
	live(2, 1)
	check("live", 2, 1)
	live(3, 2)
	check("live once more", 3, 1)
	live(1, 3)
	check("back to what was booted", 1, 1)
	live(3, 1)
	step(s.Pass(3, now, nil))
	check("booted", 3, 1)
	live(2, 3)
	check("from what was booted", 2, 3)
}

func TestLeft(t *testing.T) {
	s := openStore(t, t.TempDir())
	x := makeSample("nginx", 1)
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	n, err := s.PutGeneration(x.generation([]byte("one")), strings.NewReader("one"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	if err := s.PutLeft(Left{Generation: n, For: 7, At: now}); err != nil {
		t.Fatal(err)
	}
	lefts, err := s.Lefts()
	if err != nil || len(lefts) != 1 || lefts[0].For != 7 || !lefts[0].At.Equal(now) {
		t.Errorf("%+v, %v", lefts, err)
	}
	if err := s.TakeUp(n); err != nil {
		t.Fatal(err)
	}
	if lefts, err := s.Lefts(); err != nil || len(lefts) != 0 {
		t.Errorf("%+v, %v", lefts, err)
	}
	if err := s.PutLeft(Left{Generation: 9, At: now}); err == nil {
		t.Error("of a generation that isn't here")
	}
}
