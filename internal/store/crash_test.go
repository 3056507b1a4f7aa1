package store

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// The node of the crash tests runs generation 1, with module base. The work is an update: the
// module nginx is pulled, base gets another signature, generation 2 is composed and promoted.
var (
	crashBase  = makeSample("base", 1)
	crashNginx = makeSample("nginx", 1)
	crashRoots = [][]byte{content("root 1", 9000), content("root 2", 2*bufferMax)}
)

func crashSetup(t testing.TB, dir string) {
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n, err := uint64(0), crashBase.put(s)
	if err == nil {
		n, err = s.PutGeneration(crashBase.generation(crashRoots[0]), bytes.NewReader(crashRoots[0]))
	}
	if err == nil {
		err = s.Promote(n)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func crashWork(dir string, hook durable.Hook) (err error) {
	s, err := Open(dir, Options{Hook: hook})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := crashNginx.put(s); err != nil {
		return err
	}
	signed := crashBase.module
	signed.Bundles = append(signed.Bundles, []byte("another signature"))
	if err := s.PutModule(signed, nil); err != nil {
		return err
	}
	p, err := s.Partial("sha256:" + sha256Hex(nil))
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.Write([]byte("part of a blob")); err != nil {
		return err
	}
	root := fsverity.SumBytes(crashRoots[1])
	if _, err := s.AddBytes(crashRoots[1], root); err != nil {
		return err
	}
	if err := s.SyncObject(root); err != nil {
		return err
	}
	n, err := s.PutGeneration(crashNginx.generation(crashRoots[1]), nil)
	if err != nil {
		return err
	}
	g := crashNginx.generation(crashRoots[1])
	g.Number = n
	if err := errors.Join(s.PutPin(Pin{Generation: 1, Note: "was good"}), s.PutLive(Live{Generation: n, From: 1}), s.SetPointer(Staged, n)); err != nil {
		return err
	}
	return errors.Join(s.Promote(n), s.RaiseFloors(g, noon))
}

// crashCheck reopens the store: what was there is there, what is there is whole, and the same
// work succeeds now.
func crashCheck(t testing.TB, dir, op string, _ error) {
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	defer s.Close()
	checkWhole(t, s)
	if _, err := s.GetModule(crashBase.module.ManifestDigest); err != nil {
		t.Errorf("the module that was there before: %v", err)
	}
	current, err := s.Pointer(Current)
	if err != nil || current != 1 && current != 2 || op == "" && current != 2 {
		t.Errorf("current is generation %d, %v", current, err)
	}
	floors, err := s.Floors()
	if err != nil || floors["base"].Version != "1.0" || op == "" && floors["nginx"].Version != "1.0" {
		t.Errorf("floors %+v, %v", floors, err)
	}
	_, pinErr := s.Pins()
	_, liveErr := s.Lives()
	if err := errors.Join(pinErr, liveErr); err != nil {
		t.Error(err)
	}
	for _, dir := range []*durable.Dir{s.unsynced, s.modules, s.generations} {
		names, err := dir.Names()
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if strings.HasPrefix(name, ".") || dir == s.unsynced {
				t.Errorf("left behind in %s: %s", dir.Path(), name)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	if err := crashWork(dir, nil); err != nil {
		t.Fatalf("the same work again: %v", err)
	}
	again, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if r := again.Recovered(); r != (Recovery{}) {
		t.Errorf("after an orderly end, Open recovered %+v", r)
	}
	if _, err := again.Collect(t.Context()); err != nil {
		t.Errorf("collect: %v", err)
	}
	checkWhole(t, again)
	// 4 objects each, one of them shared; 2 images; up to 2 root images.
	if n := len(files(t, again.ObjectsPath())); n != 11 {
		t.Errorf("%d objects after a collection, want 11", n)
	}
}

var crashScenario = durabletest.Scenario{Setup: crashSetup, Run: crashWork, Check: crashCheck}

func TestFaults(t *testing.T) {
	t.Run("ENOSPC", func(t *testing.T) { crashScenario.FailEach(t, unix.ENOSPC) })
	t.Run("EIO", func(t *testing.T) { crashScenario.FailEach(t, unix.EIO) })
	t.Run("kill", crashScenario.KillEach)
	t.Run("power cut", crashScenario.PowerCutEach)
}

// TestFaultsAtFirst is the same for the first work on a node: the store is not there yet.
func TestFaultsAtFirst(t *testing.T) {
	first := durabletest.Scenario{
		Run: func(dir string, hook durable.Hook) error {
			s, err := Open(filepath.Join(dir, "store"), Options{Hook: hook})
			if err != nil {
				return err
			}
			err = crashBase.put(s)
			if err == nil {
				_, err = s.PutGeneration(crashBase.generation(crashRoots[0]), bytes.NewReader(crashRoots[0]))
			}
			return errors.Join(err, s.Close())
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			s, err := Open(filepath.Join(dir, "store"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			checkWhole(t, s)
			if err := crashBase.put(s); err != nil {
				t.Errorf("again: %v", err)
			}
			checkWhole(t, s)
		},
	}
	t.Run("ENOSPC", func(t *testing.T) { first.FailEach(t, unix.ENOSPC) })
	t.Run("kill", first.KillEach)
	t.Run("power cut", first.PowerCutEach)
}

// TestPowerCutTearsObjects makes sure that the power cuts above do what the marker is for: they
// leave objects with a name and without their bytes.
func TestPowerCutTearsObjects(t *testing.T) {
	torn, removed := 0, 0
	scenario := durabletest.Scenario{
		Run: func(dir string, hook durable.Hook) error {
			s, err := Open(dir, Options{Hook: hook})
			if err != nil {
				return err
			}
			defer s.Close()
			for _, data := range crashBase.objects {
				w, err := s.NewObject(0)
				if err != nil {
					return err
				}
				w.Write(data)
				if _, _, err := w.Commit(); err != nil {
					return err
				}
			}
			return nil
		},
		Check: func(t testing.TB, dir, _ string, _ error) {
			if s, err := Open(dir, Options{ReadOnly: true}); err == nil {
				for d := range s.Objects() {
					if s.VerifyObject(d) != nil {
						torn++
					}
				}
				s.Close()
			}
			s, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			removed += s.Recovered().Removed
			checkWhole(t, s)
		},
	}
	scenario.PowerCutEach(t)
	if torn == 0 || removed != torn {
		t.Errorf("%d objects were torn, %d of them removed", torn, removed)
	}
}

// TestFailedSync: what a failed sync may have lost is gone, for other goroutines as well.
func TestFailedSync(t *testing.T) {
	all := func(s *Store, _ fsverity.Digest) error { return s.Sync() }
	for at, sync := range map[string]func(*Store, fsverity.Digest) error{
		"sync:syncfs": all, "sync:fsync": (*Store).SyncObject, "sync:syncdir": (*Store).SyncObject,
	} {
		t.Run(at, func(t *testing.T) { failedSync(t, at, sync) })
	}
}

func failedSync(t *testing.T, at string, sync func(*Store, fsverity.Digest) error) {
	t.Helper()
	var fail error
	s, err := Open(t.TempDir(), Options{Hook: func(op string) error {
		if op == at {
			return fail
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept := put(t, s, []byte("kept"))
	if err := sync(s, kept); err != nil {
		t.Fatal(err)
	}
	lost := put(t, s, []byte("lost"))
	fail = unix.EIO
	before := s.failures.Load()
	if err := sync(s, lost); !errors.Is(err, unix.EIO) || fault.KindOf(err) != fault.Broken {
		t.Errorf("%v", err)
	}
	if !s.HasObject(kept) || s.HasObject(lost) {
		t.Errorf("kept %v, lost %v", s.HasObject(kept), s.HasObject(lost))
	}
	fail = nil
	if err := s.syncSince(before); fault.KindOf(err) != fault.Retry {
		t.Errorf("work that went on meanwhile: %v", err)
	}
	if left := files(t, s.unsynced.Path()); len(left) > 0 {
		t.Errorf("still marked: %q", left)
	}
}

// TestFullDisk fills a small filesystem for real.
func TestFullDisk(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		size    int
	}{
		"no space":  {"size=1m", 50_000},
		"no inodes": {"size=64m,nr_inodes=100", 100},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, c.options)
			s, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { s.Close() }()
			for i := 0; err == nil && i < 100; i++ {
				var w *ObjectWriter
				w, err = s.NewObject(int64(c.size))
				if err != nil {
					break
				}
				if _, err = w.Write(content(string(rune('a'+i)), c.size)); err == nil {
					_, _, err = w.Commit()
				}
				w.Abort()
			}
			if !errors.Is(err, unix.ENOSPC) || fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Mount {
				t.Fatalf("%v", err)
			}
			if hint := fault.HintOf(err); !strings.HasPrefix(hint, "free space on "+dir) || !strings.Contains(hint, "inodes left") {
				t.Errorf("hint %q", hint)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a sentence: %q", err)
			}
			t.Log(err, "--", fault.HintOf(err))
			checkWhole(t, s)
			x := makeSample("nginx", 1)
			if err := x.put(s); !errors.Is(err, unix.ENOSPC) || fault.KindOf(err) != fault.Retry {
				t.Errorf("a module: %v", err)
			}
			if names, _ := s.modules.Names(); len(names) > 0 {
				t.Errorf("left behind: %q", names)
			}
			// Collecting makes room: nothing refers to what was written.
			s.Close()
			if s, err = Open(dir, Options{}); err != nil {
				t.Fatalf("reopen on a full disk: %v", err)
			}
			// A sync that failed has removed what it couldn't vouch for.
			left := len(maps.Collect(s.Objects()))
			if done, err := s.Collect(t.Context()); err != nil || done.Objects != left {
				t.Errorf("collect: %+v of %d, %v", done, left, err)
			}
			if err := x.put(s); err != nil {
				t.Errorf("a module, with room: %v", err)
			}
			checkWhole(t, s)
		})
	}
}

func TestReadOnlyStore(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store that isn't there: %v", err)
	}
	crashSetup(t, dir)
	before := files(t, dir)
	s, err := Open(dir, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkWhole(t, s)
	_, newErr := s.NewObject(1)
	_, genErr := s.PutGeneration(Generation{RootDigest: fsverity.Digest{1}}, nil)
	_, partialErr := s.Partial("sha256:" + sha256Hex(nil))
	_, collectErr := s.Collect(t.Context())
	refused := []error{
		newErr, genErr, partialErr, collectErr, s.PutModule(crashNginx.module, nil), s.SetPointer(Current, 1), s.Promote(1), s.Sync(),
		s.RemoveModule(crashBase.module.ManifestDigest), s.RemoveGeneration(1), s.RemoveObject(crashBase.module.Seal),
	}
	if s.Verity() != nil { // where it is enabled on all already, there is nothing to refuse
		refused = append(refused, s.EnableVerity(t.Context(), nil))
	}
	for i, err := range refused {
		if fault.KindOf(err) != fault.Refuse || err == nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if after := files(t, dir); len(after) != len(before) {
		t.Errorf("changed: %q, was %q", after, before)
	}
}

func TestFormatOfAnother(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	for _, text := range []string{`{"format": 2}`, `{"format": 2, "more": {}}`} {
		write(t, filepath.Join(dir, formatFile), text)
		for _, readOnly := range []bool{false, true} {
			if _, err := Open(dir, Options{ReadOnly: readOnly}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), dir) {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFormatThatCannotBeRead: the mark of a store is worth less than the store.
func TestFormatThatCannotBeRead(t *testing.T) {
	for _, text := range []string{"", `{"format": 1`, "{}", "null", strings.Repeat(" ", 2000)} {
		dir := t.TempDir()
		crashSetup(t, dir)
		write(t, filepath.Join(dir, formatFile), text)
		for i, c := range []struct{ readOnly, told bool }{{true, true}, {false, true}, {false, false}} {
			s, err := Open(dir, Options{ReadOnly: c.readOnly})
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if got := s.Recovered().Format; (got != "") != c.told {
				t.Errorf("%q, %d: %q", text, i, got)
			}
			checkWhole(t, s)
			s.Close()
		}
	}
}

// TestLostDirectories: what only writing needs doesn't keep a store from being read, and a directory of records
// that is gone is no reason to refuse.
func TestLostDirectories(t *testing.T) {
	for _, name := range []string{"unsynced", "partial"} {
		dir := t.TempDir()
		crashSetup(t, dir)
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), "")
		if _, err := Open(dir, Options{}); err == nil {
			t.Errorf("%s is a file, and nothing is wrong", name)
		}
		s, err := Open(dir, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s)
		s.Close()
	}
	for _, name := range []string{"generations", "modules", "objects", "unsynced"} {
		dir := t.TempDir()
		crashSetup(t, dir)
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		if err := crashNginx.put(s); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
