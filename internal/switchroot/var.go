package switchroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/durable"
)

// Persist binds persist's directory called name over the root's directory of the same name, so
// that what is written there outlives the boot: /var. At the first boot the directory is made
// from the root image's content; later images' content there is hidden, as with any /var.
//
// persist belongs to this package alone. The copy gets its name only when it is whole and on the
// disk; a copy that was cut short is removed by the next call. The labels of the durable
// operations begin with name.
func (r *Root) Persist(ctx context.Context, persist *durable.Dir, name string) error {
	if err := persist.Sweep(); err != nil {
		return fmt.Errorf("prepare the persistent /%s: %w", name, err)
	}
	kept, err := persist.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := r.firstContent(ctx, persist, name); err != nil {
			return fmt.Errorf("copy the root image's /%s to %s: %w", name, persist.Path(), err)
		}
		kept, err = persist.Sub(name)
	}
	if err != nil {
		return fmt.Errorf("open the persistent /%s: %w", name, err)
	}
	defer kept.Close()
	return r.Bind(kept.File(), name)
}

func (r *Root) firstContent(ctx context.Context, persist *durable.Dir, name string) error {
	target, err := mountPoint(r.dir, name)
	if err != nil {
		return err
	}
	target.Close()
	source, err := openDirAt(r.dir, name)
	if err != nil {
		return err
	}
	defer source.Close()
	copied, temp, err := persist.MakeTemp(0o700, name)
	if err != nil {
		return err
	}
	defer copied.Close()
	if err := CopyTree(ctx, source, copied.File(), CopyOptions{}); err != nil {
		return errors.Join(err, persist.Sweep())
	}
	if err := persist.SyncFS(name); err != nil {
		return err
	}
	return persist.RenameNew(temp, name, name)
}
