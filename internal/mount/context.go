package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// stringMax is the longest value of a string parameter of fsconfig(2): the kernel copies at most
// 256 bytes with the terminating zero (fs/fsopen.c) and answers EINVAL to more.
const stringMax = 255

// Attr is a set of mount attributes (MOUNT_ATTR_* of mount_setattr(2)).
type Attr uint64

// The attributes that a mount of ours may carry.
const (
	ReadOnly Attr = unix.MOUNT_ATTR_RDONLY
	NoSUID   Attr = unix.MOUNT_ATTR_NOSUID
	NoDev    Attr = unix.MOUNT_ATTR_NODEV
	NoExec   Attr = unix.MOUNT_ATTR_NOEXEC
)

// Option is one parameter of a file system, made by Flag, String or Descriptor.
type Option struct {
	key   string
	value string
	file  *os.File
	flag  bool
}

// Flag is a parameter without a value.
func Flag(key string) Option { return Option{key: key, flag: true} }

// String is a parameter with a value of at most 255 bytes.
func String(key, value string) Option { return Option{key: key, value: value} }

// Descriptor is a parameter whose value is an open file; it is used while New runs and no longer.
func Descriptor(key string, f *os.File) Option { return Option{key: key, file: f} }

// String returns the option as mount(8) would write it.
func (o Option) String() string {
	switch {
	case o.flag:
		return o.key
	case o.file != nil:
		return o.key + "=<" + o.file.Name() + ">"
	default:
		return o.key + "=" + o.value
	}
}

// New makes a file system of the given type and returns it as a detached mount. The error is an
// *Error that holds the errno and the kernel's own words.
func New(fsType string, attrs Attr, options ...Option) (*Mount, error) {
	c, err := openContext(fsType)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for _, o := range options {
		if err := c.set(o); err != nil {
			return nil, err
		}
	}
	return c.mount(attrs)
}

// context is a file system that is being configured: the descriptor of fsopen(2). The kernel
// leaves its complaints in it, to be read from that descriptor.
type context struct {
	fd     int
	fsType string
	log    *kernelLog
}

func openContext(fsType string) (*context, error) {
	log := openKernelLog()
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		log.close()
		if errors.Is(err, unix.ENODEV) {
			err = fmt.Errorf("the kernel doesn't know this file system; load its module: %w", err)
		}
		return nil, &Error{Op: "open a file system context", FSType: fsType, Err: err}
	}
	return &context{fd: fd, fsType: fsType, log: log}, nil
}

func (c *context) close() {
	_ = unix.Close(c.fd)
	c.log.close()
}

func (c *context) set(o Option) error {
	var err error
	switch {
	case o.flag:
		err = unix.FsconfigSetFlag(c.fd, o.key)
	case o.file != nil:
		err = unix.FsconfigSetFd(c.fd, o.key, int(o.file.Fd()))
		runtime.KeepAlive(o.file)
	case len(o.value) > stringMax:
		err = fmt.Errorf("%d bytes are over the kernel's limit of %d: %w", len(o.value), stringMax, unix.EINVAL)
	default:
		err = unix.FsconfigSetString(c.fd, o.key, o.value)
	}
	if err != nil {
		return c.fail("set "+o.String(), err)
	}
	return nil
}

func (c *context) mount(attrs Attr) (*Mount, error) {
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return nil, c.fail("create", err)
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return nil, c.fail("mount", err)
	}
	return newMount(fd, c.fsType), nil
}

// fail returns err with what the kernel left in the context; where that is nothing, with what it
// wrote to its log meanwhile: overlay and EROFS explain most refusals only there.
func (c *context) fail(op string, err error) error {
	said := c.messages()
	if len(said) == 0 {
		said = c.log.since(c.fsType)
	}
	return &Error{Op: op, FSType: c.fsType, Kernel: said, Err: err}
}

// messages drains the context's message queue: one message a read, "e text", "w text" or "i text"
// by severity, ENODATA at the end (Documentation/filesystems/mount_api.rst).
func (c *context) messages() []string {
	var said []string
	buf := make([]byte, 4096)
	for range 16 { // the queue holds 8
		n, err := unix.Read(c.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		text := strings.TrimSpace(string(buf[:n]))
		if severity, rest, ok := strings.Cut(text, " "); ok && len(severity) == 1 {
			if severity == "i" {
				continue
			}
			text = rest
		}
		said = append(said, text)
	}
	return said
}
