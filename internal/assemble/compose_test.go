package assemble

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/store"
)

// composed composes modules and keeps the result as a generation that is current.
func (s *shop) composed(wanted ...Wanted) (*Composition, store.Generation) {
	s.t.Helper()
	c, err := Compose(s.prove(wanted...))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Store(s.t.Context(), s.store, false); err != nil {
		s.t.Fatal(err)
	}
	g, err := c.Keep(s.store, "test", "checked", nowZero())
	if err == nil {
		err = s.store.Promote(g.Number)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return c, g
}

func (s *shop) pair() (low, high Wanted) {
	s.t.Helper()
	low = s.get(ware{name: "low", files: map[string]string{"etc/page": long("low"), "usr/low": long("l")}})
	high = s.get(ware{name: "high", priority: 9, files: map[string]string{"etc/page": long("high")}})
	return low, high
}

func TestComposeInAnyOrder(t *testing.T) {
	s := newShop(t)
	low, high := s.pair()
	c, g := s.composed(low, high)
	if len(c.Report.Conflicts) != 1 || c.Report.Conflicts[0].Winner != "high" {
		t.Errorf("conflicts %+v", c.Report.Conflicts)
	}
	if g.Number != 1 || g.RootDigest != c.RootDigest || len(g.Modules) != 2 || g.Cause != "test" || g.Level != "checked" {
		t.Errorf("generation %+v", g)
	}
	other, again := s.composed(high, low)
	if other.RootDigest != c.RootDigest || again.Number != 1 {
		t.Errorf("the other order gives root %s, generation %d", other.RootDigest, again.Number)
	}
}

// TestKeepKnowsItsOwn: a generation is made when something is new, and found again when not,
// whichever is current.
func TestKeepKnowsItsOwn(t *testing.T) {
	s := newShop(t)
	low, high := s.pair()
	s.composed(low, high)
	if _, g := s.composed(low); g.Number != 2 {
		t.Errorf("without one: generation %d", g.Number)
	}
	if _, g := s.composed(low, high); g.Number != 1 {
		t.Errorf("back again: generation %d", g.Number)
	}
	raised := low
	raised.EffectivePriority = high.EffectivePriority + 1
	if _, g := s.composed(raised, high); g.Number != 3 {
		t.Errorf("with another priority: generation %d", g.Number)
	}
	if err := os.WriteFile(filepath.Join(s.store.Path(), "generations", "1.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, g := s.composed(low, high); g.Number != 4 {
		t.Errorf("with a damaged record: generation %d", g.Number)
	}
}

// TestStoreMendsTheRootImage, and leaves one that is whole alone.
func TestStoreMendsTheRootImage(t *testing.T) {
	s := newShop(t)
	low, high := s.pair()
	c, _ := s.composed(low, high)
	path := s.path(c.RootDigest)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s.composed(low, high)
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a whole image is written again: %v", err)
	}
	s.damage(path)
	if s.store.VerifyObject(c.RootDigest) == nil {
		t.Fatal("the damage isn't one")
	}
	s.composed(low, high)
	if err := s.store.VerifyObject(c.RootDigest); err != nil {
		t.Error(err)
	}
}

func TestComposeRefusesWhatDoesNotGoTogether(t *testing.T) {
	s := newShop(t)
	a := s.get(ware{name: "a", manifest: "protected_spec: [\"/etc/shadow\"]\n", files: map[string]string{"etc/shadow": "a", "usr/a": "a"}})
	b := s.get(ware{name: "b", priority: 1, files: map[string]string{"etc/shadow": "b", "usr/b": "b"}})
	_, err := Compose(s.prove(a, b))
	if err == nil || !strings.Contains(err.Error(), "etc/shadow") {
		t.Errorf("error %v", err)
	}
	c, err := Compose(s.prove(a, a))
	if err == nil {
		t.Errorf("the same module twice gives %s", c.RootDigest)
	}
}

// TestWantedOf: a generation says all that is needed to boot it again.
func TestWantedOf(t *testing.T) {
	s := newShop(t)
	low, high := s.pair()
	_, g := s.composed(low, high)
	wanted, err := WantedOf(s.store, g)
	if err != nil || len(wanted) != 2 || wanted[0] != low || wanted[1] != high {
		t.Fatalf("wanted %+v, %v", wanted, err)
	}
	c, again := s.composed(wanted...)
	if c.RootDigest != g.RootDigest || again.Number != g.Number {
		t.Errorf("root %s, generation %d", c.RootDigest, again.Number)
	}
	if err := s.store.RemoveModule(high.ManifestDigest); err != nil {
		t.Fatal(err)
	}
	if _, err := WantedOf(s.store, g); err == nil || !strings.Contains(err.Error(), "generation 1: module high 1") {
		t.Errorf("error %v", err)
	}
}
