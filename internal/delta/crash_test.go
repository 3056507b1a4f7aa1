package delta

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/mount"
)

// crashed is the work that must survive: the changes of a person over one image, settled or dropped for another.
type crashed struct {
	*node
	from, to image
	// old and new are what must be seen over the two images.
	old, new map[string]string
}

func newCrashed(t *testing.T) crashed {
	n := newNode(t)
	c := crashed{node: n}
	c.from = n.image("etc/x", big("x"), "etc/two", big("two"), "etc/w", "w", "opt/a/f", big("f"), "opt/a/sub/g", "g", "opt/a/sub/l", "-> g", "opt/a/h", "h")
	c.to = n.image("etc/x", big("new"), "etc/two", big("new"), "etc/w", "new", "opt/a/f", big("new"), "opt/a/sub/g", "new", "opt/a/sub/m", "new", "etc/d/image", "image")
	c.old = map[string]string{
		"etc/x": big("x"), "etc/two": big("two"), "etc/three": big("two"), "etc/d": "/mine", "etc/w": "mine", "opt": "/b", "opt/b": "/f sub",
		"opt/b/f": big("f"), "opt/b/sub": "/g l", "opt/b/sub/g": "g",
	}
	c.new = make(map[string]string)
	for name, content := range c.old {
		c.new[name] = content
	}
	c.new["etc/d"] = "/image mine"
	return c
}

// layers makes an upper with the changes in dir.
func (c crashed) layers(t testing.TB, dir string) {
	must(t, errors.Join(os.Mkdir(filepath.Join(dir, "upper"), 0o755), os.Mkdir(filepath.Join(dir, "aside"), 0o700)))
	c.over(t, dir, c.from, func(m *mounted) {
		m.chmod("etc/x", 0o600)
		must(m, os.Link(m.path("etc/two"), m.path("etc/three")))
		m.write("etc/w", "mine")
		m.mkdir("etc/d")
		m.write("etc/d/mine", "mine")
		m.rename("opt/a", "opt/b")
		m.remove("opt/b/h")
	})
}

// over has a look at the upper in dir over an image.
func (c crashed) over(t testing.TB, dir string, i image, look func(m *mounted)) {
	t.Helper()
	work, err := os.MkdirTemp(dir, "work-")
	must(t, err)
	var files [4]*os.File
	for k, path := range []string{filepath.Join(dir, "upper"), work} {
		files[k], err = os.Open(path)
		must(t, err)
		defer files[k].Close()
	}
	file, err := c.store.OpenRootImage(i.digest)
	must(t, err)
	defer file.Close()
	u, err := mount.Union(mount.UnionSpec{
		Image: file, Digest: i.digest, Objects: c.store.ObjectsDir(), Level: c.level, Upper: files[0], Work: files[1], Scratch: t.TempDir(),
	})
	must(t, err)
	m := &mounted{TB: t, Mount: u, at: t.TempDir()}
	must(t, errors.Join(u.Attach(m.at), u.Close()))
	defer func() { must(t, unix.Unmount(m.at, 0)) }()
	look(m)
}

