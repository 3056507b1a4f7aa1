package delta

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// moment is a union over an upper in which somebody changed things over one image, after the last settling and before the other came.
type moment struct {
	*node
	from, to image
	over     *mounted
	hook     func(label string) error
}

func (n *node) moment(from, to image, change func(m *mounted)) *moment {
	n.Helper()
	m := n.mount(from)
	change(m)
	m.unmount()
	return &moment{node: n, from: from, to: to, over: n.mount(to)}
}

func (m *moment) live() Live {
	m.Helper()
	return Live{Upper: m.upper(func(label string) error {
		if m.hook == nil {
			return nil
		}
		return m.hook(label)
	}), View: m.over.view, Objects: m.store}
}

// mend mends, and names the doubts.
func (m *moment) mend() string {
	m.Helper()
	mended, err := m.live().Mend(m.Context(), m.from.tree, m.to.tree, nil)
	must(m, err)
	if len(mended.Troubles) > 0 {
		m.Errorf("%v", mended.Troubles)
	}
	return strings.Join(mended.Doubts, " ")
}

// clean checks that no temporary file is left.
func (m *moment) clean(when string) {
	m.Helper()
	for _, e := range m.scan().Entries {
		if strings.Contains(e.Path, mendPrefix) {
			m.Errorf("%s: %s is left: %+v", when, e.Path, e)
		}
	}
}

