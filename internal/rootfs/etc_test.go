package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/tree"
)

func persistent(s *Spec) { s.Etc = Persistent }

// TestPersistentEtc changes /etc in every way, and takes the changes over to another root image
// and back.
func TestPersistentEtc(t *testing.T) {
	n := newNode(t)
	files := func(version string) map[string]string {
		return map[string]string{
			"etc/both": "both of image " + version, "etc/image": "image " + version, "etc/gone": "gone",
			"etc/mode": big + version, "etc/append": big, "etc/dir/file": big + version, "etc/moved/file": big + version,
			"etc/link": "-> both", "etc/same": "same", "etc/only" + version: version,
		}
	}
	one, two := n.image(files("1")), n.image(files("2"))

	r := n.boot(one, persistent)
	n.wantRemarks()
	if f := r.Facts(); f.Etc != Persistent || f.EtcConflicts != 0 {
		t.Errorf("facts: %+v", f)
	}
	e, err := mount.At(r.in("etc"))
	must(t, err)
	if want := "powernode-etc:" + one.String(); e.Source != want || e.FSType != "overlay" {
		t.Errorf("/etc is %s of %q, want %q", e.FSType, e.Source, want)
	}
	r.write("etc/both", "both changed here")
	r.write("etc/new", "new")
	r.write("etc/dir/new", "new")
	r.write("etc/same", "same, changed here")
	must(t, errors.Join(os.Remove(r.in("etc/gone")), os.Chmod(r.in("etc/mode"), 0o600), os.Chmod(r.in("etc"), 0o751)))
	if err := os.Rename(r.in("etc/moved"), r.in("etc/to")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("renaming a directory of the image's: %v, want EXDEV", err)
	}
	f, err := os.OpenFile(r.in("etc/append"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("appended")
	must(t, errors.Join(err, f.Close()))

	check := func(r *running, version string) {
		t.Helper()
		for path, want := range map[string]string{
			"etc/both": "both changed here", "etc/new": "new", "etc/dir/new": "new", "etc/dir/file": big + version,
			"etc/mode": big + "1", "etc/append": big + "appended", "etc/image": "image " + version, "etc/link": "both changed here",
			"etc/moved/file": big + version, "etc/only" + version: version, "etc/same": "same, changed here",
		} {
			if got := r.read(path); got != want {
				t.Errorf("over image %s, %s reads %.60q, want %.60q", version, path, got, want)
			}
		}
		if _, err := os.Lstat(r.in("etc/gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("over image %s, a removed file is back: %v", version, err)
		}
		if info, err := os.Stat(r.in("etc")); err != nil || info.Mode().Perm() != 0o751 {
			t.Errorf("over image %s, /etc has mode %v", version, info.Mode())
		}
	}
	check(r, "1")
	r.shutDown()

	r = n.boot(two, persistent)
	n.wantRemarks("2 files of /etc were changed here and by the root image")
	if f := r.Facts(); f.EtcConflicts != 2 { // both, mode
		t.Errorf("facts: %+v", f)
	}
	check(r, "2")
	r.shutDown()

	r = n.boot(two, persistent)
	n.wantRemarks() // said once
	check(r, "2")
	r.shutDown()

	r = n.boot(one, persistent)
	n.wantRemarks("2 files of /etc")
	check(r, "1")
	r.shutDown()

	r = n.boot(one, nil)
	if r.read("etc/both") != "both of image 1" {
		t.Error("an ephemeral /etc shows local changes of another policy's time")
	}
	r.shutDown()
}

// TestEtcKeepsModes takes the image's own mode and owner of /etc over, and its attributes.
func TestEtcKeepsModes(t *testing.T) {
	n := newNode(t)
	r := n.boot(n.image(map[string]string{"etc/file": "x"}), func(s *Spec) { s.Etc, s.Upper.Kind = Persistent, OnPersist })
	defer r.shutDown()
	must(t, errors.Join(os.Chmod(r.in("etc/file"), 0o640), os.Chown(r.in("etc/file"), 3, 4)))
	var s unix.Stat_t
	must(t, unix.Stat(r.in("etc/file"), &s))
	if s.Mode&0o7777 != 0o640 || s.Uid != 3 || s.Gid != 4 || s.Nlink != 1 {
		t.Errorf("%+v", s)
	}
}

// TestDamageInEtc has an object changed on the disk: that one file can't be opened, all others can,
// and the root is made.
func TestDamageInEtc(t *testing.T) {
	n := newNode(t)
	if n.level != mount.Enforced {
		t.Skip("integrity level checked: objects are hashed before a root is made of them, and read as they are")
	}
	image := n.image(map[string]string{"etc/damaged": big, "etc/other": big + "other"})
	digest := fsverity.SumBytes([]byte(big))
	path := filepath.Join(n.store.ObjectsPath(), digest.ObjectPath())
	// The wrong content under the right name, with fs-verity: what the kernel has to refuse.
	must(t, errors.Join(os.Remove(path), os.WriteFile(path, []byte(big+"!"), 0o444)))
	f, err := os.Open(path)
	must(t, err)
	must(t, fsverity.Enable(f))
	f.Close()
	r := n.boot(image, persistent)
	n.wantRemarks("/etc/damaged can't be read")
	if _, err := os.ReadFile(r.in("etc/damaged")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("the damaged file: %v", err)
	}
	if r.read("etc/other") != big+"other" {
		t.Error("another file")
	}
	r.shutDown()
}

// TestEtcIsNoDirectory makes the root all the same: what can't be had are remarks.
func TestEtcIsNoDirectory(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc": "-> usr", "usr/file": "x"})
	r := n.boot(image, persistent)
	n.wantRemarks("/etc is the root image's", "machine ID, host keys and host name can't be put back")
	if r.read("usr/file") != "x" {
		t.Error("the root lacks a file")
	}
	r.shutDown()
	outside := t.TempDir()
	n.boot(n.image(map[string]string{"etc": "-> " + outside}), persistent).shutDown()
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("a link in the image led out of it: %v, %v", entries, err)
	}
	n.boot(n.image(nil), persistent).shutDown() // none at all: it is made
}

func TestConflicts(t *testing.T) {
	etc := func(files map[string]string) *tree.Node {
		root := tree.NewDir(0o755)
		for name, content := range files {
			root.SetChild(name, &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(content)), Inline: []byte(content)})
		}
		return root
	}
	old := etc(map[string]string{"same": "1", "changed": "1", "removed": "1"})
	now := etc(map[string]string{"same": "1", "changed": "2", "added": "1"})
	mode := etc(map[string]string{"same": "1"})
	mode.Child("same").Mode = 0o600
	for name, c := range map[string]struct {
		paths    []string
		old, now *tree.Node
		want     int
	}{
		"nothing changed here":    {nil, old, now, 0},
		"of all kinds":            {[]string{"same", "changed", "removed", "added", "nowhere", "same/below"}, old, now, 3},
		"mode alone":              {[]string{"same"}, old, mode, 1},
		"no /etc in one of them":  {[]string{"same", "new"}, nil, now, 1},
		"no /etc in both of them": {[]string{"same"}, nil, nil, 0},
	} {
		if got := conflicts(c.paths, c.old, c.now); got != c.want {
			t.Errorf("%s: %d conflicts, want %d", name, got, c.want)
		}
	}
}

