package live

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// TestAttributes has top-level directories whose own attributes differ.
func TestAttributes(t *testing.T) {
	n := newNode(t)
	side := func(version string, perm uint16, gid uint32, sec int64, xattrs ...tree.Xattr) Side {
		root := n.build(versionFiles(version))
		for _, name := range []string{"usr", "etc", "opt"} {
			d := root.Child(name)
			d.Mode, d.GID, d.Mtime.Sec, d.Xattrs = perm, gid, sec, xattrs
		}
		return n.generation(root)
	}
	a := side("a", 0o755, 0, 1000, tree.Xattr{Name: "user.a", Value: []byte("a")})
	b := side("b", 0o2751, 7, 2000, tree.Xattr{Name: "user.b", Value: []byte("b")})
	n.boot(a, nil)
	must(t, os.Chmod(n.in("etc"), 0o700))
	n.write("usr/local", "x") // the directory is another one now, by its time only
	current, next := a, b
	for range 4 {
		n.swap(current, next)
		current, next = next, current
		perm, gid, name := uint16(0o755), uint32(0), "user.a"
		if current == b {
			perm, gid, name = 0o2751, 7, "user.b"
		}
		for _, dir := range []string{"usr", "opt"} {
			got, err := attributesOf(n.in(dir))
			must(t, err)
			if got.Mode != perm || got.GID != gid || len(got.Xattrs) != 1 || got.Xattrs[0].Name != name {
				t.Errorf("%s has %+v, want mode %o, group %d, %s", dir, got, perm, gid, name)
			}
			if want := map[Side]int64{a: 1000, b: 2000}[current]; dir == "opt" && got.Mtime.Sec != want {
				t.Errorf("%s has the time %d, want %d", dir, got.Mtime.Sec, want)
			}
		}
		if got, err := attributesOf(n.in("etc")); err != nil || got.Mode != 0o700 {
			t.Errorf("etc has %+v, %v", got, err)
		}
	}
}

// TestNames has names in "/" that images bring and take, and that somebody changes here.
func TestNames(t *testing.T) {
	n := newNode(t)
	a := n.files(map[string]string{"usr/v": "a", "bin": "-> usr/bin", "lib": "-> usr/lib", "old": "-> usr/old", "mine": "-> usr/a", "away": "-> usr", "srv/a": "a"})
	b := n.files(map[string]string{"usr/v": "b", "bin": "-> usr/bin", "lib": "-> usr/lib64", "new": "-> usr/new", "mine": "-> usr/b", "away": "-> usr/b", "data/b": "b"})
	n.boot(a, nil)
	must(t, os.Remove(n.in("mine")))
	must(t, os.Symlink("here", n.in("mine")))
	must(t, os.Remove(n.in("away")))
	if _, err := os.Stat(n.in("data")); !errors.Is(err, os.ErrNotExist) { // the union knows from now on that it isn't there
		t.Fatal(err)
	}
	must(t, os.MkdirAll(n.in("data/local"), 0o755)) // which the overlay marks as opaque
	link := func(name, want string) {
		t.Helper()
		got, err := os.Readlink(n.in(name))
		if got != want || want == "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("/%s leads to %q (%v), want %q", name, got, err, want)
		}
	}
	spec := n.spec(a, b)
	for round, to := range []Side{b, a, b} {
		from := map[Side]Side{a: b, b: a}[to]
		_, err := Swap(t.Context(), n.spec(from, to))
		must(t, err)
		must(t, Finish(n.run, nil))
		link("bin", "usr/bin")
		link("mine", "here")
		link("away", "")
		if to == b {
			link("lib", "usr/lib64")
			link("new", "usr/new")
			link("old", "")
			n.wantContent(map[string]string{"data/b": "b", "srv/a": ""})
		} else {
			link("lib", "usr/lib")
			link("new", "")
			link("old", "usr/old")
			n.wantContent(map[string]string{"data/b": "", "srv/a": "a"})
		}
		if _, err := os.Stat(n.in("data/local")); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if len(n.remarks) != 2 || !strings.Contains(n.remarks[0], "/away was removed here") || !strings.Contains(n.remarks[1], "/mine was changed here") {
			t.Errorf("round %d: remarks %q", round, n.remarks)
		}
		n.remarks = nil
	}
	// What was put into the upper for the images goes with one call; what was done here stays.
	upper := filepath.Join(n.run, "upper/upper")
	w, err := begin(spec)
	must(t, err)
	defer w.close()
	if w.upper.Name() != upper {
		t.Errorf("the upper is at %s", w.upper.Name())
	}
	must(t, rootfs.ForgetNames(upper))
	for name, want := range map[string]uint32{"lib": 0, "new": 0, "old": 0, "mine": unix.S_IFLNK, "away": unix.S_IFCHR, "data": unix.S_IFDIR, "usr": unix.S_IFDIR} {
		var stat unix.Stat_t
		err := unix.Lstat(filepath.Join(upper, name), &stat)
		if want == 0 && !errors.Is(err, unix.ENOENT) || want != 0 && stat.Mode&unix.S_IFMT != want {
			t.Errorf("in the upper, %s is of mode %o (%v), want type %o", name, stat.Mode, err, want)
		}
	}
}