// TestMend makes changes over the old image while the new one comes beneath the upper, beside some that were made over the new one.
func TestMend(t *testing.T) {
	n := newNode(t)
	same := func(seed string) string { return strings.Repeat(seed, 2000) } // of one length
	from := n.image("usr/short", big("old"), "usr/equal", same("o"), "usr/kept", big("k"), "usr/later", big("old"), "usr/dir/f", big("old"), "usr/gone", big("gone"), "usr/hides/f", "f", "usr/same/s", "s")
	to := n.image("usr/short", big("newer"), "usr/equal", same("n"), "usr/kept", big("k"), "usr/later", big("newer"), "usr/dir/f", big("newer"), "usr/made/f", "new", "usr/same/s", "s")
	m := n.moment(from, to, func(m *mounted) {
		for _, name := range []string{"usr/short", "usr/equal", "usr/kept", "usr/gone", "usr/dir/f"} {
			m.chmod(name, 0o711)
		}
		must(t, unix.Setxattr(m.path("usr/short"), "trusted.mine", []byte("x"), 0))
		m.rename("usr/dir", "usr/other")
		m.rename("usr/same", "usr/renamed")
		m.mkdir("usr/made")
		m.remove("usr/hides")
		m.mkdir("usr/hides")
	})
	m.over.chmod("usr/later", 0o711)
	doubts := "/usr/equal /usr/hides /usr/made /usr/other"
	if n.level == mount.Enforced {
		doubts = strings.TrimPrefix(doubts, "/usr/equal ")
	}
	if got := m.mend(); got != doubts {
		t.Errorf("doubts: %s", got)
	}
	m.over.check("mended", map[string]string{
		"usr/short": big("old"), "usr/later": big("newer"), "usr/kept": big("k"), "usr/gone": big("gone"), "usr/other/f": big("old"), "usr/renamed/s": "s",
	})
	for _, name := range []string{"usr/short", "usr/gone", "usr/later", "usr/other/f"} {
		if info, err := os.Stat(m.over.path(name)); err != nil || info.Mode().Perm() != 0o711 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := unix.Getxattr(m.over.path("usr/short"), "trusted.mine", make([]byte, 8)); err != nil {
		t.Errorf("its attributes: %v", err)
	}
	m.clean("mended")
	// On the way back, what was made over the old image is right, and what proves that it was made over the new one is settled. In doubt, all
	// stays as it is.
	live := m.live()
	live.Doubt = true
	if troubles, err := live.Settle(t.Context(), to.tree, from.tree, nil, nil); err != nil || len(troubles) > 0 {
		t.Fatalf("%v, %v", troubles, err)
	}
	m.over.unmount()
	n.mount(from).check("taken back", map[string]string{
		"usr/short": big("old"), "usr/equal": same("o"), "usr/later": big("newer"), "usr/other/f": big("old"), "usr/gone": big("gone"), "usr/hides": "/", "usr/made": "/",
	})
}

// TestMendMeetsOthers: whatever somebody does to a file while it is mended, Mend neither waits for him nor takes away what he made.
func TestMendMeetsOthers(t *testing.T) {
	for _, c := range []struct {
		name, at string
		do       func(t *testing.T, m *mounted)
		want     string
	}{
		// Only where digests are enforced.
		{"another one in its place, beside", "settle-mend:beside", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.WriteFile(m.path("usr/c"), []byte("mine"), 0o600))
			must(t, os.Link(m.path("usr/c"), m.path("usr/x")))
			must(t, os.Rename(m.path("usr/x"), m.path("usr/a")))
		}, "mine"},
		{"removed before the union knows", "settle-mend:forget", func(t *testing.T, m *mounted) {
			t.Helper()
			// Linux 6.18 says so; a kernel that removes what has the name by now is as right.
			if err := os.Remove(m.path("usr/a")); err != nil && !errors.Is(err, unix.ESTALE) {
				t.Error(err)
			}
		}, ""},
		// Wherever it can be used.
		{"a FIFO", "settle-mend:content", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.Remove(m.path("usr/b")))
			must(t, unix.Mkfifo(m.path("usr/b"), 0o600))
		}, ""},
		{"a FIFO in its own place", "settle-mend:install", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.Remove(m.path("usr/a")))
			must(t, unix.Mkfifo(m.path("usr/a"), 0o600))
		}, ""},
		{"removed", "settle-mend:content", func(t *testing.T, m *mounted) { t.Helper(); must(t, os.Remove(m.path("usr/b"))) }, ""},
		{"renamed", "settle-mend:content", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.Rename(m.path("usr/b"), m.path("usr/c")))
		}, big("old")},
		{"renamed itself", "settle-mend:install", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.Rename(m.path("usr/a"), m.path("usr/c")))
		}, big("old")},
		{"its directory goes", "settle-mend:content", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.Rename(m.path("usr/a"), m.path("c")))
			must(t, os.RemoveAll(m.path("usr")))
		}, ""},
		{"the new file goes", "settle-mend:install", func(t *testing.T, m *mounted) {
			t.Helper()
			left, err := filepath.Glob(m.path("usr/" + mendPrefix + "*"))
			if err != nil || len(left) != 1 {
				t.Fatalf("%v, %v", left, err)
			}
			must(t, os.Remove(left[0]))
		}, ""},
		{"the file goes from where it came out", "settle-mend:back", func(t *testing.T, m *mounted) {
			t.Helper()
			left, err := filepath.Glob(m.path("usr/" + mendPrefix + "*"))
			if err != nil || len(left) != 1 {
				t.Fatalf("%v, %v", left, err)
			}
			must(t, os.Rename(left[0], m.path("usr/c")))
		}, "mine"},
		{"another one in its place", "settle-mend:install", func(t *testing.T, m *mounted) {
			t.Helper()
			must(t, os.WriteFile(m.path("usr/x"), []byte("mine"), 0o600))
			must(t, os.Rename(m.path("usr/x"), m.path("usr/c")))
			must(t, os.Remove(m.path("usr/a")))
			must(t, os.Link(m.path("usr/c"), m.path("usr/a")))
		}, "mine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			switch enforced := n.level == mount.Enforced; {
			case !enforced && (c.at == "settle-mend:beside" || c.at == "settle-mend:forget"):
				t.Skip("the union does it itself where digests aren't enforced")
			case enforced && slices.Contains([]string{"renamed", "renamed itself", "its directory goes", "the file goes from where it came out"}, c.name):
				t.Skip("nobody can do that to such a file where digests are enforced")
			}
			m := n.moment(n.image("usr/a", big("old"), "usr/b", big("old")), n.image("usr/a", big("newer"), "usr/b", big("newer")), func(m *mounted) {
				m.chmod("usr/a", 0o711)
				m.chmod("usr/b", 0o711)
			})
			did := false
			m.hook = func(label string) error {
				if c.at == "settle-mend:back" && label == "settle-mend:install" && !did {
					must(t, os.WriteFile(m.over.path("usr/a"), []byte("mine"), 0o600))
				}
				if label == c.at && !did {
					did = true
					c.do(t, m.over)
				}
				return nil
			}
			if doubts := m.mend(); !did || doubts != "" {
				t.Errorf("%t, doubts: %s", did, doubts)
			}
			if c.want != "" {
				m.over.check("what he made", map[string]string{"usr/c": c.want})
			}
			for _, name := range []string{"usr/a", "usr/b"} {
				if info, err := os.Lstat(m.over.path(name)); err == nil && info.Mode().IsRegular() && info.Mode().Perm() == 0o711 {
					m.over.check("mended", map[string]string{name: big("old")})
				}
			}
			m.clean("mended")
		})
	}
}