func TestChangedBelow(t *testing.T) {
	upper := t.TempDir()
	must(t, errors.Join(os.MkdirAll(filepath.Join(upper, "dir/below"), 0o755), os.WriteFile(filepath.Join(upper, "dir/file"), nil, 0o644), os.Symlink("dir", filepath.Join(upper, "link"))))
	if got, err := changedBelow(upper); err != nil || !slices.Equal(got, []string{"dir/file", "link"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestEtcRecordIsDamaged is no reason not to boot, and not to go on with the changes.
func TestEtcRecordIsDamaged(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/file": "x"})
	r := n.boot(image, persistent)
	r.write("etc/file", "changed")
	r.shutDown()
	record := filepath.Join(n.store.Path(), etcName, etcStateName)
	must(t, os.WriteFile(record, []byte("{"), 0o600))
	r = n.boot(image, persistent)
	n.wantRemarks("what the root image changed")
	if r.read("etc/file") != "changed" {
		t.Error("the change is gone")
	}
	r.shutDown()
	n.boot(image, persistent).shutDown()
	n.wantRemarks()
	// A root image that is gone: nobody can tell.
	must(t, os.WriteFile(record, []byte(`{"root_digest":"`+strings.Repeat("ab", 32)+`"}`), 0o600))
	n.boot(image, persistent).shutDown()
	n.wantRemarks()
}
