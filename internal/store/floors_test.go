package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// versions adds a generation of module base, said to be of that version.
func versions(t testing.TB, s *Store, version string) Generation {
	t.Helper()
	root := content("root "+version, 4000)
	g := crashBase.generation(root)
	g.Modules[0].Version = version
	n, err := s.PutGeneration(g, bytes.NewReader(root))
	if err != nil {
		t.Fatal(err)
	}
	g.Number = n
	return g
}

func TestFloors(t *testing.T) {
	s := openStore(t, t.TempDir())
	if err := crashBase.put(s); err != nil {
		t.Fatal(err)
	}
	floor := func() string {
		t.Helper()
		floors, err := s.Floors()
		if err != nil {
			t.Fatal(err)
		}
		return floors["base"].Version
	}
	if floor() != "" {
		t.Errorf("at first: %q", floor())
	}
	old, next := versions(t, s, "1.9"), versions(t, s, "1.10")
	if floor() != "" {
		t.Errorf("two that never ran: %q", floor())
	}
	// A node from before there were floors has them all the same.
	if err := errors.Join(s.Promote(old.Number), s.Pass(next.Number, noon, nil), s.Promote(old.Number)); err != nil {
		t.Fatal(err)
	}
	if floor() != "1.10" {
		t.Errorf("by the generations: %q", floor())
	}
	if err := s.RaiseFloors(Generation{}, noon); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetPointer(Previous, 0), s.RemoveGeneration(next.Number)); err == nil {
		t.Fatal("the latest was removed") // and its number would be given out again
	}
	live := versions(t, s, "2.0~rc1")
	if err := s.RemoveGeneration(next.Number); err != nil {
		t.Fatal(err)
	}
	if floor() != "1.10" {
		t.Errorf("once the generation is gone: %q", floor())
	}
	if err := s.PutLive(Live{Generation: live.Number, At: noon}); err != nil || floor() != "2.0~rc1" {
		t.Errorf("live: %q, %v", floor(), err)
	}
	if err := s.PutTrial(Trial{Generation: live.Number, Failed: "taken back"}); err != nil || floor() != "1.10" {
		t.Errorf("live, and taken back: %q, %v", floor(), err)
	}
	good := versions(t, s, "2.0")
	if err := s.RaiseFloors(good, noon); err != nil || floor() != "2.0" {
		t.Errorf("raised: %q, %v", floor(), err)
	}
	info, err := os.Stat(filepath.Join(s.Path(), floorsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if err := s.RaiseFloors(old, noon); err != nil || floor() != "2.0" {
		t.Errorf("an older one came back: %q, %v", floor(), err)
	}
	if again, err := os.Stat(filepath.Join(s.Path(), floorsFile)); err != nil || !os.SameFile(info, again) {
		t.Errorf("written for nothing: %v", err)
	}
	floors, err := s.Floors()
	if want := (Floor{Version: "2.0", Generation: good.Number, Since: noon}); err != nil || floors["base"] != want {
		t.Errorf("%+v, %v", floors, err)
	}
}

// TestDamagedFloors: nobody goes on as if there were none, and nobody writes over what a person may still read.
func TestDamagedFloors(t *testing.T) {
	good, err := sealRecord(floorsRecord{Floors{"base": {Version: "1", Since: time.Unix(0, 0).UTC()}}})
	if err != nil {
		t.Fatal(err)
	}
	noName, err := sealRecord(floorsRecord{Floors{"../base": {Version: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{}", string(good[:len(good)-9]), strings.Replace(string(good), `"1"`, `"0"`, 1), string(noName)} {
		s := threeGenerations(t)
		path := filepath.Join(s.Path(), floorsFile)
		write(t, path, text)
		_, err := s.Floors()
		if fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), path) || !strings.Contains(fault.HintOf(err), "remove it") {
			t.Errorf("%q: %v; %s", text, err, fault.HintOf(err))
		}
		if err := s.RaiseFloors(Generation{Number: 1}, noon); fault.KindOf(err) != fault.Broken {
			t.Errorf("%q, raised: %v", text, err)
		}
		if left, err := os.ReadFile(path); err != nil || string(left) != text {
			t.Errorf("%q was written over", text)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if floors, err := s.Floors(); err != nil || floors["base"].Version != "1.0" {
			t.Errorf("begun anew: %+v, %v", floors, err)
		}
	}
}

func FuzzFloors(f *testing.F) {
	whole, err := sealRecord(floorsRecord{Floors{"base": {Version: "1", Generation: 3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:30])
	f.Add([]byte(`{"sha256":"","record":{"floors":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r floorsRecord
		if openRecord(data, &r) == nil && r.Floors.check() == nil {
			for name, floor := range r.Floors {
				if name == "" || floor.Version == "" {
					t.Errorf("%q became %+v", data, r)
				}
			}
		}
	})
}
