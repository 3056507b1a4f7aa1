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

// prepare gives the stages their kernel file systems. It refuses a process that isn't the first
// one of the machine or of its PID namespace: nobody else may change what "/" is.
func prepare(namespace bool) error {
	if os.Getpid() != 1 {
		return fault.New(fault.Refuse, fault.Input,
			"start it from an initramfs, or with --namespace under unshare --fork --pid --mount --uts",
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
	for _, m := range apiMounts(namespace) {
		if !namespace {
			// Whoever started us, as an earlier initramfs stage, may have mounted it already.
			if _, err := mount.At(m.path); err == nil {
				continue
			} else if !errors.Is(err, mount.ErrNotMounted) && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := m.mount(); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
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
