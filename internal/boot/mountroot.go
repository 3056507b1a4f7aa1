package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// upperDir is where the file system of the upper is; it goes into the new root with /run.
var upperDir = filepath.Join(RunDir, "upper")

// rootDir returns where the union is mounted until it becomes "/". In an initramfs that can't be
// below /run, which is moved into the new root: no mount moves below itself. In namespaces of an
// ordinary system it is below their own /run, so that the system's "/" gets no directory.
func (b *boot) rootDir() string {
	if b.config.Namespace {
		return filepath.Join(RunDir, "root")
	}
	return "/newroot"
}

// unfitRoot says that a root was mounted as it should be, and can't run: the modules are to blame.
type unfitRoot struct{ error }

func (e *unfitRoot) Unwrap() error { return e.error }

// mount makes the union of the proven root image, the objects and a fresh upper, checks that it
// can run, and makes it the current generation. A root that can't run gives way to a generation
// that ran before. An error leaves nothing mounted and no generation behind.
func (b *boot) mount(ctx context.Context) (string, error) {
	err := b.mountPlan(ctx)
	if _, unfit := errors.AsType[*unfitRoot](err); unfit {
		err = b.insteadOf(ctx, err, b.prove, b.composePlan, b.mountPlan)
	}
	if err != nil {
		return "", err
	}
	if err := b.keep(); err != nil {
		b.unmountPlan()
		return "", err
	}
	return fmt.Sprintf("generation %d, integrity level %s", b.generation.Number, b.level), nil
}

func (b *boot) mountPlan(ctx context.Context) error {
	upper, work, err := b.makeUpper()
	if err != nil {
		return err
	}
	defer upper.Close()
	defer work.Close()
	if err = b.mountUnion(upper, work); err == nil {
		err = b.furnish(ctx)
	}
	if err != nil {
		b.unmountPlan()
	}
	return err
}

func (b *boot) mountUnion(upper, work *os.File) error {
	digest := b.composition.RootDigest
	image, err := b.store.OpenRootImage(digest)
	if err != nil {
		return err
	}
	defer image.Close()
	union, err := mount.Union(mount.UnionSpec{
		Image: image, Digest: digest, Objects: b.store.ObjectsDir(),
		Upper: upper, Work: work, Level: b.level,
	})
	if err != nil {
		return err
	}
	defer union.Close()
	if err := os.MkdirAll(b.rootDir(), 0o755); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if b.facts.Mount, err = union.ID(); err != nil {
		return err
	}
	return union.Attach(b.rootDir())
}

// unmountPlan takes away what mountPlan mounted, as far as it came: what is mounted on the union,
// the union, and the file system of the upper, each only if it is proven to be what this boot put
// there. Failing that, the mounts go with this process's namespace, or with the initramfs.
func (b *boot) unmountPlan() {
	for _, name := range []string{persistentName, filepath.Base(PersistInRoot)} {
		at := filepath.Join(b.rootDir(), name)
		if e, err := mount.At(at); err == nil && e.Parent == b.facts.Mount.Mount {
			_ = unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	_ = mount.Unmount(b.rootDir(), mount.Claim{Digest: b.composition.RootDigest, ID: b.facts.Mount})
	if e, err := mount.At(upperDir); err == nil && e.ID.Same(b.upper) {
		_ = unix.Unmount(upperDir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	b.facts.Mount, b.upper = mount.ID{}, mount.ID{}
}

// makeUpper mounts one tmpfs for the upper and work directories, which must share a mount.
func (b *boot) makeUpper() (upper, work *os.File, err error) {
	if err := os.MkdirAll(upperDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the writable layer: %w", err)
	}
	fs, err := mount.New("tmpfs", 0, mount.String("mode", "700"), mount.String("size", b.config.UpperSize))
	if err != nil {
		return nil, nil, fault.New(fault.Refuse, fault.Mount, "give --upper-size a size like 512m or 25%",
			"make a writable layer of size %s: %w", b.config.UpperSize, err)
	}
	defer fs.Close()
	if err := fs.Attach(upperDir); err != nil {
		return nil, nil, err
	}
	if b.upper, err = fs.ID(); err != nil {
		return nil, nil, err
	}
	var dirs [2]*os.File
	for i, d := range []struct {
		name string
		perm os.FileMode
	}{{"upper", 0o755}, {"work", 0o700}} {
		path := filepath.Join(upperDir, d.name)
		if err = os.Mkdir(path, d.perm); err == nil {
			dirs[i], err = os.Open(path)
		}
		if err != nil {
			if dirs[0] != nil {
				dirs[0].Close()
			}
			return nil, nil, fmt.Errorf("make the writable layer: %w", err)
		}
	}
	return dirs[0], dirs[1], nil
}

// furnish refuses a root whose init this machine can't start, or that has something else in the
// place of a directory that is to be mounted on, and gives it what outlives the boot.
func (b *boot) furnish(ctx context.Context) error {
	root, err := switchroot.Open(b.rootDir(), switchroot.Options{Namespace: b.config.Namespace})
	if err != nil {
		return err
	}
	defer root.Close()
	if err = root.CheckInit(b.config.Init[0]); err == nil {
		err = root.CheckPlaces(filepath.Base(PersistInRoot), persistentName)
	}
	if err != nil && fault.KindOf(err) == fault.Refuse {
		return &unfitRoot{err}
	}
	if err != nil {
		return err
	}
	return b.bindPersistent(ctx, root)
}
