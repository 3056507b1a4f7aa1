package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// upperOnPersist opens the layer on the disk that the root uses, settled for it. One that can't be settled stays as
// it is, and the root begins with an empty one.
func (r *Root) upperOnPersist(ctx context.Context) (layer, error) {
	dir, err := durable.MakeDir(filepath.Join(r.spec.stateDir(), uppersName), 0o700, r.spec.Hook)
	if err != nil {
		return layer{}, err
	}
	defer dir.Close()
	all, err := readLayers(dir)
	if err != nil {
		return layer{}, err
	}
	for _, l := range all {
		if l.damaged != nil {
			r.spec.Remark(fmt.Sprintf("the writable layer %s stays aside: what it lay over isn't known: %v", filepath.Join(dir.Path(), l.name), l.damaged),
				"copy what is needed from there, and remove it")
		}
	}
	used := all.of(r.spec.RootDigest, r.spec.Level)
	if used != nil && !r.spec.Beside {
		if err := r.settleDropped(dir, used.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return layer{}, err
		}
	}
	if used != nil {
		err := r.inherit(ctx, dir, used)
		if aside, ok := errors.AsType[*asideError](err); ok {
			r.spec.Remark(fmt.Sprintf("the writable layer begins empty, and what was changed stays aside in %s: %v", filepath.Join(dir.Path(), used.name), aside),
				"copy what is needed from there")
			used, r.inherited = nil, false
		} else if err != nil {
			return layer{}, err
		}
	}
	if used == nil {
		used = all.fresh(r.spec.RootDigest, r.spec.Level)
		if used.record.Roots[0].Turn > 0 { // else its name says it all
			if err := used.write(dir); err != nil {
				return layer{}, err
			}
		}
	}
	return r.diskLayer(filepath.Join(dir.Path(), used.name), 0o755)
}

// asideError says why a layer can't come over the root that boots.
type asideError struct{ error }

// Unwrap returns the reason.
func (e *asideError) Unwrap() error { return e.error }

// errLayerInUse says that a layer would have to be settled that a running root goes on using.
var errLayerInUse = fault.New(fault.Refuse, fault.Mount, "restart the machine instead",
	"the writable layer belongs to both roots, and holds what must be settled for the next one while nobody uses it")

// inherit settles a layer for the root that boots, where it was used over another one before, or over several.
func (r *Root) inherit(ctx context.Context, dir *durable.Dir, l *keptLayer) error {
	settled := l.record.Over == r.spec.RootDigest && len(l.record.Also) == 0
	r.inherited = len(l.record.Roots) > 1 || !settled
	if r.spec.Beside {
		used, err := mountedLayers()
		if err != nil {
			return err
		}
		if used[l.name] {
			if l.record.Over != r.spec.RootDigest {
				return errLayerInUse
			}
			return nil
		}
	}
	if settled && !r.inherited {
		return nil
	}
	if err := ForgetNames(filepath.Join(dir.Path(), l.name, upperName)); errors.Is(err, fs.ErrNotExist) {
		return nil // nobody has used it
	} else if err != nil {
		return err
	}
	if settled {
		return nil
	}
	return r.settleLayer(ctx, dir, l)
}

// settleLayer has what a layer holds mean the same over the root that boots, as it does over the other one still, and
// writes that down. Then its directories that nobody changed take on what the root says of them.
func (r *Root) settleLayer(ctx context.Context, dir *durable.Dir, l *keptLayer) error {
	sub, err := dir.Sub(l.name)
	if err != nil {
		return err
	}
	defer sub.Close()
	upper, err := sub.Sub(upperName)
	if err != nil {
		return err
	}
	defer upper.Close()
	if err := r.dropDerived(ctx, upper, "/"); err != nil {
		if fault.KindOf(err) == fault.Refuse {
			err = &asideError{err}
		}
		return err
	}
	plan, left, err := r.planSettling(ctx, upper, l.record.Over)
	if err == nil {
		err = r.actOn(ctx, plan, sub, upper)
	}
	if err != nil {
		return err
	}
	l.record.Over, l.record.Also, l.record.New = r.spec.RootDigest, nil, fsverity.Digest{}
	if err := l.write(dir); err != nil {
		return err
	}
	r.tidyLayer(ctx, upper, left)
	return nil
}

