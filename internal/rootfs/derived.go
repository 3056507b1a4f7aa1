package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
)

// dropDerived removes from changes that were kept, below what of the root, those that only say what another root image
// says: programs wrote them, and write them anew. Nobody may use the changes meanwhile. It is done before what is left
// is settled, and can be repeated. A directory stays.
func (r *Root) dropDerived(ctx context.Context, upper *durable.Dir, below string) error {
	if r.spec.Derived == nil {
		return nil
	}
	d, err := delta.Scan(ctx, upper.File(), delta.Limits{})
	if err != nil {
		return err
	}
	dropped := false
	for _, e := range d.Entries {
		switch e.Kind {
		case delta.Directory, delta.Opaque, delta.Redirected:
			continue
		case delta.File, delta.Metacopy, delta.Symlink, delta.Device, delta.Whiteout:
		}
		if !r.spec.Derived(path.Join(below, e.Path)) {
			continue
		}
		err := upper.Step("derived:remove", func() error { return upper.Root().Remove(strings.TrimPrefix(e.Path, "/")) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s of another root image: %w", path.Join(below, e.Path), upper.Diagnose(err))
		}
		dropped = true
	}
	if !dropped {
		return nil
	}
	return upper.SyncFS("derived")
}

// dropDerivedOfEtc is dropDerived for a persistent /etc, where another root image was below it.
func (r *Root) dropDerivedOfEtc(ctx context.Context) error {
	if r.spec.Derived == nil || r.spec.Beside {
		return nil
	}
	dir, err := durable.OpenDir(r.etcDir(), r.spec.Hook)
	if err != nil {
		return err
	}
	defer dir.Close()
	var last etcState
	err = dir.ReadJSON(etcStateName, etcStateMax, &last)
	if err == nil && last.RootDigest == r.spec.RootDigest {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	upper, err := dir.Sub(upperName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer upper.Close()
	return r.dropDerived(ctx, upper, "/"+etcName)
}
