package delta

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// TestMend makes changes over the old image while the new one comes beneath the upper, beside some that were made over the new one.
func TestMend(t *testing.T) {
	n := newNode(t)
	same := func(seed string) string { return strings.Repeat(seed, 2000) } // of one length
	from := n.image("usr/short", big("old"), "usr/equal", same("o"), "usr/later", same("o"), "usr/kept", big("k"), "usr/dir/f", big("old"), "usr/dir/sub/s", "s", "usr/dir/sub/only", "only", "usr/dir/sub/same", big("same"), "usr/dir/kind", "file", "usr/dir/away/x", "x", "usr/dir/mode", big("m"), "usr/gone", big("gone"), "usr/hidden", "file")
	to := n.image("usr/short", big("newer"), "usr/equal", same("n"), "usr/later", same("n"), "usr/kept", big("k"), "usr/dir/f", big("new"), "usr/dir/sub/s", "t", "usr/dir/sub/more", "more", "usr/dir/sub/same", big("same"), "usr/dir/kind/k", "k", "usr/dir/more/m", "m", "usr/dir/mode", big("n"), "usr/made/f", "new", "usr/hidden", "file")
	m := n.mount(from)
	began := time.Now()
	tick()
	for _, name := range []string{"usr/short", "usr/equal", "usr/kept", "usr/gone"} {
		m.chmod(name, 0o711)
	}
	must(t, unix.Setxattr(m.path("usr/short"), "trusted.mine", []byte("x"), 0))
	m.rename("usr/equal", "usr/moved")
	m.chmod("usr/dir/mode", 0o711)
	m.rename("usr/dir", "usr/other")
	m.write("usr/other/mine", "mine")
	m.mkdir("usr/made")
	ended := time.Now()
	tick()
	m.unmount()
	over := n.mount(to)
	over.chmod("usr/later", 0o711)
	live := Live{Upper: n.upper(nil), View: over.view, Objects: n.store, Over: Span{After: began, Until: ended}}
	troubles, err := live.Mend(t.Context(), from.tree, to.tree, nil)
	must(t, err)
	var paths []string
	for _, trouble := range troubles {
		paths = append(paths, trouble.Path)
	}
	if got := strings.Join(paths, " "); got != "/usr/made" {
		t.Errorf("troubles: %v", troubles)
	}
	other := map[string]string{
		"usr/other": "/away f kind mine mode sub", "usr/other/f": big("old"), "usr/other/sub": "/only s same", "usr/other/sub/s": "s", "usr/other/sub/only": "only", "usr/other/sub/same": big("same"),
		"usr/other/kind": "file", "usr/other/away/x": "x", "usr/other/mine": "mine", "usr/other/mode": big("m"),
	}
	over.check("the renamed directory", other)
	over.check("mended", map[string]string{
		"usr/short": big("old"), "usr/moved": same("o"), "usr/later": same("n"), "usr/kept": big("k"), "usr/gone": big("gone"),
		"usr": "/gone hidden kept later made moved other short",
	})
	for _, name := range []string{"usr/short", "usr/moved", "usr/gone", "usr/later"} {
		if info, err := os.Stat(over.path(name)); err != nil || info.Mode().Perm() != 0o711 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := unix.Getxattr(over.path("usr/short"), "trusted.mine", make([]byte, 8)); err != nil {
		t.Errorf("its attributes: %v", err)
	}
	// On the way back, what was made over the old image is right, and what was made over the new one is settled.
	live.Over = Span{After: ended}
	if troubles, err := live.Settle(t.Context(), to.tree, from.tree, nil, nil); err != nil || len(troubles) > 0 {
		t.Fatalf("%v, %v", troubles, err)
	}
	over.unmount()
	back := n.mount(from)
	back.check("the renamed directory, taken back", other)
	back.check("taken back", map[string]string{
		"usr/short": big("old"), "usr/moved": same("o"), "usr/later": same("n"), "usr/other/f": big("old"), "usr/dir": "", "usr/gone": big("gone"),
	})
}

// tick waits until the kernel's stamps of files have gone on.
func tick() { time.Sleep(20 * time.Millisecond) }

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