func (c crashed) scanIn(dir string) (*Delta, error) {
	f, err := os.Open(filepath.Join(dir, "upper"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Scan(c.Context(), f, Limits{})
}

// open opens the directories of a layer.
func open(dir string, hook durable.Hook) (upper, aside *durable.Dir, err error) {
	if upper, err = durable.OpenDir(filepath.Join(dir, "upper"), hook); err != nil {
		return nil, nil, err
	}
	aside, err = durable.OpenDir(filepath.Join(dir, "aside"), hook)
	return upper, aside, err
}

// settling is the settling of an upper before a boot.
func (c crashed) settling() durabletest.Scenario {
	run := func(dir string, hook durable.Hook) error {
		d, err := c.scanIn(dir)
		if err != nil {
			return err
		}
		upper, aside, err := open(dir, hook)
		if err != nil {
			return err
		}
		defer upper.Close()
		defer aside.Close()
		troubles, err := Settle(d, c.from.tree, c.to.tree, nil).ActOffline(c.Context(), Offline{Upper: upper, Aside: aside, Objects: c.store})
		if len(troubles) > 0 {
			err = errors.Join(err, errors.New(troubles[0].Why))
		}
		return err
	}
	return durabletest.Scenario{
		Setup: c.layers,
		Run:   run,
		Check: func(t testing.TB, dir, op string, _ error) {
			old := func(m *mounted) { m.check("over the old image, stopped at "+op, c.old) }
			c.over(t, dir, c.from, old)
			if op != "" {
				must(t, run(dir, nil))
				c.over(t, dir, c.from, old)
			}
			c.over(t, dir, c.to, func(m *mounted) { m.check("over the new image, stopped at "+op, c.new) })
		},
	}
}

// dropping drops a change for a new image, and puts it back where it doesn't come to the end.
func (c crashed) dropping() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: c.layers,
		Run: func(dir string, hook durable.Hook) error {
			upper, aside, err := open(dir, hook)
			if err != nil {
				return err
			}
			defer upper.Close()
			defer aside.Close()
			if err := Drop(c.Context(), upper, aside, []string{"/etc/w", "/opt/b"}); err != nil {
				return err
			}
			if err := Restore(upper, aside); err != nil {
				return err
			}
			if err := Drop(c.Context(), upper, aside, []string{"/etc/w", "/opt/b"}); err != nil {
				return err
			}
			return Discard(aside)
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			upper, aside, err := open(dir, nil)
			must(t, err)
			must(t, errors.Join(aside.Sweep(), Restore(upper, aside), Discard(aside), upper.Close(), aside.Close()))
			c.over(t, dir, c.from, func(m *mounted) {
				if m.read("etc/w") == "w" {
					m.check("dropped for good, stopped at "+op, map[string]string{"etc/w": "w", "opt": "/"})
				} else {
					m.check("put back, stopped at "+op, c.old)
				}
			})
		},
	}
}

func TestSettlingSurvives(t *testing.T) {
	c := newCrashed(t)
	t.Run("EIO", func(t *testing.T) { c.settling().FailEach(t, unix.EIO) })
	t.Run("kill", c.settling().KillEach)
	t.Run("power cut", c.settling().PowerCutEach)
}

func TestDroppingSurvives(t *testing.T) {
	c := newCrashed(t)
	t.Run("ENOSPC", func(t *testing.T) { c.dropping().FailEach(t, unix.ENOSPC) })
	t.Run("kill", c.dropping().KillEach)
	t.Run("power cut", c.dropping().PowerCutEach)
}

// TestSettlingLiveStops fails the settling of a running union at each of its operations: the union and the upper over
// the old image stay as they were, and the rest can be done later.
func TestSettlingLiveStops(t *testing.T) {
	c := newCrashed(t)
	for i, done := 0, false; !done; i++ {
		dir := t.TempDir()
		c.layers(t, dir)
		c.over(t, dir, c.from, func(m *mounted) {
			act := func(hook durable.Hook) error {
				d, err := c.scanIn(dir)
				must(t, err)
				upper, err := durable.OpenDir(filepath.Join(dir, "upper"), hook)
				must(t, err)
				defer upper.Close()
				troubles, err := Settle(d, c.from.tree, c.to.tree, nil).ActLive(t.Context(), Live{Upper: upper, View: m.view})
				if len(troubles) > 0 {
					t.Errorf("troubles %v", troubles)
				}
				return err
			}
			n := 0
			err := act(func(string) error {
				n++
				if n == i+1 {
					return unix.EIO
				}
				return nil
			})
			if done = n <= i; done && err != nil || !done && !errors.Is(err, unix.EIO) {
				t.Errorf("operation %d of %d: %v", i, n, err)
			}
			if done && n < 10 {
				t.Errorf("only %d operations", n)
			}
			m.check("in the running union", c.old)
			must(t, act(nil))
			m.check("in the running union, settled", c.old)
		})
		c.over(t, dir, c.from, func(m *mounted) { m.check("over the old image", c.old) })
		c.over(t, dir, c.to, func(m *mounted) { m.check("over the new image", c.new) })
	}
}
