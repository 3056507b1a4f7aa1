package mount

import (
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog remembers a position in the kernel's log, to read what was written after it. A nil
// *kernelLog, where the log can't be opened, has nothing to say.
//
// The log is everybody's: a message of another mount that fails at the same moment may be picked
// up. It is quoted to people and decides nothing.
type kernelLog struct{ fd int }

// openKernelLog works on a bare descriptor, because a read at the end of the log must return
// rather than wait for the next message, which is what an os.File would do.
func openKernelLog() *kernelLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		_ = unix.Close(fd)
		return nil
	}
	return &kernelLog{fd: fd}
}

func (l *kernelLog) close() {
	if l != nil {
		_ = unix.Close(l.fd)
	}
}

// since returns the messages, at most four, that were logged after the position and whose text
// begins with prefix.
func (l *kernelLog) since(prefix string) []string {
	if l == nil {
		return nil
	}
	var said []string
	buf := make([]byte, 8192) // a record that doesn't fit is an error (Documentation/ABI/testing/dev-kmsg)
	for range 256 {
		n, err := unix.Read(l.fd, buf)
		if err == unix.EINTR || err == unix.EPIPE { // EPIPE: records were overwritten, reading goes on
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		if text, ok := logText(string(buf[:n])); ok && strings.HasPrefix(text, prefix) {
			said = append(said, text)
		}
	}
	return said[max(0, len(said)-4):]
}

// logText returns the message of a record "priority,sequence,time,flags;message\n KEY=value...".
func logText(record string) (string, bool) {
	_, text, ok := strings.Cut(record, ";")
	if !ok {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	return text, true
}
