package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func settledFiles(version string) map[string]string {
	return map[string]string{
		"usr/mode": big + version, "usr/two": big + version, "usr/w": version, "opt/dir/f": big + version, "opt/dir/sub/g": version, "opt/dir/gone": version,
		"srv/" + version: version, "etc/": "", "usr/cache": version,
	}
}

// settledWant is what a person made over version 2.
func settledWant() map[string]string {
	return map[string]string{
		"usr/mode": big + "2", "usr/two": big + "2", "usr/three": big + "2", "usr/w": "mine", "usr/mine": "mine",
		"opt/renamed/f": big + "2", "opt/renamed/sub/g": "2",
	}
}

func onDisk(s *Spec) { s.Upper.Kind, s.Derived = OnPersist, isDerived }

func isDerived(path string) bool { return path == "/usr/cache" || path == "/etc/cache" }

// crashAtSettling boots an older root again after a live change to another one: the layer is settled for it.
func crashAtSettling() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			n := nodeIn(t, dir)
			one, two := n.image(settledFiles("1")), n.image(settledFiles("2"))
			n.goneLive(one, two)
			r := n.boot(two, onDisk)
			must(t, errors.Join(os.Chmod(r.in("usr/mode"), 0o600), os.Link(r.in("usr/two"), r.in("usr/three"))))
			must(t, errors.Join(os.Rename(r.in("opt/dir"), r.in("opt/renamed")), os.Remove(r.in("opt/renamed/gone"))))
			r.write("usr/w", "mine")
			r.write("usr/mine", "mine")
			r.write("usr/cache", "a program's, of version 2")
			r.shutDown()
			must(t, n.store.Close())
			must(t, errors.Join(os.WriteFile(filepath.Join(dir, "root"), []byte(one.String()), 0o644), os.WriteFile(filepath.Join(dir, "other"), []byte(two.String()), 0o644)))
		},
		Run: crashBoot,
		Check: func(t testing.TB, dir, op string, err error) {
			n := nodeIn(t, dir)
			defer n.store.Close()
			for _, name := range []string{"root", "root", "other", "root"} {
				data, err := os.ReadFile(filepath.Join(dir, name))
				must(t, err)
				root, err := fsverity.ParseDigest(string(data))
				must(t, err)
				r := n.boot(root, onDisk)
				n.wantRemarks()
				for path, want := range settledWant() {
					if got := r.read(path); got != want {
						t.Errorf("stopped at %q, in the %s: %s reads %.40q, want %.40q", op, name, path, got, want)
					}
				}
				if got, want := r.read("usr/cache"), map[string]string{"root": "1", "other": "2"}[name]; got != want {
					t.Errorf("stopped at %q, in the %s: the image's %s is hidden by %q", op, name, want, got)
				}
				if got := r.read("opt/renamed/gone"); !strings.HasPrefix(got, "error") {
					t.Errorf("what was removed is back: %q", got)
				}
				r.shutDown()
			}
		},
	}
}

// goneLive has the layer of a root be what a live change made it, without anything in it.
func (n *node) goneLive(from, to fsverity.Digest) {
	n.Helper()
	r := n.boot(from, onDisk)
	upper, err := os.Open(r.Facts().UpperDir)
	must(n, err)
	defer upper.Close()
	l, err := LiveLayerOf(n.store.Path(), upper, nil)
	must(n, err)
	must(n, errors.Join(l.Begin(from, to), l.Done(to)))
	r.shutDown()
}

func TestSettlingSurvives(t *testing.T) {
	mounttest.NeedMounts(t)
	s := crashAtSettling()
	t.Run("fail", func(t *testing.T) { s.FailEach(t, unix.ENOSPC) })
	t.Run("power", func(t *testing.T) { s.PowerCutEach(t) })
}

func TestSettlingSurvivesKills(t *testing.T) {
	mounttest.NeedMounts(t)
	afterKill(crashAtSettling()).KillEach(t)
}

// TestSettlingDamaged: content that is to be copied can't be had. What was changed stays aside, whole.
func TestSettlingDamaged(t *testing.T) {
	n := newNode(t)
	one, two := n.image(settledFiles("1")), n.image(settledFiles("2"))
	n.goneLive(one, two)
	r := n.boot(two, onDisk)
	must(t, os.Chmod(r.in("usr/mode"), 0o600))
	r.write("usr/mine", "mine")
	r.shutDown()
	tree, err := readTree(n.store, two)
	must(t, err)
	object := filepath.Join(n.store.ObjectsPath(), tree.Lookup("usr/mode").Digest.ObjectPath())
	must(t, os.Rename(object, object+".away"))
	for i := range 2 {
		r = n.boot(one, onDisk)
		if i == 0 {
			n.wantRemarks("stays aside in " + filepath.Join(n.store.Path(), uppersName, one.String()) + "." + string(n.level) + ": /usr/mode can't be taken along")
		} else {
			n.wantRemarks()
		}
		if got := r.read("usr/mode"); got != big+"1" || !strings.HasPrefix(r.read("usr/mine"), "error") {
			t.Errorf("usr/mode reads %.40q", got)
		}
		r.shutDown()
	}
	must(t, os.Rename(object+".away", object))
	r = n.boot(two, onDisk)
	n.wantRemarks()
	if r.read("usr/mine") != "mine" || r.read("usr/mode") != big+"2" {
		t.Error("the root that it was used over lost it")
	}
	r.shutDown()
}

