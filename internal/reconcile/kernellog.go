package reconcile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Corruption is a file of which the kernel found a block that isn't what fs-verity says, as it tells
// in its log. It tells so for every read, but not more than ten times in five seconds.
type Corruption struct {
	// Device is the name of the file system's block device, as below /sys/class/block.
	Device string
	Inode  uint64
}

// kernelLog is where the kernel's log is read, a record at a time (Documentation/ABI/testing/dev-kmsg).
const kernelLog = "/dev/kmsg"

// Bounds: a record is at most this long, and a log of at most so many records is read. The kernel's
// own default holds some thousands.
const (
	recordMax  = 8 << 10
	recordsMax = 200_000
	foundMax   = 1000
)

// parseCorruption reads one record of /dev/kmsg, and reports whether it is the kernel's word of a
// corrupted file (fs/verity/verify.c, fs/verity/init.c of Linux 5.4 to 6.18):
//
//	3,1034,9217832,-;fs-verity (vda, inode 25): FILE CORRUPTED! pos=4096, level=-1, want_hash=sha256:…, real_hash=sha256:…
//
// What user space writes there is marked as such by the kernel, and isn't believed.
func parseCorruption(record string) (Corruption, bool) {
	prefix, text, ok := strings.Cut(record, ";")
	if !ok || !fromKernel(prefix) {
		return Corruption{}, false
	}
	// Continuation lines hold a device's properties.
	text, _, _ = strings.Cut(text, "\n")
	text, ok = strings.CutPrefix(text, "fs-verity (")
	if !ok {
		return Corruption{}, false
	}
	place, what, ok := strings.Cut(text, "): ")
	if !ok || !strings.HasPrefix(what, "FILE CORRUPTED!") {
		return Corruption{}, false
	}
	device, inode, ok := strings.Cut(place, ", inode ")
	n, err := strconv.ParseUint(inode, 10, 64)
	if !ok || err != nil || n == 0 || strconv.FormatUint(n, 10) != inode || !deviceName(device) {
		return Corruption{}, false
	}
	return Corruption{Device: device, Inode: n}, true
}

// fromKernel reads the beginning of a record, "priority,sequence,microseconds,flags": the priority is
// syslog's, whose facility is 0 for the kernel and can't be that for anybody else.
func fromKernel(prefix string) bool {
	fields := strings.Split(prefix, ",")
	if len(fields) < 4 {
		return false
	}
	priority, err := strconv.ParseUint(fields[0], 10, 16)
	return err == nil && priority>>3 == 0
}

func deviceName(s string) bool {
	return s != "" && len(s) <= 31 && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// log reads the kernel's log from its beginning.
type log struct {
	file *os.File
	buf  []byte
}

func openLog(path string) (*log, error) {
	// Non-blocking, so that a read can wait with a deadline, or not at all.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's log: %w", err)
	}
	return &log{file: f, buf: make([]byte, recordMax)}, nil
}

func (l *log) close() { l.file.Close() }

// next returns the next record. Without one by the deadline the error is os.ErrDeadlineExceeded.
func (l *log) next(deadline time.Time) (string, error) {
	if err := l.file.SetReadDeadline(deadline); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return "", err
	}
	return l.record(l.file.Read)
}

// rest returns the next of the records that there are by now, and io.EOF after the last one. It goes by no clock: a machine that is slow to read
// them has no fewer.
func (l *log) rest() (string, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return "", err
	}
	return l.record(func(b []byte) (n int, err error) {
		readErr := raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), b)
			return true
		})
		if errors.Is(err, unix.EAGAIN) {
			err = io.EOF
		}
		return max(n, 0), errors.Join(readErr, err)
	})
}

func (l *log) record(read func([]byte) (int, error)) (string, error) {
	for range recordsMax {
		n, err := read(l.buf)
		switch {
		case err == nil && n > 0:
			return string(l.buf[:n]), nil
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EINVAL):
			// Records were overwritten before they were read, or one is too long: go on after them.
			continue
		case err == nil:
			return "", io.EOF
		default:
			return "", err
		}
	}
	return "", errors.New("the kernel's log doesn't come to an end")
}

// Corruptions returns the files that the kernel's log tells of, each once: as far as the log goes
// back, which on a busy machine isn't to the boot.
func Corruptions() ([]Corruption, error) { return corruptions(kernelLog) }

func corruptions(path string) ([]Corruption, error) {
	l, err := openLog(path)
	if err != nil {
		return nil, err
	}
	defer l.close()
	var found []Corruption
	seen := make(map[Corruption]bool)
	for range recordsMax {
		record, err := l.rest()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return found, fmt.Errorf("read the kernel's log: %w", err)
		}
		if c, ok := parseCorruption(record); ok && !seen[c] && len(found) < foundMax {
			seen[c] = true
			found = append(found, c)
		}
	}
	return found, nil
}

// deviceOf returns the name of the block device of the file system that a file lies on, or "" where
// it has none of its own, as on btrfs and tmpfs.
func deviceOf(f *os.File) string {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return ""
	}
	major, minor := unix.Major(st.Dev), unix.Minor(st.Dev)
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}
