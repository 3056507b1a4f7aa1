package composefs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

// mountImage mounts an image without overlayfs, so that everything in it can be seen.
func mountImage(t *testing.T, image string) string {
	t.Helper()
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(filesystems), "\terofs\n") {
		oracle.Missing(t, "this kernel has no EROFS")
	}
	if os.Geteuid() != 0 {
		oracle.Missing(t, "mounting needs root; run the tests as root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro,loop", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestTheKernelSeesTheTree mounts images and compares every field of every inode.
func TestTheKernelSeesTheTree(t *testing.T) {
	for image, root := range imageFiles(t) {
		t.Run(filepath.Base(image), func(t *testing.T) {
			dir := mountImage(t, image)
			version := uint32(image[len(image)-1] - '0')
			p, err := newPlan(root, Options{version, version})
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[uint64]uint32)
			var walk func(path string, index uint32)
			walk = func(path string, index uint32) {
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				if other, ok := seen[st.Ino]; ok && other != index {
					t.Errorf("%s: inodes %d and %d are one to the kernel", path, other, index)
				}
				seen[st.Ino] = index
				p.compare(t, path, index, &st)
				in := &p.inodes[index]
				if in.node.Kind != tree.Directory {
					return
				}
				var want []string
				for _, e := range p.entriesOf(in) {
					if e.node != nil {
						want = append(want, e.name)
						walk(filepath.Join(path, e.name), e.ref)
					}
				}
				got, err := os.ReadDir(path)
				names := make([]string, 0, len(got))
				for _, e := range got {
					names = append(names, e.Name())
				}
				if err != nil || !slices.Equal(names, want) {
					t.Errorf("%s: entries %.500q, %v; want %.500q", path, names, err, want)
				}
			}
			walk(dir, 0)
		})
	}
}

// compare compares what the kernel says about an inode with what the plan says.
func (p *plan) compare(t *testing.T, path string, index uint32, st *unix.Stat_t) {
	t.Helper()
	in := &p.inodes[index]
	n := in.node
	got := fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	want := fmt.Sprint(uint32(in.mode()), shownID(n.UID), shownID(n.GID), in.nlink, in.size(), n.Mtime.Sec, n.Mtime.Nsec)
	if got != want {
		t.Errorf("%s: mode, uid, gid, nlink, size, mtime %s; want %s", path, got, want)
	}
	switch n.Kind {
	case tree.CharDevice, tree.BlockDevice:
		if in.flags&isEscapedWhiteout == 0 && uint32(st.Rdev) != n.Rdev {
			t.Errorf("%s: device %#x, want %#x", path, st.Rdev, n.Rdev)
		}
	case tree.Symlink:
		if target, err := os.Readlink(path); err != nil || target != n.Target {
			t.Errorf("%s: target %.80q, %v; want %.80q", path, target, err, n.Target)
		}
	case tree.Regular:
		if !external(n) {
			if content, err := os.ReadFile(path); err != nil || string(content) != string(n.Inline) {
				t.Errorf("%s: content %.80q, %v; want %.80q", path, content, err, n.Inline)
			}
		}
	}
	var buf attrs
	for _, a := range buf.of(p, int(index)) {
		value := make([]byte, len(a.value)+1)
		size, err := unix.Lgetxattr(path, a.name, value)
		switch {
		case !visible(a.name):
		case err != nil || string(value[:size]) != string(a.value):
			t.Errorf("%s: attribute %.80q: %.80q, %v; want %.80q", path, a.name, value[:max(size, 0)], err, a.value)
		}
	}
}

// shownID returns what the kernel shows for an owner: -1 is none, for which it has "nobody".
func shownID(id uint32) uint32 {
	if id == 1<<32-1 {
		return 65534
	}
	return id
}

// visible reports whether the kernel shows attributes of that name in the form in which an image
// holds them: ACLs are parsed, and prefixes that no handler knows have no values.
func visible(name string) bool {
	for _, prefix := range []string{"user.", "trusted.", "security."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest != ""
		}
	}
	return false
}