// TestFullDiskAtSettling leaves the layer as it is, and the boot with one in memory.
func TestFullDiskAtSettling(t *testing.T) {
	n := newNode(t)
	one, two := n.image(settledFiles("1")), n.image(settledFiles("2"))
	n.goneLive(one, two)
	r := n.boot(two, onDisk)
	must(t, os.Chmod(r.in("usr/mode"), 0o600))
	r.write("usr/mine", "mine")
	r.shutDown()
	r = n.boot(one, func(s *Spec) { onDisk(s); s.Hook = failing("settle-file:", unix.ENOSPC) })
	n.wantRemarks("the writable layer is in memory")
	if got := r.read("usr/mine"); !strings.HasPrefix(got, "error") || r.Facts().Upper != InMemory {
		t.Errorf("usr/mine reads %q", got)
	}
	r.shutDown()
	r = n.boot(one, onDisk)
	n.wantRemarks()
	if r.read("usr/mine") != "mine" || r.read("usr/mode") != big+"2" {
		t.Error("the next boot doesn't have the changes")
	}
	r.shutDown()
}

// TestDirectoriesOfASettledLayer: one that is in the layer only because of what is in it has the mode that the root says; one
// that was changed keeps its own.
func TestDirectoriesOfASettledLayer(t *testing.T) {
	n := newNode(t)
	one := n.image(map[string]string{"usr/d/": "755", "usr/d/f": "1", "usr/mine/": "755", "usr/mine/f": "1"})
	two := n.image(map[string]string{"usr/d/": "700", "usr/d/f": "2", "usr/mine/": "700", "usr/mine/f": "2", "usr/gone/f": "2"})
	n.goneLive(one, two)
	modes := func(r *running) string {
		t.Helper()
		var found []string
		for _, path := range []string{"usr/d", "usr/mine", "usr/gone"} {
			info, err := os.Stat(r.in(path))
			if err != nil {
				found = append(found, "none")
				continue
			}
			found = append(found, fmt.Sprintf("%o", info.Mode().Perm()))
		}
		return strings.Join(found, " ")
	}
	r := n.boot(two, onDisk)
	r.write("usr/d/new", "x")
	must(t, os.Chmod(r.in("usr/mine"), 0o711))
	r.write("usr/gone/new", "x")
	must(t, os.Remove(r.in("usr/gone/new")))
	r.shutDown()
	for range 2 {
		r = n.boot(one, onDisk)
		if got := modes(r); got != "755 711 none" || r.read("usr/d/new") != "x" || r.read("usr/d/f") != "1" {
			t.Errorf("over the first: %s", got)
		}
		r.shutDown()
		r = n.boot(two, onDisk)
		if got := modes(r); got != "700 711 755" || r.read("usr/d/f") != "2" || r.read("usr/gone/f") != "2" {
			t.Errorf("over the second: %s", got)
		}
		r.shutDown()
	}
	n.wantRemarks()
}

// TestDroppedChangesOfAPowerCut: what a live change took out of the layer is gone once its root is the current one, and not
// before: a boot that only tries that root may have to be left again.
func TestDroppedChangesOfAPowerCut(t *testing.T) {
	n := newNode(t)
	one, two := n.image(settledFiles("1")), n.image(settledFiles("2"))
	n.goneLive(one, two)
	r := n.boot(one, onDisk)
	r.write("usr/w", "mine")
	r.shutDown()
	layerDir := filepath.Join(n.store.Path(), uppersName, one.String()+"."+string(n.level))
	cut := func() {
		t.Helper()
		upper, err := durable.OpenDir(filepath.Join(layerDir, upperName), nil)
		must(t, err)
		defer upper.Close()
		must(t, os.MkdirAll(filepath.Join(layerDir, DroppedName(two)), 0o700))
		aside, err := durable.OpenDir(filepath.Join(layerDir, DroppedName(two)), nil)
		must(t, err)
		defer aside.Close()
		must(t, delta.Drop(t.Context(), upper, aside, []string{"/usr/w"}))
	}
	for _, c := range []struct {
		what    string
		root    fsverity.Digest
		current bool
		want    string
	}{{"tried", two, false, "mine"}, {"the old one", one, true, "mine"}, {"the old one, tried", one, false, "mine"}, {"current", two, true, "2"}, {"gone for good", one, true, "1"}} {
		if c.what != "gone for good" {
			cut()
		}
		r := n.boot(c.root, func(s *Spec) { onDisk(s); s.Current = c.current })
		n.wantRemarks()
		if got := r.read("usr/w"); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		r.shutDown()
		if left, err := filepath.Glob(filepath.Join(layerDir, droppedPrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %q, %v", c.what, left, err)
		}
	}
}
