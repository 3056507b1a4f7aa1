package switchroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// fillTree makes a directory with one of everything that a /var may hold.
func fillTree(t testing.TB, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(in("lib/a/b"), 0o755))
	must(t, os.WriteFile(in("lib/file"), []byte(strings.Repeat("content ", 10_000)), 0o640))
	must(t, os.WriteFile(in("lib/empty"), nil, 0o600))
	must(t, os.Link(in("lib/file"), in("lib/a/hard")))
	must(t, os.Symlink("/does/not/exist", in("lib/link")))
	must(t, os.Link(in("lib/link"), in("lib/a/hardlink-to-link")))
	must(t, unix.Mkfifo(in("lib/fifo"), 0o620))
	must(t, unix.Mknod(in("lib/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(in("lib/socket"), unix.S_IFSOCK|0o700, 0))
	must(t, os.WriteFile(in("lib/setuid"), []byte("x"), 0o755))
	must(t, os.Chown(in("lib/setuid"), 12, 70_000))
	must(t, os.Chmod(in("lib/setuid"), 0o755|fs.ModeSetuid|fs.ModeSetgid))
	must(t, os.Lchown(in("lib/link"), 3, 4))
	// VFS_CAP_REVISION_2 with CAP_NET_RAW permitted and effective.
	must(t, unix.Setxattr(in("lib/setuid"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Setxattr(in("lib"), "trusted.note", []byte("of a directory"), 0))
	must(t, unix.Lsetxattr(in("lib/link"), "trusted.note", []byte("of a link"), 0))
	must(t, os.Chmod(in("lib/a"), 0o1777|fs.ModeSticky))
	must(t, os.Chmod(dir, 0o751))
	for i, name := range []string{"lib/file", "lib/link", "lib/null", "lib/a/b", "lib/a", "lib", "."} {
		times := []unix.Timespec{{Sec: 1000, Nsec: 1}, {Sec: int64(-5 + i), Nsec: int64(123_456_789 + i)}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), times, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// describe maps every path below dir to all that a copy must keep.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	seen := make(map[uint64]string)
	tree := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		var s unix.Stat_t
		must(t, unix.Lstat(path, &s))
		content := ""
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			must(t, err)
			content = string(b)
		case unix.S_IFLNK:
			content, err = os.Readlink(path)
			must(t, err)
		}
		if s.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first, ok := seen[s.Ino]; ok {
				content = "hard link to " + first
			}
			seen[s.Ino] = name
		}
		list := make([]byte, 1024)
		n, err := unix.Llistxattr(path, list)
		must(t, err)
		names := strings.Split(string(list[:n]), "\x00")
		slices.Sort(names)
		for _, x := range names {
			if x != "" {
				value := make([]byte, 1024)
				n, err := unix.Lgetxattr(path, x, value)
				must(t, err)
				content += fmt.Sprintf(" %s=%q", x, value[:n])
			}
		}
		tree[name] = fmt.Sprintf("%o %d:%d %d %d.%09d %s", s.Mode, s.Uid, s.Gid, s.Rdev, s.Mtim.Sec, s.Mtim.Nsec, content)
		return nil
	}))
	return tree
}

func compareTrees(t testing.TB, want, got map[string]string) {
	t.Helper()
	for name := range maps.Keys(want) {
		if got[name] != want[name] {
			t.Errorf("%s:\n got %.300s\nwant %.300s", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was not there to copy", name)
		}
	}
}

func TestCopyTree(t *testing.T) {
	if os.Geteuid() != 0 {
		oracle.Missing(t, "owners and devices need root")
	}
	source, target := t.TempDir(), t.TempDir()
	fillTree(t, source)
	must(t, CopyTree(context.Background(), open(t, source), open(t, target), CopyOptions{}))
	compareTrees(t, describe(t, source), describe(t, target))

	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := CopyTree(cancelled, open(t, source), open(t, t.TempDir()), CopyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that was called off: %v", err)
	}
	deep := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(deep, strings.Repeat("d/", copyDepth+2)), 0o755))
	if err := CopyTree(context.Background(), open(t, deep), open(t, t.TempDir()), CopyOptions{}); err == nil {
		t.Error("endless nesting was copied")
	}
}

func TestCopyTreeStaysOnItsMount(t *testing.T) {
	mounttest.NeedMounts(t)
	source, target := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(source, "mounted"), 0o755))
	mountTmpfs(t, filepath.Join(source, "mounted"))
	must(t, os.WriteFile(filepath.Join(source, "mounted", "file"), nil, 0o644))
	must(t, CopyTree(context.Background(), open(t, source), open(t, target), CopyOptions{}))
	if entries, err := os.ReadDir(filepath.Join(target, "mounted")); err != nil || len(entries) != 0 {
		t.Errorf("copied from another mount: %v, %v", entries, err)
	}
}

