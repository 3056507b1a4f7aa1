package persist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/durable"
)

// blockDevice is a disk that is a block device, open for this process alone.
type blockDevice struct{ *os.File }

// openExclusive opens a device for writing. The kernel refuses (EBUSY) while a file system, RAID, LVM
// or another such opener uses it (O_EXCL on a block device).
func openExclusive(path string) (blockDevice, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	return blockDevice{f}, err
}

// Zero uses the disk's own command where it has one (BLKZEROOUT); the kernel writes zeros where it
// hasn't.
func (b blockDevice) Zero(offset, length int64) error {
	span := [2]uint64{uint64(offset), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, b.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
	runtime.KeepAlive(b.File)
	if errno == 0 {
		return nil
	}
	if !errors.Is(errno, unix.ENOTTY) && !errors.Is(errno, unix.EOPNOTSUPP) && !errors.Is(errno, unix.EINVAL) {
		return fmt.Errorf("set %d bytes at %d to zero: %w", length, offset, errno)
	}
	nothing := make([]byte, 1<<20)
	for length > 0 {
		n := min(length, int64(len(nothing)))
		if _, err := b.WriteAt(nothing[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// prepareDevice looks again, on the descriptor that it writes to, whether there is nothing on the
// device, or nothing but what an earlier preparation wrote, and writes the seed.
func prepareDevice(ctx context.Context, path string, size int64, hook durable.Hook) error {
	b, err := openExclusive(path)
	if err != nil {
		return err
	}
	defer b.Close()
	was, err := readState(b)
	if err != nil {
		return err
	}
	s, err := readSeed(packedSeed)
	if err != nil {
		return err
	}
	fits, otherwise := device.IsEmpty, errFilled
	if was == unfinished {
		fits, otherwise = s.only, errForeign
	}
	if ok, err := fits(b, size); err != nil {
		return err
	} else if !ok {
		return otherwise
	}
	if err := s.identify(); err != nil {
		return err
	}
	return prepare(ctx, b, s, hook)
}

// removeMark finishes a preparation that was cut off at its last step.
func removeMark(path string) error {
	b, err := openExclusive(path)
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := b.WriteAt(make([]byte, len(mark)), 0); err != nil {
		return err
	}
	return b.Sync()
}