// TestMendLosesNoWrite: who opened the file for writing before it is mended, and writes after that, writes into what has its name.
func TestMendLosesNoWrite(t *testing.T) {
	n := newNode(t)
	if n.level == mount.Enforced {
		t.Skip("where digests are enforced nobody can open such a file")
	}
	m := n.moment(n.image("usr/a", big("old")), n.image("usr/a", big("newer")), func(m *mounted) { m.chmod("usr/a", 0o711) })
	var f *os.File
	m.hook = func(label string) (err error) {
		if label == "settle-mend:install" && f == nil {
			f, err = os.OpenFile(m.over.path("usr/a"), os.O_WRONLY|os.O_TRUNC, 0)
		}
		return err
	}
	m.mend()
	_, err := f.WriteString("mine")
	must(t, errors.Join(err, f.Close()))
	m.over.check("written", map[string]string{"usr/a": "mine"})
	m.clean("mended")
}

// TestKilledMend: what a kill leaves is nobody's program, and goes with the next look.
func TestKilledMend(t *testing.T) {
	type killed struct{}
	for step := 1; !t.Failed(); step++ {
		ended := false
		t.Run("", func(t *testing.T) {
			n := newNode(t)
			m := n.moment(n.image("usr/a", big("old")), n.image("usr/a", big("newer")), func(m *mounted) { m.chmod("usr/a", 0o4711) })
			seen, at := 0, ""
			m.hook = func(label string) error {
				if seen++; seen == step {
					at = label
					panic(killed{})
				}
				return nil
			}
			func() {
				defer func() {
					if r := recover(); r != nil {
						if _, ok := r.(killed); !ok {
							panic(r)
						}
					}
				}()
				m.mend()
				ended = true
			}()
			for _, e := range m.scan().Entries {
				if strings.Contains(e.Path, mendPrefix) && e.Mode != 0o600 && at != "settle-mend:install" && at != "settle-mend:beside" && e.Kind != Metacopy {
					t.Errorf("killed at %s: %s has mode %o", at, e.Path, e.Mode)
				}
			}
			m.hook = nil
			live := m.live()
			live.Doubt = true
			if troubles, err := live.Settle(t.Context(), m.to.tree, m.from.tree, nil, nil); err != nil || len(troubles) > 0 {
				t.Errorf("killed at %s: %v, %v", at, troubles, err)
			}
			m.clean("killed at " + at)
			m.over.unmount()
			n.mount(m.from).check("taken back", map[string]string{"usr/a": big("old")})
		})
		if ended {
			if step < 4 {
				t.Error("nothing was done")
			}
			return
		}
	}
}

// TestChangedOverAnOlderImage: somebody who went on in a tree of two changes ago changes a file there. Where digests are enforced, the next
// change gives it the content that it was changed with.
func TestChangedOverAnOlderImage(t *testing.T) {
	n := newNode(t)
	if n.level != mount.Enforced {
		t.Skip("without digests nothing says what such a file was changed over")
	}
	first, second, third := n.image("usr/x", big("1")), n.image("usr/x", big("2")), n.image("usr/x", big("3"))
	m := n.mount(first)
	m.chmod("usr/x", 0o711)
	m.unmount()
	over := n.mount(second)
	if _, err := os.ReadFile(over.path("usr/x")); !errors.Is(err, unix.EIO) {
		t.Fatalf("it can be read: %v", err)
	}
	live := Live{Upper: n.upper(nil), View: over.view, Objects: n.store}
	if troubles, err := live.Settle(t.Context(), second.tree, third.tree, nil, nil); err != nil || len(troubles) > 0 {
		t.Fatalf("%v, %v", troubles, err)
	}
	over.check("settled", map[string]string{"usr/x": big("1")})
	over.unmount()
	n.mount(third).check("over the next", map[string]string{"usr/x": big("1")})
}

// TestHidingIsRemembered: a directory that was made in the place of an image's hides that of a later image, too, after one that
// had nothing there; one that was made where nothing was shows it.
func TestHidingIsRemembered(t *testing.T) {
	for _, how := range []string{"live", "before a boot"} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t)
			with, without := n.image("opt/x/f", "f", "opt/k", "k"), n.image("opt/k", "k")
			both := n.image("opt/x/f", "f", "opt/new/g", "g", "opt/k", "k")
			settle := func(m *mounted, from, to image) {
				p := Settle(n.scan(), from.tree, to.tree, nil)
				if how == "live" {
					n.settleLive(m, p)
				}
				m.unmount()
				if how != "live" {
					n.settleOffline(p)
				}
			}
			m := n.mount(with)
			m.remove("opt/x")
			m.mkdir("opt/x")
			m.write("opt/x/mine", "mine")
			m.mkdir("opt/new")
			settle(m, with, without)
			m = n.mount(without)
			m.check("without", map[string]string{"opt/x": "/mine", "opt/new": "/"})
			settle(m, without, both)
			n.mount(both).check("with it again", map[string]string{"opt/x": "/mine", "opt/new": "/g"})
		})
	}
}
