package boot

import (
	"errors"
	"fmt"
	"os"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// apiMount is a kernel file system that the stages need before there is a new root.
type apiMount struct {
	path, fsType string
	attrs        mount.Attr
	options      []mount.Option
}

// apiMounts returns what to mount where nothing is. In namespaces of an ordinary system, /proc
// shows the parent's processes until it is mounted anew, and /run is the system's own, so both
// are covered; /sys and /dev are good as they are.
func apiMounts(namespace bool) []apiMount {
	proc := apiMount{"/proc", "proc", mount.NoSUID | mount.NoDev | mount.NoExec, nil}
	run := apiMount{"/run", "tmpfs", mount.NoSUID | mount.NoDev, []mount.Option{mount.String("mode", "755")}}
	if namespace {
		return []apiMount{proc, run}
	}
	return []apiMount{
		proc,
		{"/sys", "sysfs", mount.NoSUID | mount.NoDev | mount.NoExec, nil},
		{"/dev", "devtmpfs", mount.NoSUID, []mount.Option{mount.String("mode", "755")}},
		run,
	}
}

// mountAPI gives the stages their kernel file systems. It refuses a process that may not change what
// "/" is, before it changes anything but /proc, which shows that.
func mountAPI(namespace bool) error {
	if os.Getpid() != 1 {
		return fault.New(fault.Refuse, fault.Input,
			"start it from an initramfs, with --sysroot from another's, or with --namespace under unshare --fork --pid --mount --uts",
			"boot must be the first process, and is process %d", os.Getpid())
	}
	if namespace {
		// Before /proc is mounted anew: the old one knows whose namespace this is.
		if err := switchroot.Allowed(switchroot.Options{Namespace: true}); err != nil {
			return err
		}
		if err := mount.MakePrivate("/"); err != nil {
			return fmt.Errorf("keep this boot's mounts to itself: %w", err)
		}
	}
	for i, m := range apiMounts(namespace) {
		if err := m.ensure(namespace); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
		if i == 0 && !namespace {
			if err := switchroot.Allowed(switchroot.Options{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ensure mounts m, but in an initramfs not where something is mounted: whoever started us, as an
// earlier stage of it, may have mounted it already.
func (m apiMount) ensure(namespace bool) error {
	if !namespace {
		// Before there is a /proc nothing can be asked of it; what fails then is mounted.
		if _, err := mount.At(m.path); err == nil {
			return nil
		} else if !errors.Is(err, mount.ErrNotMounted) && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return m.mount()
}

func (m apiMount) mount() error {
	if err := os.MkdirAll(m.path, 0o755); err != nil {
		return err
	}
	fs, err := mount.New(m.fsType, m.attrs, m.options...)
	if err != nil {
		return err
	}
	defer fs.Close()
	return fs.Attach(m.path)
}
