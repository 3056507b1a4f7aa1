package switchroot

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// kernelMount is one of the file systems that every root needs.
type kernelMount struct {
	name    string
	fsType  string
	attrs   mount.Attr
	options []mount.Option
}

// moved are taken along from an initramfs, in this order: /proc last, since the mount table is read
// there.
var moved = []kernelMount{
	{"run", "tmpfs", mount.NoSUID | mount.NoDev, []mount.Option{mount.String("mode", "755"), mount.String("size", "20%")}},
	{"dev", "devtmpfs", mount.NoSUID, []mount.Option{mount.String("mode", "755")}},
	{"sys", "sysfs", mount.NoSUID | mount.NoDev | mount.NoExec, nil},
	{"proc", "proc", mount.NoSUID | mount.NoDev | mount.NoExec, nil},
}

// fresh are mounted for a root that runs in namespaces of an ordinary system: instances of their
// own, which show and change nothing of the machine's. /sys belongs to the kernel as a whole and
// is read-only; /proc shows the process's PID namespace, which should be one of its own.
var fresh = []kernelMount{
	{"run", "tmpfs", mount.NoSUID | mount.NoDev, []mount.Option{mount.String("mode", "755"), mount.String("size", "20%")}},
	{"dev", "tmpfs", mount.NoSUID | mount.NoExec, []mount.Option{mount.String("mode", "755"), mount.String("size", "4m")}},
	{"sys", "sysfs", mount.ReadOnly | mount.NoSUID | mount.NoDev | mount.NoExec, nil},
	{"proc", "proc", mount.NoSUID | mount.NoDev | mount.NoExec, nil},
}

// kernelTargets are the directories of the new root that the kernel's file systems go on, in the
// order of moved and fresh.
type kernelTargets []*os.File

func (t kernelTargets) close() {
	for _, f := range t {
		f.Close()
	}
}

// kernelTargets opens them all before the first mount, so that a root that lacks one is refused
// while nothing has changed.
func (r *Root) kernelTargets() (kernelTargets, error) {
	var targets kernelTargets
	for _, k := range moved {
		target, err := mountPoint(r.dir, k.name)
		if err != nil {
			targets.close()
			return nil, err
		}
		targets = append(targets, target)
	}
	return targets, nil
}

// CheckPlaces refuses a root that can't take the kernel's file systems, or a mount at one of the
// further top-level directories names: something else than a directory lies there. What is
// missing is made, as it is for mounting.
func (r *Root) CheckPlaces(names ...string) error {
	targets, err := r.kernelTargets()
	if err != nil {
		return err
	}
	targets.close()
	for _, name := range names {
		target, err := mountPoint(r.dir, name)
		if err != nil {
			return err
		}
		target.Close()
	}
	return nil
}

func (r *Root) kernelMounts(targets kernelTargets) error {
	if !r.namespace {
		for i, k := range moved {
			if err := k.move(targets[i]); err != nil {
				return fmt.Errorf("take /%s into the new root: %w", k.name, err)
			}
		}
		return nil
	}
	for i, k := range fresh {
		if err := k.mount(targets[i]); err != nil {
			return fmt.Errorf("mount /%s in the new root: %w", k.name, err)
		}
	}
	return fillDev(r.dir)
}

// move takes the mount along with all that is mounted below it; what the initramfs didn't mount
// is mounted fresh.
func (k kernelMount) move(target *os.File) error {
	_, err := mount.At("/" + k.name)
	if errors.Is(err, mount.ErrNotMounted) || errors.Is(err, os.ErrNotExist) {
		return k.mount(target)
	}
	if err != nil {
		return err
	}
	return mount.Move("/"+k.name, target)
}

func (k kernelMount) mount(target *os.File) error {
	m, err := mount.New(k.fsType, k.attrs, k.options...)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.AttachAt(target)
}

// Bind mounts the directory that source is open on, with all that is mounted below it, at the
// root's top-level directory called name, which is made where it is missing. Where it is mounted
// already, nothing is done.
func (r *Root) Bind(source *os.File, name string) error {
	target, err := mountPoint(r.dir, name)
	if err != nil {
		return err
	}
	defer target.Close()
	var there, wanted unix.Stat_t
	if err := errors.Join(unix.Fstat(int(target.Fd()), &there), unix.Fstat(int(source.Fd()), &wanted)); err != nil {
		return fmt.Errorf("bind /%s: %w", name, err)
	}
	if there.Dev == wanted.Dev && there.Ino == wanted.Ino {
		return nil
	}
	m, err := mount.Clone(source, true)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.AttachAt(target)
}

// Attach puts a mount at the root's top-level directory called name, which is made where it is
// missing.
func (r *Root) Attach(m *mount.Mount, name string) error {
	target, err := mountPoint(r.dir, name)
	if err != nil {
		return err
	}
	defer target.Close()
	return m.AttachAt(target)
}

// mountPoint opens the root's directory called name, one path element, to mount on, and makes it
// where it is missing and the root can be written. A symlink or a file of that name is refused.
func mountPoint(root *os.File, name string) (*os.File, error) {
	err := unix.Mkdirat(int(root.Fd()), name, 0o755)
	runtime.KeepAlive(root)
	if errors.Is(err, unix.EROFS) {
		return nil, fault.New(fault.Refuse, fault.Mount, "have a module ship the directory", "the new root has no directory /%s and can't be written", name)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make the directory /%s in the new root: %w", name, err)
	}
	target, err := mount.OpenIn(root, name)
	if err == nil {
		var stat unix.Stat_t
		if err = unix.Fstat(int(target.Fd()), &stat); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			return target, nil
		}
		target.Close()
	}
	if err != nil && !errors.Is(err, unix.ELOOP) {
		return nil, err
	}
	return nil, fault.New(fault.Refuse, fault.Mount, "have no module ship anything but a directory there",
		"/%s in the new root is not a directory to mount on", name)
}
