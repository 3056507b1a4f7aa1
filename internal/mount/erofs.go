package mount

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// EROFS mounts the EROFS image that image is open on, read-only and detached. The kernel reads
// the image from the file itself (Linux 6.12); where it can't, on tmpfs for one, through a loop
// device that goes away with the mount. The content is not checked: Union does that.
func EROFS(image *os.File, attrs Attr) (*Mount, error) {
	m, err := erofsFromFile(image, attrs)
	// ENOTBLK is EROFS's answer to a source that is no block device where it can't read files, or
	// can't read files of this file system (erofs_fc_get_tree).
	if errors.Is(err, unix.ENOTBLK) {
		return erofsByLoop(image, attrs)
	}
	return m, err
}

// erofsFromFile names the image by its descriptor: the kernel then opens the very inode that was
// checked, whatever has become of the path.
func erofsFromFile(image *os.File, attrs Attr) (*Mount, error) {
	m, err := newEROFS(procPath(image), attrs)
	runtime.KeepAlive(image)
	return m, err
}

func erofsByLoop(image *os.File, attrs Attr) (*Mount, error) {
	device, err := LoopDevice(image, true)
	if err != nil {
		return nil, err
	}
	defer device.Close()
	return newEROFS(device.Name(), attrs)
}

// newEROFS sets the flag ro, without which the kernel wants to open a block device for writing.
func newEROFS(source string, attrs Attr) (*Mount, error) {
	return New("erofs", attrs|ReadOnly, Flag("ro"), String("source", source))
}
