package switchroot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Options say where the switch happens.
type Options struct {
	// Namespace is the caller's word that it runs in a mount namespace of an ordinary system that
	// was made for it alone. Else it must be the machine's first process, in its initramfs.
	Namespace bool
}

// Root is a mounted root that is being made ready. The order of use is Open, CheckInit, Bind and
// Persist as needed, Switch, Close.
type Root struct {
	dir       *os.File
	how       way
	namespace bool
}

// Open opens the root that is mounted at path. It refuses a process that may not switch root,
// before anything is changed.
func Open(path string, o Options) (*Root, error) {
	f, err := look()
	if err != nil {
		return nil, fmt.Errorf("switch root: %w", err)
	}
	how, err := choose(f, o.Namespace)
	if err != nil {
		return nil, err
	}
	if _, err := mount.At(path); err != nil {
		return nil, fault.New(fault.Broken, fault.Mount, "", "switch root: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("switch root: %w", err)
	}
	return &Root{dir: dir, how: how, namespace: o.Namespace}, nil
}

// OpenToFurnish opens the root that is mounted at path to make it ready, in any process that may
// mount. Switching to it is somebody else's part: Switch refuses.
func OpenToFurnish(path string) (*Root, error) {
	if _, err := mount.At(path); err != nil {
		return nil, fault.New(fault.Broken, fault.Mount, "", "furnish the new root: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("furnish the new root: %w", err)
	}
	return &Root{dir: dir}, nil
}

// Close gives up the handle and leaves everything that was mounted.
func (r *Root) Close() error { return r.dir.Close() }

// Freed says what was removed of an initramfs.
type Freed struct {
	Files int   // files and directories
	Bytes int64 // of file content
	// Left says why some of it stayed in memory; nil where nothing did.
	Left error
}

// Switch gives the root its kernel file systems (/run, /dev, /sys, /proc: taken along from an
// initramfs, new ones in a namespace) and makes it the "/" of every process that has the old root
// for its own, and the working directory of this one. The old root is detached: what is mounted in
// it and was not taken along is no longer seen, and goes once nobody uses it. Its files are removed
// if it is the machine's initramfs, and never else.
//
// An error that is a refusal came before any change to a mount. After any other the caller should
// not go on: it stopped between. Executing init is the caller's part.
func (r *Root) Switch() (Freed, error) {
	if r.how == 0 {
		return Freed{}, fault.New(fault.Refuse, fault.Destructive, "", "switch root: this root was opened to be furnished only")
	}
	targets, err := r.kernelTargets()
	if err != nil {
		return Freed{}, err
	}
	defer targets.close()
	freed, err := r.change(targets)
	if err != nil {
		return freed, fault.New(fault.Broken, fault.Mount, "", "switch root: %w", err)
	}
	return freed, nil
}

func (r *Root) change(targets kernelTargets) (Freed, error) {
	// pivot_root and a move are refused where propagation is shared, and would reach further than
	// this namespace.
	if err := mount.MakePrivate("/"); err != nil {
		return Freed{}, err
	}
	if err := r.kernelMounts(targets); err != nil {
		return Freed{}, err
	}
	if err := unix.Fchdir(int(r.dir.Fd())); err != nil {
		return Freed{}, fmt.Errorf("enter the new root: %w", err)
	}
	if r.how == pivot {
		return Freed{}, pivotHere()
	}
	old, err := os.Open("/")
	if err != nil {
		return Freed{}, err
	}
	defer old.Close()
	if err := moveHere(); err != nil {
		return Freed{}, err
	}
	if r.how != moveAndFree {
		return Freed{}, nil
	}
	freed, err := free(old)
	// The new root is "/" already: memory that stays in use is no reason to stop the machine.
	freed.Left = err
	return freed, nil
}

// pivotHere makes the working directory "/". It needs no directory for the old root inside the new
// one: pivot_root(".", ".") puts it on top of the new root, from where it is detached by the
// working directory (pivot_root(2), NOTES).
func pivotHere() error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot into the new root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return enter()
}

// moveHere makes the working directory "/" by moving its mount over the old one.
func moveHere() error {
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root over the old one: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return enter()
}

func enter() error {
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	return nil
}
