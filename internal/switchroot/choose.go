package switchroot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Inode numbers of the machine's first namespaces, which the kernel fixes (linux/proc_ns.h,
// PROC_PID_INIT_INO; the mount namespace's since Linux 6.18, a random one before).
const (
	firstPIDNamespace   = 0xEFFFFFFC
	firstMountNamespace = 0xEFFFFFF8
)

// facts are what the choice of a way depends on.
type facts struct {
	// firstProcess: process 1 of the machine itself, not of some PID namespace.
	firstProcess bool
	// machineNamespace: known to be in the mount namespace that the machine runs in. Where that
	// can't be found out, it is false.
	machineNamespace bool
	// rootType is the file system type of "/"; the kernel's own, which initramfs is unpacked to,
	// is called "rootfs" whether it is a ramfs or a tmpfs.
	rootType string
}

// way is how the new root becomes "/".
type way uint8

const (
	// pivot puts the old root aside by pivot_root(2) and detaches it.
	pivot way = iota + 1
	// move moves the new root over "/": pivot_root refuses to put the kernel's rootfs aside.
	move
	// moveAndFree removes the old root's files as well, to give their memory back.
	moveAndFree
)

// choose decides. namespace is the caller's word that it runs in a mount namespace made for this.
func choose(f facts, namespace bool) (way, error) {
	onRootfs := f.rootType == "rootfs"
	switch {
	case namespace && (f.firstProcess || f.machineNamespace):
		return 0, fault.New(fault.Refuse, fault.Destructive, "run it with namespaces of its own (unshare --mount --pid --uts --fork)",
			"switch root: this is the machine's own mount namespace, and a new root there would take the machine down")
	case namespace && onRootfs:
		return move, nil
	case namespace:
		return pivot, nil
	case !f.firstProcess:
		return 0, fault.New(fault.Refuse, fault.Destructive, "let systemd do it: systemctl switch-root",
			"switch root: only the machine's first process may do that, this is process %d", os.Getpid())
	case onRootfs:
		return moveAndFree, nil
	default:
		return pivot, nil
	}
}

// Allowed reports whether this process may switch root as o says, and refuses otherwise. It changes
// nothing. Where /proc is about to be mounted anew, ask before: the inherited one is what shows
// whether the mount namespace is the machine's own.
func Allowed(o Options) error {
	f, err := look()
	if err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	_, err = choose(f, o.Namespace)
	return err
}

// MachineNamespace reports whether this process is known to be in the mount namespace that the machine runs in: that of the
// machine's first process. Where that can't be found out, as in a container with PIDs of its own, it is false.
func MachineNamespace() (bool, error) {
	f, err := look()
	if err != nil {
		return false, fmt.Errorf("look whose mount namespace this is: %w", err)
	}
	return f.machineNamespace, nil
}

// look finds out the facts.
func look() (facts, error) {
	root, err := mount.At("/")
	if err != nil {
		return facts{}, err
	}
	pidNS, err := namespaceInode("/proc/self/ns/pid")
	if err != nil {
		return facts{}, err
	}
	mountNS, err := namespaceInode("/proc/self/ns/mnt")
	if err != nil {
		return facts{}, err
	}
	f := facts{rootType: root.FSType, machineNamespace: mountNS == firstMountNamespace}
	f.firstProcess = os.Getpid() == 1 && pidNS == firstPIDNamespace
	// Process 1 of /proc is in the machine's mount namespace, or in that of whoever lent us /proc:
	// being in the same one is being at home there. It proves nothing where it is this process or
	// the first one of our own PID namespace; such a /proc calls us by the number we call ourselves.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return facts{}, err
	}
	if self == fmt.Sprint(os.Getpid()) && (os.Getpid() == 1 || pidNS != firstPIDNamespace) {
		return f, nil
	}
	if first, err := namespaceInode("/proc/1/ns/mnt"); err == nil && first == mountNS {
		f.machineNamespace = true
	}
	return f, nil
}

func namespaceInode(path string) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, &os.PathError{Op: "look at the namespace", Path: path, Err: err}
	}
	return stat.Ino, nil
}
