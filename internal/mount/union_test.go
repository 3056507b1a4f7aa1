package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// somewhere names the file systems that a store may lie on: the machine's, from whose files EROFS
// reads, and tmpfs, where it takes a loop device.
var somewhere = map[string]func(testing.TB) string{
	"disk":  func(t testing.TB) string { return t.TempDir() },
	"tmpfs": tmpfs,
}

var sample = map[string]string{
	"etc/hostname":         "node\n",
	"usr/bin/big":          big,
	"usr/bin/other":        big + "other",
	"usr/share/doc/a/b/c/": "",
	"opt/old/file":         big + "old",
}

func TestUnion(t *testing.T) {
	mounttest.NeedMounts(t)
	ways := map[string]layering{
		"descriptors, detached (6.15)": {appends: true, descriptors: true, detached: true},
		"descriptors, attached (6.13)": {appends: true, descriptors: true},
		"paths, attached (6.7)":        {appends: true},
		"one string (6.5)":             {},
	}
	for place, dir := range somewhere {
		for way, how := range ways {
			t.Run(place+"/"+way, func(t *testing.T) {
				needLayering(t, how)
				s := seal(t, dir(t), sample)
				scratch := t.TempDir()
				for name, spec := range map[string]UnionSpec{"read-only": s.spec(t), "writable": s.writable(t, t.TempDir())} {
					spec.Scratch = scratch
					m, err := spec.mount(how)
					must(t, err)
					root := attached(t, m)
					if got := read(t, root, "usr/bin/big"); got != big {
						t.Errorf("%s: usr/bin/big has %d bytes, want %d", name, len(got), len(big))
					}
					if got := read(t, root, "etc/hostname"); got != "node\n" {
						t.Errorf("%s: etc/hostname is %q", name, got)
					}
					err = os.WriteFile(filepath.Join(root, "etc/new"), []byte("x"), 0o644)
					if readOnly := errors.Is(err, unix.EROFS); readOnly != (spec.Upper == nil) {
						t.Errorf("%s: writing: %v", name, err)
					}
					u, err := UnionAt(root)
					must(t, err)
					if u.Digest != s.Digest || u.Level != Checked || len(u.Layers) != 1 || len(u.Data) != 1 || (u.Upper == "") != (spec.Upper == nil) {
						t.Errorf("%s: read back %+v", name, u)
					}
				}
				if left, _ := os.ReadDir(scratch); len(left) != 0 {
					t.Errorf("left in the scratch directory: %v", left)
				}
			})
		}
	}
}

func needLayering(t *testing.T, how layering) {
	t.Helper()
	can := probeLayering()
	if how.appends && !can.appends || how.descriptors && !can.descriptors || how.detached && !can.detached {
		t.Skipf("this kernel's overlay takes its layers otherwise: %+v", can)
	}
}

