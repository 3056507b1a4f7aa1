package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
)

// work is one change of a directory: what it looks like before, what is done, and what it may
// look like after a fault.
type work struct {
	before map[string]string // content by name; "/" stands for a directory with one file
	do     func(d *durable.Dir) error
	after  map[string]string
}

var works = map[string]work{
	"WriteFile replaces": {
		before: map[string]string{"f": "old"},
		do:     func(d *durable.Dir) error { return d.WriteFile("f", []byte("new"), 0o640, "f") },
		after:  map[string]string{"f": "new"},
	},
	"WriteFile creates": {
		do:    func(d *durable.Dir) error { return d.WriteFile("f", []byte("new"), 0o640, "f") },
		after: map[string]string{"f": "new"},
	},
	"WriteFile on a root": {
		before: map[string]string{"f": "old"},
		do:     func(d *durable.Dir) error { return d.WriteJSON("f", 7, 0o640, "f") },
		after:  map[string]string{"f": "7\n"},
	},
	"WriteNew": {
		before: map[string]string{"other": "x"},
		do:     func(d *durable.Dir) error { return d.WriteNew("f", []byte("new"), 0o640, "f") },
		after:  map[string]string{"other": "x", "f": "new"},
	},
	"Rename": {
		before: map[string]string{"a": "1", "b": "2"},
		do:     func(d *durable.Dir) error { return d.Rename("a", "b", "f") },
		after:  map[string]string{"b": "1"},
	},
	"RenameNew": {
		before: map[string]string{"a": "1"},
		do:     func(d *durable.Dir) error { return d.RenameNew("a", "b", "f") },
		after:  map[string]string{"b": "1"},
	},
	"Exchange": {
		before: map[string]string{"a": "1", "b": "2"},
		do:     func(d *durable.Dir) error { return d.Exchange("a", "b", "f") },
		after:  map[string]string{"a": "2", "b": "1"},
	},
	"Remove": {
		before: map[string]string{"a": "1", "b": "2"},
		do:     func(d *durable.Dir) error { return d.Remove("a", "f") },
		after:  map[string]string{"b": "2"},
	},
	"RemoveTree": {
		before: map[string]string{"tree": "/", "b": "2"},
		do:     func(d *durable.Dir) error { return d.RemoveTree("tree", "f") },
		after:  map[string]string{"b": "2"},
	},
	"a directory filled and named": {
		do: func(d *durable.Dir) error {
			sub, temp, err := d.MakeTemp(0o700, "f")
			if err != nil {
				return err
			}
			defer sub.Close()
			err = errors.Join(sub.WriteLoose("in", []byte("x"), 0o600, "f"))
			if err == nil {
				err = d.SyncFS("f")
			}
			if err != nil {
				return err
			}
			return d.RenameNew(temp, "tree", "f")
		},
		after: map[string]string{"tree": "/"},
	},
	"MakeSub": {
		do: func(d *durable.Dir) error {
			sub, err := d.MakeSub("tree", 0o700, "f")
			if err != nil {
				return err
			}
			return errors.Join(sub.WriteFile("in", []byte("x"), 0o600, "g"), sub.Close())
		},
		after: map[string]string{"tree": "/"},
	},
}

func (w work) scenario() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			for name, content := range w.before {
				fill(t, filepath.Join(dir, name), content)
			}
		},
		Run: func(dir string, hook durable.Hook) error {
			d, err := durable.OpenDir(dir, hook)
			if err != nil {
				return err
			}
			return errors.Join(w.do(d), d.Close())
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			d, err := durable.OpenDir(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.Sweep(); err != nil {
				t.Fatal(err)
			}
			got := contents(t, dir)
			if op != "" && same(got, w.before) {
				return
			}
			// An empty directory is what MakeSub leaves when what follows is not reached.
			if op != "" && same(got, map[string]string{"tree": "empty"}) && len(w.before) == 0 {
				return
			}
			if !same(got, w.after) {
				t.Errorf("after a fault at %q: %v, want %v or %v", op, got, w.before, w.after)
			}
		},
	}
}

func TestFaults(t *testing.T) {
	for name, w := range works {
		t.Run(name, func(t *testing.T) {
			t.Run("ENOSPC", func(t *testing.T) { w.scenario().FailEach(t, unix.ENOSPC) })
			t.Run("EIO", func(t *testing.T) { w.scenario().FailEach(t, unix.EIO) })
			t.Run("kill", w.scenario().KillEach)
			t.Run("power cut", w.scenario().PowerCutEach)
		})
	}
}

// TestPowerCutFindsMissingSync makes sure that the power cuts would notice: a write without a
// sync, and one whose name isn't synced.
func TestPowerCutFindsMissingSync(t *testing.T) {
	lost := 0
	sloppy := durabletest.Scenario{
		Setup: func(t testing.TB, dir string) { fill(t, filepath.Join(dir, "f"), "old") },
		Run: func(dir string, hook durable.Hook) error {
			temp := filepath.Join(dir, "temp")
			if err := os.WriteFile(temp, []byte("new"), 0o600); err != nil {
				return err
			}
			// A link, since ext4 writes the data of a file that is renamed over another.
			return errors.Join(os.Remove(filepath.Join(dir, "f")), os.Link(temp, filepath.Join(dir, "f")))
		},
		Check: func(t testing.TB, dir, _ string, _ error) {
			if data, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || (string(data) != "new" && string(data) != "old") {
				lost++
			}
		},
	}
	sloppy.PowerCutEach(t)
	if lost == 0 {
		t.Error("a write without a sync survived every power cut")
	}
}

func TestDiskFaultsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind fault.Kind
	}{{unix.ENOSPC, fault.Retry}, {unix.EDQUOT, fault.Retry}, {unix.EROFS, fault.Refuse}, {unix.EIO, fault.Broken}} {
		d := open(t, t.TempDir())
		d.Close()
		err := durable.Diagnose(d.Path(), &os.PathError{Op: "write", Path: "x", Err: c.err})
		if fault.KindOf(err) != c.kind || fault.AreaOf(err) != fault.Mount || fault.HintOf(err) == "" || !errors.Is(err, c.err) {
			t.Errorf("%v: kind %v, area %v, hint %q", err, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
		}
		if again := durable.Diagnose("/elsewhere", err); fault.HintOf(again) != fault.HintOf(err) {
			t.Errorf("diagnosed twice: %v", again)
		}
	}
	if err := durable.Diagnose("/", os.ErrNotExist); !errors.Is(err, os.ErrNotExist) || fault.AreaOf(err) != fault.General {
		t.Errorf("an error of no kind became %v", err)
	}
}

func fill(t testing.TB, name, content string) {
	t.Helper()
	if content == "/" {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		name, content = filepath.Join(name, "in"), "x"
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contents is the reverse of fill, for a whole directory.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if !e.IsDir() {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found[e.Name()] = string(data)
			continue
		}
		inside, err := os.ReadFile(filepath.Join(name, "in"))
		switch {
		case errors.Is(err, os.ErrNotExist):
			found[e.Name()] = "empty"
		case string(inside) == "x":
			found[e.Name()] = "/"
		default:
			found[e.Name()] = "torn: " + string(inside)
		}
	}
	return found
}

func same(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, content := range a {
		if b[name] != content {
			return false
		}
	}
	return true
}

func open(t testing.TB, dir string) *durable.Dir {
	t.Helper()
	d, err := durable.OpenDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
