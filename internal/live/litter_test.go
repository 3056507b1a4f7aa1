package live

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// temps are the names in "/" and in the upper that begin as those of links that aren't in their place yet.
func (n *node) temps() []string {
	n.Helper()
	s, err := Mounted(n.root)
	must(n, err)
	var names []string
	for _, dir := range []string{n.root, s.Base.Upper} {
		entries, err := os.ReadDir(dir)
		must(n, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tempPrefix) && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestTempNames(t *testing.T) {
	for _, target := range []string{"usr/bin", whiteout, "a"} {
		name := tempName(target)
		if !isTempName(name, target) || isTempName(name, target+"x") || isTempName(name+"a", target) || isTempName(strings.ToUpper(name), target) {
			t.Errorf("%s, of %q", name, target)
		}
		for i := range name {
			if other := name[:i] + "_" + name[i+1:]; isTempName(other, target) {
				t.Errorf("%s isn't of our making", other)
			}
		}
	}
	for _, name := range []string{"", tempPrefix, ".powernode-aaaaaaaaaaaaaaaaaaaaaaaaaa", ".powernode-mend-" + strings.Repeat("a", 26)} {
		if isTempName(name, "a") {
			t.Errorf("%q is taken for ours", name)
		}
	}
}

// TestLitterIsSwept has what a kill between two system calls leaves, of a link and of the mark of one that was removed, with and without its mark,
// in memory and on a disk that comes back. What an administrator has named in that way stays.
func TestLitterIsSwept(t *testing.T) {
	n := newNode(t)
	a, b := n.files(keptFiles("a")), n.files(keptFiles("b"))
	for kind, boot := range map[string]func(){"memory": func() { n.boot(a, nil) }, "disk": func() { n.kept(a) }, "disk, booted again": func() {
		n.kept(a)
		n.leaveLitter(false)
		n.kept(a)
	}} {
		n.shutDown()
		boot()
		theirs := []string{".powernode-" + strings.Repeat("a", 26), ".powernode-dir", ".powernode-notes", tempName("elsewhere"), tempName(whiteout)}
		if kind != "disk, booted again" {
			must(t, errors.Join(
				os.Symlink("usr", n.in(theirs[0])), os.Mkdir(n.in(theirs[1]), 0o755), os.WriteFile(n.in(theirs[2]), []byte("mine"), 0o600),
				os.Symlink("usr", n.in(theirs[3])), os.WriteFile(n.in(theirs[4]), []byte("mine"), 0o600),
			))
			n.leaveLitter(true)
		} else {
			// The first boot from the disk has made them, by other random names.
			theirs = slices.DeleteFunc(n.temps(), func(name string) bool { return n.isLitter(name) })
		}
		n.leaveLitter(false)
		if got := n.temps(); len(got) < len(theirs)+2 {
			t.Fatalf("%s: %q", kind, got)
		}
		must(t, n.settle(a, b, nil))
		n.swap(a, b)
		slices.Sort(theirs)
		if got := n.temps(); !slices.Equal(got, theirs) {
			t.Errorf("%s: there are %q, want %q", kind, got, theirs)
		}
		n.noRemarks()
		must(t, n.settle(b, a, nil))
		n.swap(b, a)
	}
}

// leaveLitter leaves what a kill does.
func (n *node) leaveLitter(marked bool) {
	n.Helper()
	spec := n.spec(n.side(1), n.side(2))
	w, err := begin(spec)
	must(n, err)
	defer w.close()
	link, removed := tempName("usr/lib"), tempName(whiteout)
	must(n, unix.Symlinkat("usr/lib", int(w.root.Fd()), link))
	must(n, unix.Mknodat(int(w.upper.Fd()), removed, unix.S_IFCHR, 0))
	if marked {
		must(n, errors.Join(unix.Lsetxattr(w.inUpper(link), mark, []byte("x"), 0), unix.Lsetxattr(w.inUpper(removed), mark, []byte("x"), 0)))
	}
	if _, err := os.Lstat(n.in(link)); err != nil {
		n.Error(err) // the union knows it
	}
}

func (n *node) isLitter(name string) bool {
	n.Helper()
	w, err := begin(n.spec(n.side(1), n.side(2)))
	must(n, err)
	defer w.close()
	from, err := w.litter(name)
	must(n, err)
	return from != nil
}

// TestKilledBetweenTwoCalls is killed in the midst of making a link, or of marking a removed one.
func TestKilledBetweenTwoCalls(t *testing.T) {
	for _, at := range []string{"live-link-b:mark", "live-link-b:rename", "live-link-a:mark", "live-link-a:rename"} {
		t.Run(at, func(t *testing.T) {
			n := newNode(t)
			a, b := n.files(versionFiles("a")), n.files(versionFiles("b"))
			n.boot(a, nil)
			n.swapKilledAt(at, n.spec(a, b))
			if got := n.temps(); len(got) != 1 {
				t.Fatalf("it left %q", got)
			}
			_, _, err := Recover(t.Context(), n.place(), a.Generation)
			must(t, err)
			n.whole(a)
			if got := n.temps(); len(got) > 0 {
				t.Errorf("left behind: %q", got)
			}
			if target, err := os.Readlink(n.in("link-a")); err != nil || target == "" {
				t.Error(err)
			}
			if _, err := os.Lstat(n.in("link-b")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("/link-b is there: %v", err)
			}
			n.noRemarks()
		})
	}
}

// litterFree checks that nothing is left that a kill may leave.
func (n *node) litterFree() {
	n.Helper()
	if got := n.temps(); len(got) > 0 {
		n.Errorf("left behind in /: %q", got)
	}
}
