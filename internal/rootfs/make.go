package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// Root is a root that was made.
type Root struct {
	spec  Spec
	facts Facts
	id    mount.ID // of the union
	// memory is the mount of the tmpfs that a writable layer in memory lies on; zero where none does.
	memory mount.ID
	// inherited says that the writable layer may know other root images.
	inherited bool
	// derivedLeft says that a persistent /etc has something still that programs made of another root image.
	derivedLeft bool
}

// Make mounts the union of the root image, the objects and a writable layer at spec.At, checks
// that it can run, and gives it what outlives the boot: /etc by policy, the kept files, /var,
// /persist. The error is an *Unfit where another root image might do; whatever it is, nothing
// stays mounted. A disk that can't be written, or has no room, is a remark: the root is made
// without what needs it.
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

// Facts returns what is known of the root.
func (r *Root) Facts() Facts { return r.facts }

func (r *Root) make(ctx context.Context) error {
	l, err := r.makeUpper(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if err := r.mountUnion(l); err != nil {
		return err
	}
	return r.furnish(ctx)
}

func (r *Root) mountUnion(l layer) error {
	s := &r.spec
	image, err := s.Store.OpenRootImage(s.RootDigest)
	if err != nil {
		return err
	}
	defer image.Close()
	union, err := mount.Union(mount.UnionSpec{
		Image: image, Digest: s.RootDigest, Objects: s.Store.ObjectsDir(),
		Upper: l.upper, Work: l.work, Inherited: r.inherited, Level: s.Level, Scratch: s.Scratch,
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
// place of a directory that is to be mounted on, and gives it what outlives the boot. The kept
// files come before the mounts that hold other state, so that no link in the image leads there.
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
	if err := r.furnishEtc(ctx, root); err != nil {
		return err
	}
	if err := r.furnishVar(ctx, root); err != nil {
		return err
	}
	persist, err := os.Open(r.spec.Persist)
	if err != nil {
		return err
	}
	defer persist.Close()
	return root.Bind(persist, persistName)
}

// Unmake takes away what Make mounted: what is mounted on the union, the union, and the file
// system of the writable layer, each only if it is proven to be what was put there. Failing that,
// the mounts go with this process's namespace, or with the initramfs. What was written to the
// directory of record stays.
func (r *Root) Unmake() {
	if r.id != (mount.ID{}) {
		unmakeAt(r.spec.At, mount.Claim{Digest: r.spec.RootDigest, ID: r.id})
	}
	if e, err := mount.At(r.spec.memoryDir()); err == nil && r.memory != (mount.ID{}) && e.ID.Same(r.memory) {
		detachAt(r.spec.memoryDir())
	}
	r.id, r.memory = mount.ID{}, mount.ID{}
}

// unmakeAt unmounts the union at a path, if the claim holds, with what is mounted in it.
func unmakeAt(path string, claim mount.Claim) {
	u, err := mount.UnionAt(path)
	if err != nil || u.Digest != claim.Digest || claim.ID != (mount.ID{}) && !u.Entry.ID.Same(claim.ID) {
		return
	}
	for _, name := range []string{persistName, varName, etcName} {
		at := filepath.Join(path, name)
		for range 2 { // an overlay of /var may lie on what was bound there before
			if e, err := mount.At(at); err == nil && e.Parent == u.Entry.ID.Mount {
				detachAt(at)
			}
		}
	}
	_ = mount.Unmount(path, claim)
}

func detachAt(path string) { _ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }
