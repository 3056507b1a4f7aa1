package fsverity

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Enable and Measure may find. Errors carry one of them in their chain, beside the errno.
var (
	// ErrNotBuiltIn: this kernel was built without fs-verity (CONFIG_FS_VERITY).
	ErrNotBuiltIn = errors.New("this kernel was built without fs-verity")
	// ErrNotSupported: the file's filesystem has no fs-verity; ext4 gets it by `tune2fs -O verity`.
	ErrNotSupported = errors.New("the filesystem has no fs-verity")
	// ErrAlreadyEnabled: fs-verity is enabled on the file already, with whatever digest.
	ErrAlreadyEnabled = errors.New("fs-verity is already enabled")
	// ErrNotEnabled: fs-verity is not enabled on the file.
	ErrNotEnabled = errors.New("fs-verity is not enabled")
	// ErrBusy: a process holds the file open for writing.
	ErrBusy = errors.New("the file is open for writing")
)

// Unavailable reports whether err says that neither another file nor another attempt on this
// filesystem and kernel would do better.
func Unavailable(err error) bool {
	return errors.Is(err, ErrNotBuiltIn) || errors.Is(err, ErrNotSupported)
}

// Enable has the kernel compute f's Merkle tree and from then on check every read of f against
// it; f's content can't be changed any more. f must be open for reading only, and nobody may have
// it open for writing. It blocks until the tree is on disk.
func Enable(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: BlockSize}
	var err error
	for _, wait := range []time.Duration{1, 5, 20, 100, 0} {
		err = ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
		// A process that another goroutine starts holds copies of all descriptors between its
		// fork and its exec, the one that f was written by among them.
		if !errors.Is(err, unix.ETXTBSY) || wait == 0 {
			break
		}
		time.Sleep(wait * time.Millisecond)
	}
	return explain("enable fs-verity on", f, err)
}

// Measure returns the digest that the kernel enforces on f. It takes a digest of another
// algorithm for an error.
func Measure(f *os.File) (Digest, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return Digest{}, err
	}
	var d Digest
	ctlErr := conn.Control(func(fd uintptr) { d, err = MeasureFD(int(fd)) })
	if err = cmp.Or(ctlErr, err); err == nil {
		return d, nil
	}
	if _, ok := errors.AsType[unix.Errno](err); ok {
		return Digest{}, explain("measure fs-verity of", f, err)
	}
	return Digest{}, fmt.Errorf("measure fs-verity of %s: %w", f.Name(), err)
}

// MeasureFD is Measure for a descriptor. The error is the kernel's bare errno, which Measure would
// explain.
func MeasureFD(fd int) (Digest, error) {
	var arg struct {
		unix.FsverityDigest
		digest [64]byte
	}
	arg.Size = uint16(len(arg.digest))
	if errno := ioctlFD(fd, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); errno != 0 {
		return Digest{}, errno
	}
	if arg.Algorithm != unix.FS_VERITY_HASH_ALG_SHA256 || int(arg.Size) != len(Digest{}) {
		return Digest{}, fmt.Errorf("algorithm %d with %d bytes instead of SHA-256", arg.Algorithm, arg.Size)
	}
	return Digest(arg.digest[:len(Digest{})]), nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) { errno = ioctlFD(int(fd), request, arg) })
	switch {
	case err != nil:
		return err
	case errno != 0:
		return errno
	}
	return nil
}

func ioctlFD(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		runtime.KeepAlive(arg)
		if errno != unix.EINTR {
			return errno
		}
	}
}

func explain(doing string, f *os.File, err error) error {
	if err == nil {
		return nil
	}
	if cause := classify(err, kernelSupport); cause != nil {
		return fmt.Errorf("%s %s: %w (%w)", doing, f.Name(), cause, err)
	}
	return fmt.Errorf("%s %s: %w", doing, f.Name(), err)
}

// classify names the cause of an ioctl's errno, or nil where the errno says it all. The rules are
// those of Documentation/filesystems/fsverity.rst, "FS_IOC_ENABLE_VERITY" and
// "FS_IOC_MEASURE_VERITY"; EOPNOTSUPP stands for several causes, which only support tells apart.
func classify(err error, support func() support) error {
	switch {
	case errors.Is(err, unix.ENOTTY):
		return ErrNotSupported
	case errors.Is(err, unix.EOPNOTSUPP):
		if support() == absent {
			return ErrNotBuiltIn
		}
		return ErrNotSupported
	case errors.Is(err, unix.EEXIST):
		return ErrAlreadyEnabled
	case errors.Is(err, unix.ENODATA):
		return ErrNotEnabled
	case errors.Is(err, unix.ETXTBSY):
		return ErrBusy
	}
	return nil
}