func TestUnionWrites(t *testing.T) {
	mounttest.NeedMounts(t)
	for place, dir := range somewhere {
		t.Run(place, func(t *testing.T) {
			s, state := seal(t, t.TempDir(), sample), dir(t)
			m, err := Union(s.writable(t, state))
			must(t, err)
			root := attached(t, m)
			in := func(path string) string { return filepath.Join(root, path) }

			must(t, os.Remove(in("usr/bin/other")))
			must(t, os.RemoveAll(in("usr/share")))
			must(t, os.Rename(in("opt/old"), in("opt/new")))
			must(t, os.Chmod(in("etc/hostname"), 0o600))
			f, err := os.OpenFile(in("usr/bin/big"), os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("appended")
			must(t, errors.Join(err, f.Close()))
			must(t, os.WriteFile(in("etc/a"), []byte("linked"), 0o644))
			must(t, os.Link(in("etc/a"), in("etc/b")))
			must(t, os.WriteFile(in("etc/b"), []byte("through the other name"), 0o644))

			check := func(t *testing.T) {
				for _, gone := range []string{"usr/bin/other", "usr/share", "opt/old"} {
					if _, err := os.Lstat(in(gone)); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s is still there: %v", gone, err)
					}
				}
				if got := read(t, in("opt/new/file")); got != big+"old" {
					t.Errorf("file in a renamed directory has %d bytes", len(got))
				}
				if got := read(t, in("usr/bin/big")); got != big+"appended" {
					t.Errorf("appended file has %d bytes", len(got))
				}
				if got := read(t, in("etc/a")); got != "through the other name" {
					t.Errorf("hard link shows %q", got)
				}
				if info, err := os.Stat(in("etc/hostname")); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("etc/hostname: %v, %v", info, err)
				}
			}
			check(t)
			for _, whiteout := range []string{"usr/bin/other", "usr/share", "opt/old"} {
				var stat unix.Stat_t
				must(t, unix.Lstat(filepath.Join(state, "upper", whiteout), &stat))
				if stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != 0 {
					t.Errorf("upper/%s is no whiteout: mode %o, device %d", whiteout, stat.Mode, stat.Rdev)
				}
			}
			// The upper outlives the union: the next boot finds everything again.
			must(t, Unmount(root, Claim{Digest: s.Digest}))
			m, err = Union(s.writable(t, state))
			must(t, err)
			must(t, m.Attach(root))
			m.Close()
			check(t)
		})
	}
}

