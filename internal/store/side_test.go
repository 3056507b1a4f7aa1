package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// threeGenerations opens a store with three generations of module base, of which 2 is current and 1 previous.
func threeGenerations(t testing.TB) *Store {
	t.Helper()
	s := openStore(t, t.TempDir())
	if err := crashBase.put(s); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		root := content("root "+string(rune('a'+i)), 5000)
		put(t, s, root)
		n, err := s.PutGeneration(crashBase.generation(root), nil)
		if err == nil && i < 2 {
			err = s.Promote(n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestPins(t *testing.T) {
	s := threeGenerations(t)
	put := func(n uint64, note string) error { return s.PutPin(Pin{Generation: n, Since: noon, Note: note}) }
	if p, err := s.Pin(1); err != nil || p != (Pin{}) {
		t.Errorf("no pin yet: %+v, %v", p, err)
	}
	for _, err := range []error{put(3, ""), put(1, "before the move"), put(1, "before the big move")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []Pin{{1, noon, "before the big move"}, {3, noon, ""}}
	if pins, err := s.Pins(); err != nil || !slices.Equal(pins, want) {
		t.Errorf("pins %+v, %v", pins, err)
	}
	for _, c := range []struct {
		n    uint64
		note string
	}{{9, ""}, {0, ""}, {1, "two\nlines"}, {1, "\x1b[2J"}, {1, strings.Repeat("x", NoteMax+1)}, {1, "\xff"}} {
		if err := put(c.n, c.note); fault.KindOf(err) != fault.Refuse {
			t.Errorf("pin %d %q: %v", c.n, c.note, err)
		}
	}
	if err := s.RemovePin(2); !errors.Is(err, fs.ErrNotExist) || fault.KindOf(err) != fault.Refuse {
		t.Errorf("unpin what isn't: %v", err)
	}
	if err := s.RemovePin(3); err != nil {
		t.Error(err)
	}
	if pins, _ := s.Pins(); len(pins) != 1 {
		t.Errorf("pins %+v", pins)
	}
}

// TestPinnedStays: what is pinned can't be removed, not even when the pin is damaged.
func TestPinnedStays(t *testing.T) {
	s := threeGenerations(t)
	if err := errors.Join(s.SetPointer(Previous, 0), s.PutPin(Pin{Generation: 1})); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.RemoveGeneration(1); fault.AreaOf(err) != fault.Destructive || !strings.Contains(err.Error(), "pinned") {
			t.Errorf("%v", err)
		}
		damageFile(t, s, "1.pin")
	}
	if p, err := s.Pin(1); p.Generation != 1 || fault.KindOf(err) != fault.Broken || err == nil {
		t.Errorf("a damaged pin: %+v, %v", p, err)
	}
	if pins, err := s.Pins(); len(pins) != 1 || err == nil {
		t.Errorf("pins %+v, %v", pins, err)
	}
	if err := s.RemovePin(1); err != nil {
		t.Error(err)
	}
	if err := s.RemoveGeneration(1); err != nil {
		t.Error(err)
	}
}

func damageFile(t testing.TB, s *Store, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Path(), "generations", name), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLive(t *testing.T) {
	s := threeGenerations(t)
	l := Live{Generation: 3, From: 2, At: noon, BootID: "b"}
	if err := s.PutLive(l); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Live(3); err != nil || got != l {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Live(2); err != nil || got != (Live{}) || got.Unproven(Trial{}) {
		t.Errorf("one that didn't: %+v, %v", got, err)
	}
	if !l.Unproven(Trial{}) || l.Unproven(Trial{Good: noon}) {
		t.Error("proven by a boot that was found good, and by nothing else")
	}
	if err := s.PutLive(Live{Generation: 9}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of one that isn't here: %v", err)
	}
	damageFile(t, s, "3.live")
	got, err := s.Lives()
	if len(got) != 1 || got[0].Generation != 3 || !got[0].Unproven(Trial{}) || fault.KindOf(err) != fault.Broken {
		t.Errorf("damaged: %+v, %v", got, err)
	}
}

// TestSideRecordsGoAlong: nothing is left of a generation that is removed, and records of a later agent, which this one
// doesn't know, are left alone and in nobody's way.
func TestSideRecordsGoAlong(t *testing.T) {
	s := threeGenerations(t)
	err := errors.Join(s.SetPointer(Previous, 0), s.PutLive(Live{Generation: 1}), s.PutTrial(Trial{Generation: 1, Attempts: 1}))
	if err != nil {
		t.Fatal(err)
	}
	damageFile(t, s, "2.later")
	if s.GenerationBytes(1) < s.GenerationBytes(2) || s.GenerationBytes(9) != 0 {
		t.Errorf("%d bytes, %d, %d", s.GenerationBytes(1), s.GenerationBytes(2), s.GenerationBytes(9))
	}
	if err := s.RemoveGeneration(1); err != nil {
		t.Fatal(err)
	}
	names, _ := s.generations.Names()
	if want := []string{"2.json", "2.later", "3.json", "current", "lock"}; !slices.Equal(names, want) {
		t.Errorf("left: %q", names)
	}
	checkWhole(t, s)
	if numbers, err := s.Numbers(); err != nil || !slices.Equal(numbers, []uint64{2, 3}) {
		t.Errorf("%v, %v", numbers, err)
	}
}

// TestRecordsAreStrict is why there are side records: one with a field more is damaged to who doesn't know it.
func TestRecordsAreStrict(t *testing.T) {
	s := threeGenerations(t)
	g, err := s.Generation(1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := sealRecord(struct {
		Generation
		More string `json:"more"`
	}{g, "news"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Path(), "generations", "1.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Generation(1); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), "more") {
		t.Errorf("%v", err)
	}
}
