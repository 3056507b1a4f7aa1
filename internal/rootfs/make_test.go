package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

func TestMake(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"usr/big": big, "var/lib/first": "of the image", "etc/os-release": "ID=test\n"})
	r := n.boot(image, nil)
	n.wantRemarks()
	if got := r.read("usr/big"); got != big {
		t.Errorf("a file has %d bytes", len(got))
	}
	r.write("var/lib/kept", "x")
	r.write("persist/there", "y")
	r.write("usr/new", "z")
	if u, err := mount.UnionAt(r.at); err != nil || !u.Entry.ID.Same(r.ID()) || u.Digest != image || u.Level != n.level {
		t.Errorf("mounted: %+v, %v", u, err)
	}
	if f := r.Facts(); f.Upper != InMemory || f.Etc != Ephemeral || !f.VarKept || !strings.HasPrefix(f.UpperDir, r.spec.Scratch) {
		t.Errorf("facts: %+v", f)
	}
	r.shutDown()
	if got, err := os.ReadFile(filepath.Join(n.persist, "there")); string(got) != "y" {
		t.Errorf("/persist: %q, %v", got, err)
	}

	next := n.boot(n.image(map[string]string{"usr/big": big, "var/lib/first": "of another", "etc/": ""}), nil)
	if next.read("var/lib/kept") != "x" || next.read("var/lib/first") != "of the image" || !strings.HasPrefix(next.read("usr/new"), "error") {
		t.Error("/var, or what was written outside of it")
	}
	next.shutDown()
}

func TestMakeRefuses(t *testing.T) {
	n := newNode(t)
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*Spec)
		unfit  bool
		want   string
	}{
		"init is no program":      {map[string]string{"sbin/init": "text"}, nil, true, "is not an executable file"},
		"/var is a link":          {map[string]string{"var": "-> /etc", "etc/": ""}, nil, true, "/var in the new root is not a directory"},
		"no such size":            {nil, func(s *Spec) { s.Upper.Size = "much" }, false, "writable layer of size much"},
		"no such policy":          {nil, func(s *Spec) { s.Etc = "kept" }, false, `policy "kept"`},
		"no such kind":            {nil, func(s *Spec) { s.Upper.Kind = "disk" }, false, `kind "disk"`},
		"no place":                {nil, func(s *Spec) { s.At = "" }, false, "must be given"},
		"root image isn't there":  {nil, func(s *Spec) { s.RootDigest[0]++ }, false, "no such file"},
		"persist isn't there":     {nil, func(s *Spec) { s.Persist += "/none" }, false, "no such file"},
		"init of the spec is not": {nil, func(s *Spec) { s.Init = "/init" }, true, "has no /init"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := n.spec(n.image(c.files), c.change)
			_, err := Make(t.Context(), spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, unfit := errors.AsType[*Unfit](err); unfit != c.unfit {
				t.Errorf("unfit is %t: %v", unfit, err)
			}
			if c.unfit && fault.KindOf(err) != fault.Refuse {
				t.Errorf("kind of %v", err)
			}
			(&running{Root: &Root{spec: spec}, n: n, spec: spec}).shutDown()
		})
	}
}

