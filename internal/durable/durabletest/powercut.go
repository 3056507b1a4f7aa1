package durabletest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// diskSize is the size in bytes of the ext4 that PowerCutEach works on.
const diskSize = 64 << 20

// PowerCutEach runs the work once on an ext4 of its own, copies the disk as it is before each
// operation, and has each copy checked on the spot: it holds what had reached the disk by then, as after a
// power cut, and nothing that was in memory only. Then it does the same with the filesystem's
// journal written out before each copy, as the kernel does every five seconds: names are then on
// the disk, file contents that nobody synced are not.
//
// It needs root, loop devices and mkfs.ext4, and skips the test where one is missing.
func (s Scenario) PowerCutEach(t *testing.T) {
	if os.Getuid() != 0 {
		oracle.Missing(t, "mounting a disk of its own needs root")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			oracle.Missing(t, tool+" isn't installed; run scripts/setup")
		}
	}
	t.Run("nothing written back", func(t *testing.T) { s.powerCuts(t, false) })
	t.Run("journal written back", func(t *testing.T) { s.powerCuts(t, true) })
}

func (s Scenario) powerCuts(t *testing.T, journal bool) {
	work := scratch(t)
	disk := filepath.Join(work, "disk")
	mnt, mntCopied := filepath.Join(work, "mnt"), filepath.Join(work, "mnt-copy")
	if err := errors.Join(os.Mkdir(mnt, 0o700), os.Mkdir(mntCopied, 0o700)); err != nil {
		t.Fatal(err)
	}
	makeDisk(t, disk)
	// The kernel's own journal commits are put off for longer than a test takes.
	if err := mount(t, disk, mnt, "loop,commit=600"); err != nil {
		oracle.Missing(t, "no disk of its own here: "+err.Error())
	}
	dir := filepath.Join(mnt, "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if s.Setup != nil {
		s.Setup(t, dir)
	}
	run(t, "sync", "-f", dir)

	n := 0
	cut := func(op string) error {
		if journal {
			if err := syncOther(filepath.Join(mnt, "other"), op); err != nil {
				return err
			}
		}
		// Each copy has a name of its own: where another mount namespace holds on to an earlier
		// one, mount would take that one's loop device, with its cache, for the same file again.
		copied := filepath.Join(work, fmt.Sprintf("copy-%d", n))
		if err := copySparse(disk, copied); err != nil {
			return err
		}
		t.Run(fmt.Sprintf("%02d %s", n, op), func(t *testing.T) {
			if err := mount(t, copied, mntCopied, "loop"); err != nil {
				t.Fatal(err)
			}
			s.Check(t, filepath.Join(mntCopied, "dir"), op, nil)
		})
		n++
		return os.Remove(copied)
	}
	err := s.Run(dir, cut)
	if err == nil {
		err = cut("")
	}
	if err != nil {
		t.Fatalf("without a fault: %v", err)
	}
}

func makeDisk(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(disk)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-O", "verity", "-b", "4096", "-E", "lazy_itable_init=0,nodiscard", disk)
}

// mount mounts a disk and has it unmounted at the end of the test.
func mount(t *testing.T, disk, mnt, options string) error {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "ext4", "-o", options, disk, mnt).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", disk, err, out)
	}
	t.Cleanup(func() { run(t, "umount", mnt) })
	return nil
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// syncOther syncs a file that has nothing to do with the work, which makes ext4 commit its
// journal with all names in it.
func syncOther(name, text string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// copySparse copies the parts of a file that hold data.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(diskSize); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := in.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if end, err = in.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start)); err != nil {
			return err
		}
	}
}
