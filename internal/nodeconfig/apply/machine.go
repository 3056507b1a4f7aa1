package apply

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Bounds of the files that are read, in bytes.
const (
	maxPasswd   = 16 << 20
	maxKeyFile  = 1 << 20
	maxHostsEtc = 4 << 20
	maxHostname = 4096
)

// Names is where the kernel has its host name. Kernel is the running one's.
type Names interface {
	Hostname() (string, error)
	SetHostname(name string) error
}

// Options say how a Machine is worked on.
type Options struct {
	// DryRun finds out what would change, and changes nothing.
	DryRun bool
	// Hook sees each labelled operation on the disk; it may be nil.
	Hook durable.Hook
	// Kernel is told a new host name; nil leaves the running system's as it is.
	Kernel Names
}

// Machine is the file system of a node. It isn't safe for concurrent use.
type Machine struct {
	root    *os.File
	options Options
}

// Open opens the machine whose root directory root is.
func Open(root string, o Options) (*Machine, error) {
	f, err := os.OpenFile(root, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return &Machine{root: f, options: o}, nil
}

// Close closes the root directory.
func (m *Machine) Close() error { return m.root.Close() }

// Change is what one part of the configuration came to.
type Change struct {
	// Path is the file, as the machine's users name it.
	Path string `json:"path"`
	// Changed says that something was written, or in a dry run would be.
	Changed bool `json:"changed"`
	// Added and Removed are lines.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	// Remarks are what a person should know beside it.
	Remarks []string `json:"remarks,omitempty"`
}

// etc opens /etc. It may be a link, as long as it stays within the root.
func (m *Machine) etc() (*durable.Dir, error) {
	fd, err := openat2(m.root, "etc", unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/etc", Err: err}
	}
	defer fd.Close()
	return durable.DirAt(fd, "/etc", m.options.Hook)
}

// openat2 opens a name below dir.
func openat2(dir *os.File, name string, flags, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && resolve&(unix.RESOLVE_IN_ROOT|unix.RESOLVE_BENEATH) != 0:
			// Something was renamed meanwhile, and the kernel can't tell whether the path stayed inside
			// (openat2(2)). Of a single name, which we open, that is over at once.
		default:
			return nil, err
		}
	}
}

// content is what a file holds, and how it is.
type content struct {
	data []byte
	perm fs.FileMode
	// there says that the file exists.
	there bool
	stat  unix.Stat_t
}

// readFile reads a regular file of at most limit bytes. That there is none is no error.
func readFile(d *durable.Dir, name string, limit int64) (content, error) {
	c := content{perm: 0o600}
	f, err := d.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case errors.Is(err, unix.ELOOP):
		return c, refuse("replace it with a file", "%s is a symbolic link, and none is followed there", path.Join(d.Path(), name))
	case err != nil:
		return c, err
	}
	defer f.Close()
	c.there = true
	if err := unix.Fstat(int(f.Fd()), &c.stat); err != nil {
		return c, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	c.perm = fs.FileMode(c.stat.Mode & 0o777)
	if c.stat.Size > limit {
		return c, refuse("look at what fills it", "%s has %d bytes, more than %d", f.Name(), c.stat.Size, limit)
	}
	c.data, err = readBounded(f, limit)
	return c, err
}

// refuse says that something on the machine isn't as it must be for anything to be written there.
func refuse(hint, format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Policy, hint, format, args...)
}
