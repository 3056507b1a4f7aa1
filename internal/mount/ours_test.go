package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func TestUnmountOnlyOurs(t *testing.T) {
	mounttest.NeedMounts(t)
	s := seal(t, t.TempDir(), sample)
	mark := sourcePrefix + s.Digest.String()
	ordinary := func(t *testing.T, source string) *Mount {
		lower := t.TempDir()
		m, err := New("overlay", 0, String("source", source), String("lowerdir+", lower), String("lowerdir+", s.Objects))
		must(t, err)
		return m
	}
	tests := map[string]func(t *testing.T) *Mount{
		"a tmpfs": func(t *testing.T) *Mount {
			m, err := New("tmpfs", 0)
			must(t, err)
			return m
		},
		"a tmpfs with our mark": func(t *testing.T) *Mount {
			m, err := New("tmpfs", 0, String("source", mark))
			must(t, err)
			return m
		},
		"an overlay":               func(t *testing.T) *Mount { return ordinary(t, "overlay") },
		"an overlay with our mark": func(t *testing.T) *Mount { return ordinary(t, mark) },
		"an overlay with half a mark": func(t *testing.T) *Mount {
			return ordinary(t, mark[:len(mark)-1])
		},
		"the image alone": func(t *testing.T) *Mount {
			m, err := EROFS(open(t, s.Path), 0)
			must(t, err)
			return m
		},
	}
	for name, make := range tests {
		dir := attached(t, make(t))
		before, err := At(dir)
		must(t, err)
		err = Unmount(dir, Claim{})
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Mount {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := At(dir); err != nil || !after.ID.Same(before.ID) {
			t.Errorf("%s: is no longer mounted: %v", name, err)
		}
	}
	if err := Unmount(t.TempDir(), Claim{}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("nothing mounted: %v", err)
	}
}

func TestUnmountHoldsToTheClaim(t *testing.T) {
	mounttest.NeedMounts(t)
	s := seal(t, t.TempDir(), sample)
	m, err := Union(s.spec(t))
	must(t, err)
	id, err := m.ID()
	must(t, err)
	root := attached(t, m)
	if after, err := At(root); err != nil || !after.ID.Same(id) {
		t.Errorf("attaching changed the identity from %+v to %+v, %v", id, after.ID, err)
	}
	another := id
	another.Mount++
	another.Unique++
	for name, claim := range map[string]Claim{
		"digest": {Digest: fsverity.SumBytes(nil)}, "mount": {ID: another}, "one of both": {Digest: s.Digest, ID: another},
	} {
		if err := Unmount(root, claim); fault.KindOf(err) != fault.Refuse {
			t.Errorf("another %s: %v", name, err)
		}
	}
	// What somebody else mounted inside would vanish with the union.
	inner, err := New("tmpfs", 0)
	must(t, err)
	defer inner.Close()
	must(t, inner.Attach(filepath.Join(root, "opt")))
	if err := Unmount(root, Claim{Digest: s.Digest, ID: id}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "/opt is mounted below") {
		t.Errorf("with a mount below: %v", err)
	}
	f, err := openPath(filepath.Join(root, "opt"))
	must(t, err)
	must(t, Detach(f))
	f.Close()
	must(t, Unmount(root, Claim{Digest: s.Digest, ID: id}))
	if _, err := At(root); !errors.Is(err, ErrNotMounted) {
		t.Errorf("still mounted: %v", err)
	}
}

// TestBeneath is the live change of design D6 in small: the new union goes beneath the old one,
// which is then taken away.
func TestBeneath(t *testing.T) {
	mounttest.NeedMounts(t)
	before := seal(t, t.TempDir(), map[string]string{"version": "before"})
	after := seal(t, t.TempDir(), map[string]string{"version": "after"})
	old, err := Union(before.spec(t))
	must(t, err)
	root := attached(t, old)
	held := open(t, filepath.Join(root, "version"))
	next, err := Union(after.spec(t))
	must(t, err)
	defer next.Close()
	must(t, next.AttachBeneath(root))

	if got := read(t, root, "version"); got != "before" {
		t.Errorf("on top is %q", got)
	}
	if u, err := UnionAt(root); err != nil || u.Digest != before.Digest {
		t.Errorf("the topmost union is %s, %v", u.Digest, err)
	}
	table, err := ReadTable()
	must(t, err)
	if unions := table.Unions(); len(unions) != 2 {
		t.Errorf("the table shows %d unions", len(unions))
	}
	if err := Unmount(root, Claim{Digest: after.Digest}); fault.KindOf(err) != fault.Refuse {
		t.Errorf("the covered union was taken for the topmost one: %v", err)
	}
	must(t, Unmount(root, Claim{Digest: before.Digest}))
	if got := read(t, root, "version"); got != "after" {
		t.Errorf("afterwards: %q", got)
	}
	content := make([]byte, 6)
	if _, err := held.Read(content); err != nil || string(content) != "before" {
		t.Errorf("a file that was held open: %q, %v", content, err)
	}
}

func TestPathsWithSpecialCharacters(t *testing.T) {
	mounttest.NeedMounts(t)
	dir := filepath.Join(t.TempDir(), "a b\tc\n\\d#é,=:")
	must(t, os.Mkdir(dir, 0o755))
	m, err := New("tmpfs", NoDev|NoSUID, String("source", "a b\\040,=#"))
	must(t, err)
	must(t, m.Attach(dir))
	m.Close()
	e, err := At(dir)
	must(t, err)
	if e.Point != dir || e.Source != "a b\\040,=#" || e.FSType != "tmpfs" {
		t.Errorf("read back %+v", e)
	}
	f, err := openPath(dir)
	must(t, err)
	defer f.Close()
	must(t, Detach(f))
}

func TestClosingADetachedMountLeavesNothing(t *testing.T) {
	mounttest.NeedMounts(t)
	s := seal(t, t.TempDir(), sample)
	before, err := ReadTable()
	must(t, err)
	for range 3 {
		m, err := Union(s.writable(t, t.TempDir()))
		must(t, err)
		r, err := m.OpenRoot()
		must(t, err)
		content, err := r.ReadFile("usr/bin/big")
		if err != nil || string(content) != big {
			t.Errorf("reading a detached union: %d bytes, %v", len(content), err)
		}
		must(t, r.Close())
		must(t, m.Close())
	}
	after, err := ReadTable()
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("%d mounts before, %d after", len(before), len(after))
	}
}