func TestMakeIsCalledOff(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := n.spec(n.image(map[string]string{"var/file": "x"}), nil)
	if _, err := Make(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	(&running{Root: &Root{spec: spec}, n: n, spec: spec}).shutDown()
}

// TestUpperOnPersist goes to another root and back: each has a writable layer of its own, in which
// a file whose mode alone was changed keeps its content.
func TestUpperOnPersist(t *testing.T) {
	n := newNode(t)
	one, two := n.image(map[string]string{"usr/big": big, "usr/dir/file": big + "1"}), n.image(map[string]string{"usr/big": big + "2", "usr/dir/file": big})
	onDisk := func(s *Spec) { s.Upper.Kind = OnPersist }
	r := n.boot(one, onDisk)
	n.wantRemarks()
	must(t, errors.Join(os.Chmod(r.in("usr/big"), 0o600), os.Rename(r.in("usr/dir"), r.in("usr/renamed"))))
	r.write("usr/new", "x")
	if f := r.Facts(); f.Upper != OnPersist {
		t.Errorf("facts: %+v", f)
	}
	r.shutDown()

	r = n.boot(two, onDisk)
	if r.read("usr/big") != big+"2" || r.read("usr/dir/file") != big || !strings.HasPrefix(r.read("usr/new"), "error") {
		t.Error("another root began with changes of the first")
	}
	r.shutDown()

	r = n.boot(one, onDisk)
	if r.read("usr/big") != big || r.read("usr/renamed/file") != big+"1" || r.read("usr/new") != "x" {
		t.Error("the first root doesn't have its changes any more")
	}
	beside := n.boot(one, func(s *Spec) { onDisk(s); s.Beside = true })
	if beside.read("usr/new") != "x" {
		t.Error("a root beside doesn't have its changes")
	}
	layers := filepath.Join(n.store.Path(), uppersName, one.String()+"."+string(n.level))
	if entries, err := os.ReadDir(layers); err != nil || len(entries) != 3 {
		t.Errorf("upper and two work directories: %v, %v", entries, err)
	}
	if pruned, err := PruneUppers(n.store.Path(), nil, nil); err != nil || pruned != 1 {
		t.Errorf("pruned %d, %v; one is mounted", pruned, err)
	}
	beside.shutDown()
	r.shutDown()
	old, err := OldUppers(n.store.Path(), nil)
	if err != nil || len(old) != 1 || !strings.HasPrefix(old[0].Name, one.String()) || old[0].Bytes < int64(len(big)) {
		t.Errorf("old ones: %+v, %v", old, err)
	}
	if old, err := OldUppers(n.store.Path(), map[fsverity.Digest]struct{}{one: {}}); err != nil || len(old) != 0 {
		t.Errorf("one that is kept: %+v, %v", old, err)
	}
	if pruned, err := PruneUppers(n.store.Path(), nil, nil); err != nil || pruned != 1 {
		t.Errorf("pruned %d, %v", pruned, err)
	}
}

func TestUpperFallsBackToMemory(t *testing.T) {
	n := newNode(t)
	r := n.boot(n.image(nil), func(s *Spec) {
		s.Upper.Kind, s.Hook = OnPersist, failing("layer-upper", unix.ENOSPC)
	})
	n.wantRemarks("the writable layer is in memory: ")
	r.write("usr-file", "x")
	if r.Facts().Upper != InMemory {
		t.Error("facts")
	}
	r.shutDown()
}

// TestFullDisk has nothing written to the disk any more: the root is made all the same.
func TestFullDisk(t *testing.T) {
	n := newNode(t)
	r := n.boot(n.image(map[string]string{"etc/file": "x", "var/lib/first": "of the image"}), func(s *Spec) {
		s.Etc, s.Upper.Kind = Persistent, OnPersist
		s.Hook = func(string) error { return unix.ENOSPC }
	})
	n.wantRemarks("the writable layer is in memory", "changes to /etc end with this boot", "machine ID will be another", "what is written to /var ends with this boot")
	r.write("var/lib/new", "x")
	r.write("etc/new", "x")
	if r.read("etc/file") != "x" || r.read("var/lib/first") != "of the image" || r.Facts().VarKept {
		t.Error("the root lacks something")
	}
	r.shutDown()
}

func TestReadOnlyDisk(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/file": "of the image", "etc/ssh/": "", "var/lib/first": "of the image"})
	persistent := func(s *Spec) { s.Etc, s.Upper.Kind = Persistent, OnPersist }
	r := n.boot(image, persistent)
	n.wantRemarks()
	r.write("var/lib/kept", "x")
	r.write("etc/changed", "y")
	id := r.read("etc/machine-id")
	r.shutDown()

	ro := n.readOnly()
	for range 2 {
		r = ro.boot(image, func(s *Spec) { persistent(s); s.PersistReadOnly = true })
		ro.wantRemarks("the writable layer is in memory", "changes to /etc end with this boot", "what is written to /var ends with this boot")
		if r.read("var/lib/kept") != "x" || r.read("etc/changed") != "y" || r.read("etc/file") != "of the image" || r.read("etc/machine-id") != id {
			t.Error("the root lacks something")
		}
		if !strings.HasPrefix(r.read("var/lib/new"), "error") || !strings.HasPrefix(r.read("etc/new"), "error") {
			t.Error("something outlived a boot that can't keep anything")
		}
		r.write("var/lib/new", "x")
		r.write("etc/new", "x")
		if err := os.WriteFile(r.in("persist/new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to /persist: %v", err)
		}
		if f := r.Facts(); f.Upper != InMemory || f.VarKept || f.Etc != Ephemeral {
			t.Errorf("facts: %+v", f)
		}
		r.shutDown()
	}
}

// TestReadOnlyDiskAtFirst has nothing kept: all of the root is the image's.
func TestReadOnlyDiskAtFirst(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/file": "of the image", "var/lib/first": "of the image"})
	ro := n.readOnly()
	r := ro.boot(image, func(s *Spec) { s.Etc, s.PersistReadOnly = Persistent, true })
	ro.wantRemarks("changes to /etc end with this boot", "what is written to /var ends with this boot", "machine ID will be another")
	r.write("var/lib/new", "x")
	r.write("etc/new", "x")
	if checkMachineID([]byte(r.read("etc/machine-id"))) != nil || r.read("var/lib/first") != "of the image" {
		t.Error("the root lacks something")
	}
	r.shutDown()
}
