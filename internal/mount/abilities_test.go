package mount

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func TestDecide(t *testing.T) {
	full := func() Abilities {
		yes := Ability{OK: true}
		return Abilities{Directory: "/persist", FSVerity: yes, EROFSFromFile: yes, EROFSByLoop: yes, Overlay: yes, DataLayers: yes, VerityRequire: yes}
	}
	no := Ability{Reason: "because"}
	tests := map[string]struct {
		without  func(*Abilities)
		required Level
		want     Level
		area     fault.Area
	}{
		"everything, enforced":         {func(*Abilities) {}, Enforced, Enforced, 0},
		"everything, checked suffices": {func(*Abilities) {}, Checked, Enforced, 0},
		"no fs-verity, enforced":       {func(a *Abilities) { a.FSVerity = no }, Enforced, "", fault.Policy},
		"no fs-verity, checked":        {func(a *Abilities) { a.FSVerity = no }, Checked, Checked, 0},
		"no verity=, enforced":         {func(a *Abilities) { a.VerityRequire = no }, Enforced, "", fault.Policy},
		"no verity=, checked":          {func(a *Abilities) { a.VerityRequire = no }, Checked, Checked, 0},
		"loop only":                    {func(a *Abilities) { a.EROFSFromFile = no }, Enforced, Enforced, 0},
		"files only":                   {func(a *Abilities) { a.EROFSByLoop = no }, Enforced, Enforced, 0},
		"no EROFS":                     {func(a *Abilities) { a.EROFSFromFile, a.EROFSByLoop = no, no }, Checked, "", fault.Mount},
		"no overlay":                   {func(a *Abilities) { a.Overlay = no }, Checked, "", fault.Mount},
		"no data layers":               {func(a *Abilities) { a.DataLayers = no }, Checked, "", fault.Mount},
		"no level":                     {func(*Abilities) {}, "", "", fault.Input},
		"unknown level":                {func(*Abilities) {}, "unsafe-none", "", fault.Input},
	}
	for name, test := range tests {
		a := full()
		test.without(&a)
		got, err := Decide(a, test.required)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err != nil && (fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != test.area || fault.HintOf(err) == "") {
			t.Errorf("%s: kind %v, area %v, hint %q", name, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
		}
		if err != nil && test.area != fault.Input && !strings.Contains(err.Error(), "because") {
			t.Errorf("%s: the reason is missing: %v", name, err)
		}
	}
}

// TestProbe holds the answers against what the kernel then does.
func TestProbe(t *testing.T) {
	mounttest.NeedMounts(t)
	before, err := ReadTable()
	must(t, err)
	for place, dir := range somewhere {
		dir := dir(t)
		a, err := Probe(dir)
		must(t, err)
		text, err := json.Marshal(a)
		must(t, err)
		t.Logf("%s: %s", place, text)
		var back Abilities
		if err := json.Unmarshal(text, &back); err != nil || back != a {
			t.Errorf("%s: JSON doesn't come back: %v", place, err)
		}
		if place == "tmpfs" && (a.FSVerity.OK || a.EROFSFromFile.OK || a.FSVerity.Reason == "" || a.EROFSFromFile.Reason == "") {
			t.Errorf("tmpfs: %+v", a)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", place, left)
		}
		level, err := Decide(a, Checked)
		must(t, err)
		s := seal(t, dir, sample)
		spec := s.spec(t)
		spec.Level = Checked
		if m, err := Union(spec); err != nil {
			t.Errorf("%s: level %s was promised: %v", place, level, err)
		} else {
			m.Close()
		}
	}
	if _, err := Probe("/does/not/exist"); err == nil {
		t.Error("a directory that isn't there was probed")
	}
	after, err := ReadTable()
	must(t, err)
	if len(after) != len(before)+1 { // the tmpfs of this test
		t.Errorf("%d mounts before, %d after", len(before), len(after))
	}
}

func BenchmarkProbe(b *testing.B) {
	mounttest.NeedMounts(b)
	dir := b.TempDir()
	for b.Loop() {
		if _, err := Probe(dir); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnion mounts and dissolves a small union.
func BenchmarkUnion(b *testing.B) {
	mounttest.NeedMounts(b)
	s := seal(b, b.TempDir(), sample)
	spec := s.writable(b, b.TempDir())
	for b.Loop() {
		m, err := Union(spec)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}
