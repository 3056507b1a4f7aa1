package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// loopTries bounds the race for a free loop device: between asking for one and taking it another
// process may take it first.
const loopTries = 64

// LoopDevice gives image a loop device that clears itself once the last user is gone
// (LO_FLAGS_AUTOCLEAR). The returned file is such a user: close it when the device is mounted, or
// to give it up. A device that isn't read-only needs an image that is open for writing.
func LoopDevice(image *os.File, readOnly bool) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("find a free loop device: %w", err)
	}
	defer control.Close()
	for range loopTries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := configureLoop("/dev/loop"+strconv.Itoa(number), image, readOnly)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		return device, err
	}
	return nil, fmt.Errorf("find a free loop device: others were faster %d times: %w", loopTries, unix.EBUSY)
}

// configureLoop uses LOOP_CONFIGURE (Linux 5.8), which binds and sets the flags in one step, so
// that a device is never bound without being set to clear itself.
func configureLoop(path string, image *os.File, readOnly bool) (*os.File, error) {
	mode, flags := os.O_RDWR, uint32(unix.LO_FLAGS_AUTOCLEAR)
	if readOnly {
		mode, flags = os.O_RDONLY, flags|unix.LO_FLAGS_READ_ONLY
	}
	device, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("open a loop device: %w", err)
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = flags
	// For people who run losetup; the kernel makes nothing of it. The last byte stays zero.
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name())
	err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
	runtime.KeepAlive(image)
	if err != nil {
		device.Close()
		return nil, fmt.Errorf("bind %s to %s: %w", path, image.Name(), err)
	}
	return device, nil
}