// tidyLayer puts right what delta.Leftovers says of a layer that nobody uses yet. It isn't worth a boot.
func (r *Root) tidyLayer(ctx context.Context, upper *durable.Dir, left []delta.Leftover) {
	if len(left) == 0 {
		return
	}
	troubles, err := delta.Tidy(ctx, func(top string) (*os.File, error) { return openDir(filepath.Join(upper.Path(), top)) }, left)
	if err == nil && len(troubles) > 0 {
		err = fmt.Errorf("%s: %s", troubles[0].Path, troubles[0].Why)
	}
	if err != nil {
		r.spec.Remark(fmt.Sprintf("directories that were only copied up keep their old mode and owner: %v", err), "")
	}
}

// actOn does what settling takes.
func (r *Root) actOn(ctx context.Context, plan *delta.Plan, layerDir, upper *durable.Dir) error {
	aside, err := layerDir.MakeSub(asideName, 0o700, "layer-aside")
	if err != nil {
		return err
	}
	defer aside.Close()
	troubles, err := plan.ActOffline(ctx, delta.Offline{Upper: upper, Aside: aside, Objects: r.spec.Store})
	if err != nil {
		return err
	}
	if len(troubles) > 0 {
		return &asideError{fmt.Errorf("%s can't be taken along to root %s: %s", troubles[0].Path, r.spec.RootDigest, troubles[0].Why)}
	}
	return nil
}

// planSettling looks what there is to settle after the layer was used over the root "over", and to put right then.
func (r *Root) planSettling(ctx context.Context, upper *durable.Dir, over fsverity.Digest) (*delta.Plan, []delta.Leftover, error) {
	to, err := readTree(r.spec.Store, r.spec.RootDigest)
	if err != nil {
		return nil, nil, err
	}
	from := to
	if over != r.spec.RootDigest {
		if from, err = readTree(r.spec.Store, over); err != nil {
			why := "can't be read"
			if errors.Is(err, fs.ErrNotExist) {
				why = "isn't here any more"
			}
			return nil, nil, &asideError{fmt.Errorf("it was used over root %s, which %s: %w", over, why, err)}
		}
	}
	d, err := delta.Scan(ctx, upper.File(), delta.Limits{})
	if fault.KindOf(err) == fault.Refuse {
		err = &asideError{err}
	}
	if err != nil {
		return nil, nil, err
	}
	plan := delta.SettleKept(d, from, to, func(digest fsverity.Digest) bool {
		f, err := r.spec.Store.OpenObject(digest)
		if err != nil {
			return false
		}
		f.Close()
		return true
	})
	if from == to {
		plan.Unsettled = nil // it stays as it was
	}
	return plan, delta.Leftovers(d, from, to), nil
}

// rootImageMax is the largest root image in bytes that is read.
const rootImageMax = 1 << 30

// readTree reads a root image of the store, whose bytes are checked first.
func readTree(st *store.Store, root fsverity.Digest) (*tree.Node, error) {
	f, err := st.OpenRootImage(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := io.ReadAll(io.LimitReader(f, rootImageMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the root image %s: %w", root, err)
	}
	if len(image) > rootImageMax || fsverity.SumBytes(image) != root {
		return nil, fault.New(fault.Broken, fault.Verify, "powernode-agent status --check tells what is damaged", "the root image %s is damaged", root)
	}
	return composefs.Read(bytes.NewReader(image), int64(len(image)))
}

// mountedLayers returns the names of the layers that a union uses.
func mountedLayers() (map[string]bool, error) {
	table, err := mount.ReadTable()
	if err != nil {
		return nil, err
	}
	mounted := make(map[string]bool)
	for _, u := range table.Unions() {
		mounted[filepath.Base(filepath.Dir(u.Upper))] = true
	}
	return mounted, nil
}
