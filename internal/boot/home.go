package boot

import (
	"errors"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// Home reports whether this process sees the root of the boot where the machine sees it: at root, "/" on a node, in the mount
// namespace that the machine runs in. What is mounted anywhere else, as in a unit's sandbox, the machine never sees.
//
// The mount that the boot, or the soft-reboot, made proves it: a copied namespace has mounts of its own, with other IDs, and a live
// change leaves this one as it is. Whoever switches the root in a soft-reboot may mount the same file system anew; there it is the
// namespace of the machine's first process that counts.
func (f Facts) Home(root string) (bool, error) {
	at, err := mount.At(root)
	if err == nil && at.ID.Same(f.Mount) {
		return true, nil
	}
	if err != nil && !errors.Is(err, mount.ErrNotMounted) {
		return false, err
	}
	return switchroot.MachineNamespace()
}

// Switched writes down, below root, which mount is there after a soft-reboot: who hasn't the right to see the namespaces of others, as the service,
// knows it again by that. In another namespace than the machine's it does nothing.
func Switched(root string) error {
	home, err := switchroot.MachineNamespace()
	if err != nil || !home {
		return err
	}
	return switched(root)
}

func switched(root string) error {
	f, err := ReadFacts(root)
	if err != nil {
		return err
	}
	at, err := mount.At(root)
	if err != nil || at.ID.Same(f.Mount) {
		return err
	}
	f.Mount = at.ID
	return f.write(filepath.Join(root, RunDir))
}