func TestCloneAndMove(t *testing.T) {
	mounttest.NeedMounts(t)
	source := tmpfs(t)
	must(t, os.MkdirAll(filepath.Join(source, "sub", "inner"), 0o755))
	inner, err := New("tmpfs", 0)
	must(t, err)
	defer inner.Close()
	must(t, inner.Attach(filepath.Join(source, "sub", "inner")))
	must(t, os.WriteFile(filepath.Join(source, "sub", "inner", "file"), []byte("x"), 0o644))

	clone, err := Clone(open(t, filepath.Join(source, "sub")), true)
	must(t, err)
	must(t, clone.SetAttr(ReadOnly, 0))
	bound := attached(t, clone)
	if got := read(t, bound, "inner/file"); got != "x" {
		t.Errorf("submount shows %q", got)
	}
	if err := os.WriteFile(filepath.Join(bound, "inner", "file"), nil, 0o644); err == nil {
		t.Error("the clone's submount can be written")
	}
	if e, err := At(bound); err != nil || e.Root != "/sub" {
		t.Errorf("the clone's root is %q, %v", e.Root, err)
	}

	target := t.TempDir()
	place, err := OpenIn(open(t, filepath.Dir(target)), filepath.Base(target))
	must(t, err)
	defer place.Close()
	must(t, Move(filepath.Join(source, "sub", "inner"), place))
	if got := read(t, target, "file"); got != "x" {
		t.Errorf("moved mount shows %q", got)
	}
	if _, err := At(filepath.Join(source, "sub", "inner")); !errors.Is(err, ErrNotMounted) {
		t.Errorf("it is still at its old place: %v", err)
	}
	f, err := openPath(target)
	must(t, err)
	defer f.Close()
	must(t, Detach(f))
}

func TestOpenInStaysInside(t *testing.T) {
	dir := t.TempDir()
	must(t, errors.Join(os.Mkdir(dir+"/in", 0o755), os.Symlink("/etc", dir+"/out"), os.Symlink("in", dir+"/link")))
	root := open(t, dir)
	if f, err := OpenIn(root, "in"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for _, path := range []string{"out", "link", "..", "in/../..", "/etc", "out/passwd", ""} {
		if f, err := OpenIn(root, path); err == nil {
			f.Close()
			t.Errorf("%q was opened", path)
		}
	}
}