// mountTmpfs mounts a tmpfs at dir until the end of the test.
func mountTmpfs(t testing.TB, dir string) {
	t.Helper()
	m, err := mount.New("tmpfs", 0)
	must(t, err)
	defer m.Close()
	must(t, m.Attach(dir))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func TestPersist(t *testing.T) {
	mounttest.NeedMounts(t)
	root, kept := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "var"), 0o755))
	fillTree(t, filepath.Join(root, "var"))
	want := describe(t, filepath.Join(root, "var"))
	r := &Root{dir: open(t, root)}
	persist := openPersist(t, kept)
	boot := func() {
		t.Helper()
		must(t, r.Persist(context.Background(), persist, "var"))
		must(t, r.Persist(context.Background(), persist, "var")) // a stage that is done again
	}
	reboot := func() {
		t.Helper()
		must(t, unix.Unmount(filepath.Join(root, "var"), 0))
		if _, err := mount.At(filepath.Join(root, "var")); !errors.Is(err, mount.ErrNotMounted) {
			t.Errorf("mounted twice: %v", err)
		}
	}
	boot()
	compareTrees(t, want, describe(t, filepath.Join(root, "var")))
	must(t, os.WriteFile(filepath.Join(root, "var", "written"), []byte("x"), 0o644))
	reboot()
	// Another image's /var is not copied over what the node has.
	must(t, os.WriteFile(filepath.Join(root, "var", "lib", "empty"), []byte("of a new image"), 0o644))
	boot()
	defer reboot()
	if b, err := os.ReadFile(filepath.Join(root, "var", "written")); err != nil || string(b) != "x" {
		t.Errorf("what was written before: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "var", "lib", "empty")); err != nil || len(b) != 0 {
		t.Errorf("a file of the new image: %q, %v", b, err)
	}
}

func TestPersistRefusesALink(t *testing.T) {
	mounttest.NeedMounts(t)
	root, outside := t.TempDir(), t.TempDir()
	must(t, os.Symlink(outside, filepath.Join(root, "var")))
	r := &Root{dir: open(t, root)}
	if err := r.Persist(context.Background(), openPersist(t, t.TempDir()), "var"); err == nil {
		t.Error("a mount point that is a link was followed")
	}
}

// TestPersistSurvivesKills kills and fails the first boot at each durable operation: the next boot
// finds the whole first content.
func TestPersistSurvivesKills(t *testing.T) {
	mounttest.NeedMounts(t)
	run := func(dir string, hook durable.Hook) error {
		root := filepath.Join(dir, "root")
		rootDir, err := os.Open(root)
		if err != nil {
			return err
		}
		defer rootDir.Close()
		persist, err := durable.OpenDir(filepath.Join(dir, "persist"), hook)
		if err != nil {
			return err
		}
		defer persist.Close()
		if err := (&Root{dir: rootDir}).Persist(context.Background(), persist, "var"); err != nil {
			return err
		}
		return unix.Unmount(filepath.Join(root, "var"), 0)
	}
	s := durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			must(t, errors.Join(os.MkdirAll(filepath.Join(dir, "root", "var"), 0o755), os.Mkdir(filepath.Join(dir, "persist"), 0o755)))
			fillTree(t, filepath.Join(dir, "root", "var"))
		},
		Run: run,
		Check: func(t testing.TB, dir, op string, err error) {
			must(t, run(dir, nil))
			compareTrees(t, describe(t, filepath.Join(dir, "root", "var")), describe(t, filepath.Join(dir, "persist", "var")))
			if entries, err := os.ReadDir(filepath.Join(dir, "persist")); err != nil || len(entries) != 1 {
				t.Errorf("left in persist: %v, %v", entries, err)
			}
		},
	}
	t.Run("fail", func(t *testing.T) { s.FailEach(t, unix.ENOSPC) })
	t.Run("kill", func(t *testing.T) { s.KillEach(t) })
}

func openPersist(t testing.TB, path string) *durable.Dir {
	t.Helper()
	persist, err := durable.OpenDir(path, nil)
	must(t, err)
	t.Cleanup(func() { persist.Close() })
	return persist
}

func TestFree(t *testing.T) {
	mounttest.NeedMounts(t)
	outside, old := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o644))
	mountTmpfs(t, old)
	in := func(name string) string { return filepath.Join(old, name) }
	must(t, errors.Join(os.MkdirAll(in("usr/bin/deep/er"), 0o755), os.Mkdir(in("bound"), 0o755), os.MkdirAll(in("run/inner"), 0o755)))
	must(t, errors.Join(os.WriteFile(in("init"), make([]byte, 1000), 0o755), os.WriteFile(in("usr/bin/x"), make([]byte, 24), 0o755), os.Symlink(outside, in("usr/link"))))
	must(t, os.Link(in("init"), in("usr/init")))
	bound, err := mount.Clone(open(t, outside), true)
	must(t, err)
	must(t, bound.Attach(in("bound")))
	bound.Close()
	mountTmpfs(t, in("run/inner"))
	must(t, os.WriteFile(in("run/inner/kept"), nil, 0o644))

	freed, err := free(open(t, old))
	must(t, err)
	if freed != (Freed{Files: 8, Bytes: 1024}) {
		t.Errorf("freed %+v", freed)
	}
	left := slices.Sorted(maps.Keys(describe(t, old)))
	if want := []string{".", "bound", "bound/precious", "run", "run/inner", "run/inner/kept"}; !slices.Equal(left, want) {
		t.Errorf("left: %v, want %v", left, want)
	}
	must(t, unix.Unmount(in("bound"), unix.MNT_DETACH))
	if _, err := free(open(t, outside)); err == nil {
		t.Error("files on a disk were freed")
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error(err)
	}
}

// BenchmarkCopyTree copies a tree such as /etc: many small files without attributes.
func BenchmarkCopyTree(b *testing.B) {
	source := b.TempDir()
	const files = 500
	for i := range files {
		must(b, os.MkdirAll(filepath.Join(source, fmt.Sprint(i%20)), 0o755))
		must(b, os.WriteFile(filepath.Join(source, fmt.Sprint(i%20), fmt.Sprint(i)), make([]byte, i*10), 0o644))
	}
	from := open(b, source)
	for b.Loop() {
		target := b.TempDir()
		must(b, CopyTree(b.Context(), from, open(b, target), CopyOptions{}))
		_, err := from.Seek(0, 0)
		must(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/files, "µs/file")
}
