package boot

import (
	"errors"

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
