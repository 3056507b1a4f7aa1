package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// scratchName is a directory in that of this boot, and scratchSource what is mounted there while the
// new trees are built: a place that no other mount namespace gets a copy of.
const (
	scratchName   = "live"
	scratchSource = "powernode-live"
)

func (w *work) scratch() string { return filepath.Join(w.spec.RunDir, scratchName) }

// sweepScratch takes away what a change that was killed left.
func (w *work) sweepScratch() error {
	for range 64 {
		e, err := mount.At(w.scratch())
		if errors.Is(err, mount.ErrNotMounted) || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Source != scratchSource {
			return fault.New(fault.Refuse, fault.Mount, "unmount it", "%s holds a mount that isn't ours (%s)", w.scratch(), e.FSType)
		}
		// The mounts that were copied there are in the groups of those that they were copied from: what is
		// mounted inside of them must not be unmounted everywhere.
		if err := mount.MakePrivate(w.scratch()); err != nil {
			return err
		}
		if err := unix.Unmount(w.scratch(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", w.scratch(), err)
		}
	}
	return nil
}

func (w *work) mountScratch() error {
	if err := os.Mkdir(w.scratch(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	m, err := mount.New("tmpfs", mount.NoSUID|mount.NoDev|mount.NoExec, mount.String("source", scratchSource), mount.String("mode", "700"), mount.String("size", "1m"))
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Attach(w.scratch()); err != nil {
		return err
	}
	return mount.MakePrivate(w.scratch())
}

// build makes the union of the new root image and takes the trees from it. It works at a place where
// the new union is attached for a while: only since Linux 6.15 can a subtree of a detached mount be
// taken, or something be mounted in one.
func (w *work) build(ctx context.Context, replaced []*replacement) error {
	if !slices.ContainsFunc(replaced, func(r *replacement) bool { return !r.away }) {
		return nil
	}
	if err := w.step("scratch:mount", w.mountScratch); err != nil {
		return err
	}
	union, err := w.attachUnion()
	if err != nil {
		return err
	}
	defer union.Close()
	for i, r := range replaced {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.away {
			continue
		}
		if err := w.buildTree(ctx, union, r, filepath.Join(w.scratch(), strconv.Itoa(i))); err != nil {
			return fmt.Errorf("prepare /%s: %w", r.change.Name, err)
		}
	}
	return w.step("scratch:unmount", w.sweepScratch)
}

// attachUnion makes the union of the new root image and attaches it in the scratch place.
func (w *work) attachUnion() (*mount.Mount, error) {
	image, err := w.spec.Images.OpenRootImage(w.spec.To.RootDigest)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	work, err := w.makeWork(w.upper)
	if err != nil {
		return nil, err
	}
	defer work.Close()
	at := filepath.Join(w.scratch(), "union")
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	var union *mount.Mount
	err = w.step("union:mount", func() (err error) {
		union, err = mount.Union(mount.UnionSpec{
			Image: image, Digest: w.spec.To.RootDigest, Objects: w.spec.Images.ObjectsDir(),
			Upper: w.upper, Work: work, Inherited: true, Level: w.base.Level, Volatile: w.base.Volatile, Scratch: w.scratch(),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := union.Attach(at); err != nil {
		return nil, errors.Join(err, union.Close())
	}
	return union, nil
}

// buildTree takes the new tree of one directory, with the mounts that lie inside of the old one.
func (w *work) buildTree(ctx context.Context, union *mount.Mount, r *replacement, at string) error {
	tree, err := w.newTree(ctx, union, r)
	if err != nil {
		return err
	}
	if err := tree.SetAttr(attrsOf(r.seen(w.base)), 0); err != nil {
		return errors.Join(err, tree.Close())
	}
	table, err := mount.ReadTable()
	inside := insideOf(table, r.seen(w.base).ID.Mount, w.path(r.change.Name))
	if err != nil || len(inside) == 0 {
		r.tree = tree
		return err
	}
	defer tree.Close()
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	if err := tree.Attach(at); err != nil {
		return err
	}
	for _, e := range inside {
		if err := w.carry(tree, r, e, len(table.Children(e.ID.Mount)) > 0); err != nil {
			return err
		}
	}
	r.tree, err = mount.Clone(tree.File(), true)
	return err
}

func (w *work) newTree(ctx context.Context, union *mount.Mount, r *replacement) (*mount.Mount, error) {
	dir, err := mount.OpenIn(union.File(), r.change.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if etcLayer(r.stack) {
		return w.newEtc(ctx, dir, r.seen(w.base))
	}
	return mount.Clone(dir, false)
}

// newEtc makes the layer of local changes over the new union's /etc, as a boot would.
func (w *work) newEtc(ctx context.Context, dir *os.File, running mount.Entry) (*mount.Mount, error) {
	image, err := openDirectory("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/.")
	if err != nil {
		return nil, err
	}
	defer image.Close()
	overlay, err := openDirectory(w.path(etcName))
	if err != nil {
		return nil, err
	}
	defer overlay.Close()
	recorded, _ := running.Value("upperdir")
	upper, err := openUpper(overlay, recorded, filepath.Join(w.spec.Images.Path(), etcName, "upper"))
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	work, err := w.makeWork(upper)
	if err != nil {
		return nil, err
	}
	defer work.Close()
	return rootfs.EtcLayer(ctx, rootfs.EtcSpec{
		Image: image, RootDigest: w.spec.To.RootDigest, Upper: upper, Work: work,
		StateDir: w.spec.Images.Path(), Scratch: w.scratch(), Remark: w.spec.Remark,
	})
}

func etcLayer(stack mount.Table) bool {
	if len(stack) == 0 {
		return false
	}
	_, ok := rootfs.EtcLayerOf(stack[len(stack)-1])
	return ok
}

// seen is the mount that the old tree lies on.
func (r *replacement) seen(base mount.MountedUnion) mount.Entry {
	if len(r.stack) == 0 {
		return base.Entry
	}
	return r.stack[len(r.stack)-1]
}

// attrsOf are the attributes of a mount that the one in its place must have too.
func attrsOf(e mount.Entry) mount.Attr {
	var attrs mount.Attr
	for option, attr := range map[string]mount.Attr{"ro": mount.ReadOnly, "nosuid": mount.NoSUID, "nodev": mount.NoDev, "noexec": mount.NoExec} {
		if slices.Contains(e.Options, option) {
			attrs |= attr
		}
	}
	return attrs
}

// insideOf returns the mounts that lie directly inside of a tree, which is seen on a mount at a path.
func insideOf(table mount.Table, on int, path string) mount.Table {
	var inside mount.Table
	for _, e := range table.Children(on) {
		if e.Point != path && below(e.Point, path) {
			inside = append(inside, e)
		}
	}
	return inside
}

// carry mounts a copy of a mount inside of the old tree, with all that is mounted below it, at the
// same place of the new tree.
func (w *work) carry(tree *mount.Mount, r *replacement, e mount.Entry, nested bool) error {
	inside := strings.TrimPrefix(e.Point, w.path(r.change.Name)+"/")
	f, err := mount.OpenIn(r.old, inside)
	if err != nil {
		return err
	}
	r.carried, r.inside = append(r.carried, f), append(r.inside, e)
	r.nested = r.nested || nested
	id, _, err := mount.Identify(f)
	if err != nil {
		return err
	}
	if id.Mount != e.ID.Mount {
		return stacked(e)
	}
	if err := w.copyUpTo(r, inside); err != nil {
		return err
	}
	place, err := mount.OpenIn(tree.File(), inside)
	if err != nil {
		return placeless(e, err)
	}
	defer place.Close()
	copied, err := mount.Clone(f, true)
	runtime.KeepAlive(f)
	if err != nil {
		return err
	}
	defer copied.Close()
	return copied.AttachAt(place)
}
