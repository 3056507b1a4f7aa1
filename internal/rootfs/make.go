package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// Root is a root that was made.
type Root struct {
	spec  Spec
	id    mount.ID // of the union
	upper mount.ID // of the writable layer's file system
}

// Make mounts the union of the root image, the objects and a writable layer at spec.At, checks
// that it can run, and gives it what outlives the boot. The error is an *Unfit where another root
// image might do; whatever it is, nothing stays mounted.
func Make(ctx context.Context, spec Spec) (*Root, error) {
	if err := spec.fill(); err != nil {
		return nil, err
	}
	r := &Root{spec: spec}
	if err := r.make(ctx); err != nil {
		r.Unmake()
		return nil, err
	}
	return r, nil
}

// ID identifies the union's mount.
func (r *Root) ID() mount.ID { return r.id }

func (r *Root) make(ctx context.Context) error {
	upper, work, err := r.makeUpper()
	if err != nil {
		return err
	}
	defer upper.Close()
	defer work.Close()
	if err := r.mountUnion(upper, work); err != nil {
		return err
	}
	return r.furnish(ctx)
}

func (r *Root) mountUnion(upper, work *os.File) error {
	s := &r.spec
	image, err := s.Store.OpenRootImage(s.RootDigest)
	if err != nil {
		return err
	}
	defer image.Close()
	union, err := mount.Union(mount.UnionSpec{
		Image: image, Digest: s.RootDigest, Objects: s.Store.ObjectsDir(),
		Upper: upper, Work: work, Level: s.Level, Scratch: s.Scratch,
	})
	if err != nil {
		return err
	}
	defer union.Close()
	if err := os.MkdirAll(s.At, 0o755); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if r.id, err = union.ID(); err != nil {
		return err
	}
	return union.Attach(s.At)
}

// furnish refuses a root whose init this machine can't start, or that has something else in the
// place of a directory that is to be mounted on, and gives it what outlives the boot.
func (r *Root) furnish(ctx context.Context) error {
	root, err := switchroot.OpenToFurnish(r.spec.At)
	if err != nil {
		return err
	}
	defer root.Close()
	if err = root.CheckInit(r.spec.Init); err == nil {
		err = root.CheckPlaces(persistName, varName)
	}
	if err != nil && fault.KindOf(err) == fault.Refuse {
		return &Unfit{err}
	}
	if err != nil {
		return err
	}
	return r.bindPersistent(ctx, root)
}

// bindPersistent makes /persist and /var of the new root outlive the boot.
func (r *Root) bindPersistent(ctx context.Context, root *switchroot.Root) error {
	persist, err := os.Open(r.spec.Persist)
	if err != nil {
		return err
	}
	defer persist.Close()
	if err := root.Bind(persist, persistName); err != nil {
		return err
	}
	roots, err := durable.MakeDir(filepath.Join(r.spec.Store.Path(), rootsName), 0o700, nil)
	if err != nil {
		return err
	}
	defer roots.Close()
	return root.Persist(ctx, roots, varName)
}

// Unmake takes away what Make mounted: what is mounted on the union, the union, and the file
// system of the upper, each only if it is proven to be what was put there. Failing that, the
// mounts go with this process's namespace, or with the initramfs.
func (r *Root) Unmake() {
	for _, name := range []string{varName, persistName} {
		at := filepath.Join(r.spec.At, name)
		if e, err := mount.At(at); err == nil && r.id.Mount != 0 && e.Parent == r.id.Mount {
			_ = unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	_ = mount.Unmount(r.spec.At, mount.Claim{Digest: r.spec.RootDigest, ID: r.id})
	if e, err := mount.At(r.spec.upperDir()); err == nil && e.ID.Same(r.upper) {
		_ = unix.Unmount(r.spec.upperDir(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	r.id, r.upper = mount.ID{}, mount.ID{}
}
