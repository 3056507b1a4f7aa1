package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/test/lab"
)

// BlockSize is that of the disks' file systems. fs-verity needs it to be the page size (Linux
// before 6.3).
const BlockSize = 4096

// NewDisk makes a disk with an ext4 file system that can do fs-verity. It takes no more of the
// host's disk than what is written to it. tree, if not "", is a directory to fill it with.
func NewDisk(t testing.TB, megabytes int, label, tree string, flags ...string) string {
	t.Helper()
	path := EmptyDisk(t, megabytes)
	args := []string{"-q", "-F", "-O", "verity", "-b", strconv.Itoa(BlockSize), "-L", label}
	if tree != "" {
		args = append(args, "-d", tree)
	}
	Host(t, "mkfs.ext4", append(append(args, flags...), path)...)
	return path
}

// EmptyDisk makes a disk that holds nothing.
func EmptyDisk(t testing.TB, megabytes int) string {
	t.Helper()
	path := filepath.Join(lab.TempDir(t), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(megabytes) << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

// CopyDisk returns a copy of a disk, sparse as the original.
func CopyDisk(t testing.TB, disk string) string {
	t.Helper()
	path := filepath.Join(lab.TempDir(t), "disk")
	Host(t, "cp", "--sparse=always", disk, path)
	return path
}

// Host runs a program on the host and returns its output.
func Host(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	// mkfs.ext4 and debugfs are in sbin, which isn't in everybody's path.
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", name)); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Edit mounts a disk that no machine is using, read-write, and calls do with the directory. Files
// under fs-verity can be seen, removed and replaced; to change their bytes, see FlipByte.
func Edit(t testing.TB, disk string, do func(dir string)) {
	t.Helper()
	dir := filepath.Join(lab.TempDir(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Host(t, "mount", "-o", "loop", disk, dir)
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	}()
	do(dir)
}

// FlipByte changes one bit of a file on a disk that no machine is using, beneath the file system
// and whatever protects the file: what a bad sector does. offset is the byte's in the file.
func FlipByte(t testing.TB, disk, path string, offset int64) {
	t.Helper()
	Replay(t, disk)
	FlipByteBeneath(t, disk, path, offset)
}

// FlipByteBeneath is FlipByte while a machine runs. The file must have been on the disk for a
// while (sync), and a machine that has its bytes in memory doesn't notice (drop-caches).
func FlipByteBeneath(t testing.TB, disk, path string, offset int64) {
	t.Helper()
	at := Extent(t, disk, path, offset)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// Extent returns where on a disk a byte of a file lies.
func Extent(t testing.TB, disk, path string, offset int64) int64 {
	t.Helper()
	out := Host(t, "debugfs", "-R", "bmap "+path+" "+strconv.FormatInt(offset/BlockSize, 10), disk)
	lines := strings.Fields(out)
	block, err := strconv.ParseInt(lines[len(lines)-1], 10, 64)
	if err != nil || block == 0 {
		t.Fatalf("%s isn't on the disk at %d: %s", path, offset, out)
	}
	return block*BlockSize + offset%BlockSize
}

// Check fails the test if a disk's file system is damaged. One that was in use when its machine was
// killed first gets what its journal holds, as from a mount.
func Check(t testing.TB, disk string) {
	t.Helper()
	Replay(t, disk)
	Host(t, "e2fsck", "-fn", disk)
}

// Replay brings a disk whose machine was killed into the state that a mount would bring it into.
// Edit does so itself.
func Replay(t testing.TB, disk string) {
	t.Helper()
	Edit(t, disk, func(string) {})
}
