package composefs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// sampleDir makes a directory with everything in it that the caller may make.
func sampleDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, size int) {
		t.Helper()
		must(os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{'c'}, size), 0o644))
	}
	must(os.MkdirAll(filepath.Join(dir, "sub", "deep"), 0o755))
	for name, size := range map[string]int{
		"empty": 0, "one": 1, "inline": 64, "external": 65, "sub/block": 4096, "sub/large": 9 << 20, "sub/deep/same": 65, "-first": 3, "00": 100,
	} {
		write(name, size)
	}
	must(os.Symlink("sub/large", filepath.Join(dir, "symlink")))
	must(os.Link(filepath.Join(dir, "external"), filepath.Join(dir, "sub", "hard-link")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(unix.Setxattr(filepath.Join(dir, "external"), "user.long", bytes.Repeat([]byte{'v'}, 3000), 0))
	must(unix.Setxattr(filepath.Join(dir, "sub"), "user.empty", nil, 0))
	must(os.Chmod(filepath.Join(dir, "one"), 0o4711|os.ModeSetuid))
	must(os.Chtimes(filepath.Join(dir, "inline"), time.Time{}, time.Unix(-5, 7)))
	if os.Geteuid() == 0 {
		must(unix.Mknod(filepath.Join(dir, "device"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
		must(unix.Mknod(filepath.Join(dir, "sub", "whiteout"), unix.S_IFCHR, 0))
		must(unix.Setxattr(filepath.Join(dir, "sub", "deep"), "trusted.overlay.opaque", []byte("y"), 0))
		must(os.Chown(filepath.Join(dir, "one"), 70000, 5))
	}
	return dir
}

func TestScanningADirectoryIsWhatMkcomposefsDoes(t *testing.T) {
	tool := oracle.Path(t, "mkcomposefs")
	dir := sampleDir(t)
	for flag, opts := range map[string]ScanOptions{
		"--threads=1": {}, "--use-epoch": {UseEpoch: true}, "--skip-devices": {SkipDevices: true}, "--skip-xattrs": {SkipXattrs: true}, "--user-xattrs": {UserXattrs: true},
	} {
		root, err := FromDir(context.Background(), dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := Digest(root, Default)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tool, flag, "--print-digest-only", dir).Output()
		if err != nil || strings.TrimSpace(string(out)) != digest.String() {
			t.Errorf("%s: digest %s; mkcomposefs: %s, %v", flag, digest, out, err)
		}
	}
}

func TestScanningKeepsHardLinksIfAsked(t *testing.T) {
	root, err := FromDir(context.Background(), sampleDir(t), ScanOptions{HardLinks: true})
	if err != nil {
		t.Fatal(err)
	}
	if root.Child("external") != root.Lookup("sub/hard-link") || root.Child("external") == nil {
		t.Error("the hard link is lost")
	}
}

func TestScanningHandsContentOn(t *testing.T) {
	names := make(chan string, 100)
	_, err := FromDir(context.Background(), sampleDir(t), ScanOptions{Content: func(f *os.File) (fsverity.Digest, uint64, error) {
		names <- f.Name()
		return fsverity.SumFile(f)
	}})
	if err != nil || len(names) != 6 {
		t.Errorf("%d files, %v; want 6", len(names), err)
	}
	broken := errors.New("the disk is full")
	if _, err := FromDir(context.Background(), sampleDir(t), ScanOptions{Content: func(*os.File) (fsverity.Digest, uint64, error) {
		return fsverity.Digest{}, 0, broken
	}}); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if _, err := FromDir(context.Background(), sampleDir(t), ScanOptions{Content: func(*os.File) (fsverity.Digest, uint64, error) {
		return fsverity.Digest{1}, 1, nil
	}}); err == nil {
		t.Error("a file that changed its size passes")
	}
}

func TestScanningStopsWhenAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := FromDir(ctx, sampleDir(t), ScanOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := FromDir(context.Background(), filepath.Join(t.TempDir(), "none"), ScanOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