func TestHardLinksOfTheImage(t *testing.T) {
	mounttest.NeedMounts(t)
	s := sealed{mounttest.SealDump(t, oracle.Path(t, "mkcomposefs"), t.TempDir(), strings.Join([]string{
		"/ 0 40755 3 0 0 0 0.0 - - -",
		"/a 4 100644 2 0 0 0 0.0 - same -",
		"/b 0 @120000 1 0 0 0 0.0 /a - -",
	}, "\n")+"\n")}
	m, err := Union(s.writable(t, t.TempDir()))
	must(t, err)
	root := attached(t, m)
	var a, b unix.Stat_t
	must(t, errors.Join(unix.Stat(root+"/a", &a), unix.Stat(root+"/b", &b)))
	if a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("names of one file: inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
	// index=off: writing to one name gives that name a file of its own. See overlayLayers.options.
	must(t, os.WriteFile(root+"/a", []byte("changed"), 0o644))
	if got := read(t, root, "b"); got != "same" {
		t.Errorf("the other name shows %q", got)
	}
}

func TestUnionFromLongPaths(t *testing.T) {
	mounttest.NeedMounts(t)
	deep := filepath.Join(t.TempDir(), strings.Repeat("s", 150), strings.Repeat("t", 150))
	must(t, os.MkdirAll(deep, 0o755))
	odd := filepath.Join(t.TempDir(), `a b,c=d:e\f`)
	must(t, os.MkdirAll(odd, 0o755))
	for name, dir := range map[string]string{"300 bytes": deep, "characters with a meaning": odd} {
		s := seal(t, dir, sample)
		for _, how := range []layering{probeLayering(), {appends: true}, {}} {
			state := filepath.Join(dir, "state")
			must(t, os.RemoveAll(state))
			m, err := s.writable(t, state).mount(how)
			if err != nil {
				t.Fatalf("%s: %+v: %v", name, how, err)
			}
			root := attached(t, m)
			if got := read(t, root, "usr/bin/big"); got != big {
				t.Errorf("%s: %+v: content differs", name, how)
			}
			u, err := UnionAt(root)
			must(t, err)
			if how.descriptors && (u.Upper != filepath.Join(state, "upper") || u.Data[0] != filepath.Join(dir, "objects")) {
				t.Errorf("%s: read back upper %q, objects %q", name, u.Upper, u.Data[0])
			}
		}
	}
}

func TestUnionRefuses(t *testing.T) {
	mounttest.NeedMounts(t)
	s := seal(t, t.TempDir(), sample)
	good := s.writable(t, t.TempDir())
	other := t.TempDir()
	flipped := filepath.Join(other, "flipped")
	image := []byte(read(t, s.Path))
	image[len(image)-1] ^= 1
	must(t, os.WriteFile(flipped, image, 0o644))
	elsewhere := tmpfs(t)

	tests := map[string]struct {
		change func(*UnionSpec)
		text   string
		kind   fault.Kind
	}{
		"a flipped byte":       {func(s *UnionSpec) { s.Image = open(t, flipped) }, "has digest", fault.Refuse},
		"no digest":            {func(s *UnionSpec) { s.Digest = fsverity.Digest{} }, "no root digest", fault.Refuse},
		"no level":             {func(s *UnionSpec) { s.Level = "" }, `integrity level ""`, fault.Refuse},
		"an unknown level":     {func(s *UnionSpec) { s.Level = "unsafe-nothing" }, `integrity level "unsafe-nothing"`, fault.Refuse},
		"work elsewhere":       {func(s *UnionSpec) { s.Work = open(t, elsewhere) }, "not on the same mount", fault.Refuse},
		"no work":              {func(s *UnionSpec) { s.Work = nil }, "come together", fault.Broken},
		"no image":             {func(s *UnionSpec) { s.Image = nil }, "must be given", fault.Broken},
		"image is a directory": {func(s *UnionSpec) { s.Image = open(t, other) }, "not a regular file", fault.Broken},
		"work is the upper":    {func(s *UnionSpec) { s.Work = s.Upper }, "kernel says: overlay", fault.Broken},
	}
	for name, test := range tests {
		spec := good
		test.change(&spec)
		m, err := Union(spec)
		if err == nil {
			m.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.text) || fault.KindOf(err) != test.kind {
			t.Errorf("%s: %v (%v), want %q (%v)", name, err, fault.KindOf(err), test.text, test.kind)
		}
	}
	m, err := Union(good)
	must(t, err)
	m.Close()
}

func TestVolatileUpperIsNotUsedTwice(t *testing.T) {
	mounttest.NeedMounts(t)
	s, state := seal(t, t.TempDir(), sample), t.TempDir()
	spec := s.writable(t, state)
	spec.Volatile = true
	m, err := Union(spec)
	must(t, err)
	root := attached(t, m)
	if u, err := UnionAt(root); err != nil || !u.Volatile {
		t.Errorf("read back %+v, %v", u, err)
	}
	must(t, Unmount(root, Claim{}))
	if m, err := Union(spec); err == nil {
		m.Close()
		t.Error("the kernel took the upper again")
	} else if !strings.Contains(err.Error(), "kernel says") {
		t.Errorf("no reason in: %v", err)
	}
}

// TestEnforced runs where TMPDIR's file system has fs-verity, which the test virtual machine's
// has; elsewhere it proves that the level is refused.
func TestEnforced(t *testing.T) {
	mounttest.NeedMounts(t)
	dir := t.TempDir()
	s := seal(t, dir, sample)
	spec := s.writable(t, t.TempDir())
	spec.Level = Enforced
	a, err := Probe(dir)
	must(t, err)
	if !a.FSVerity.OK {
		m, err := Union(spec)
		if err == nil {
			m.Close()
			t.Fatal("a union without fs-verity was mounted as enforced")
		}
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || fault.HintOf(err) == "" {
			t.Errorf("refused as %v, %v: %v", fault.KindOf(err), fault.AreaOf(err), err)
		}
		t.Skipf("the rest needs a file system with fs-verity: %s", a.FSVerity.Reason)
	}
	if m, err := Union(spec); fault.KindOf(err) != fault.Refuse {
		m.Close()
		t.Fatalf("an image without fs-verity: %v", err)
	}
	enable(t, s.Path)
	object := filepath.Join(s.Objects, fsverity.SumBytes([]byte(big)).ObjectPath())
	for name, test := range map[string]struct {
		content string
		verity  bool
		err     error
	}{
		"an object without fs-verity":    {big, false, unix.EIO},
		"another object under its name":  {strings.ToUpper(big), true, unix.EIO},
		"the object with its own digest": {big, true, nil},
	} {
		must(t, os.WriteFile(object+".new", []byte(test.content), 0o644))
		must(t, os.Rename(object+".new", object))
		if test.verity {
			enable(t, object)
		}
		m, err := Union(spec)
		must(t, err)
		root := attached(t, m)
		if u, err := UnionAt(root); err != nil || u.Level != Enforced {
			t.Errorf("%s: read back level %q, %v", name, u.Level, err)
		}
		if got, err := os.ReadFile(root + "/usr/bin/big"); !errors.Is(err, test.err) || (err == nil && string(got) != big) {
			t.Errorf("%s: read %d bytes, %v; want %v", name, len(got), err, test.err)
		}
		if got := read(t, root, "usr/bin/other"); got != big+"other" {
			t.Errorf("%s: another file's content differs", name)
		}
		must(t, Unmount(root, Claim{Digest: s.Digest}))
	}
	wrong := s.enforced(t)
	wrong.Digest[0] ^= 1
	if _, err := Union(wrong); fault.AreaOf(err) != fault.Verify {
		t.Errorf("another root digest: %v", err)
	}
}

// enable has the kernel guard a file, unless mkcomposefs did so already.
func enable(t *testing.T, path string) {
	t.Helper()
	if err := fsverity.Enable(open(t, path)); err != nil && !errors.Is(err, fsverity.ErrAlreadyEnabled) {
		t.Fatal(err)
	}
}

func (s sealed) enforced(t testing.TB) UnionSpec {
	spec := s.spec(t)
	spec.Level = Enforced
	return spec
}

// TestInherited has files in the upper whose origin in one image is another file's place in the next.
func TestInherited(t *testing.T) {
	mounttest.NeedMounts(t)
	files := func(version string, from, to int) map[string]string {
		f := make(map[string]string)
		for i := from; i < to; i++ {
			f[fmt.Sprintf("usr/f%03d", i)] = fmt.Sprintf("%s%03d and so on", version, i)
		}
		return f
	}
	state := t.TempDir()
	a, b := seal(t, t.TempDir(), files("a", 1, 300)), seal(t, t.TempDir(), files("b", 0, 299))
	m, err := Union(a.writable(t, state))
	must(t, err)
	root := attached(t, m)
	for i := 100; i < 200; i += 2 {
		must(t, os.WriteFile(fmt.Sprintf("%s/usr/f%03d", root, i), fmt.Appendf(nil, "local%03d", i), 0o755))
	}
	must(t, Unmount(root, Claim{}))
	// The second time it isn't said, and known from the upper; forwards, then backwards, since it
	// matters which of two files that are taken for one is looked up first.
	for round, inherited := range []bool{true, false} {
		spec := b.writable(t, state)
		spec.Inherited = inherited
		m, err := Union(spec)
		must(t, err)
		root := attached(t, m)
		for k := range 299 {
			i := k
			if round > 0 {
				i = 298 - k
			}
			want := fmt.Sprintf("b%03d and so on", i)
			if i >= 100 && i < 200 && i%2 == 0 {
				want = fmt.Sprintf("local%03d", i)
			}
			if got, err := os.ReadFile(fmt.Sprintf("%s/usr/f%03d", root, i)); err != nil || string(got) != want {
				t.Errorf("round %d: f%03d reads %q (%v), want %q", round, i, got, err, want)
			}
		}
		u, err := UnionAt(root)
		must(t, err)
		if len(u.Layers) != 2 || len(u.Data) != 1 || u.Digest != b.Digest {
			t.Errorf("read back %+v", u)
		}
		must(t, Unmount(root, Claim{}))
	}
}
