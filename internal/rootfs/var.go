package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// furnishVar makes /var outlive the boot. Where the disk can't be written, what it holds is seen
// and changes last until the next boot; where it holds nothing yet, /var is the root image's.
func (r *Root) furnishVar(ctx context.Context, root *switchroot.Root) error {
	if !r.spec.PersistReadOnly {
		err := r.bindVar(ctx, root)
		if err == nil {
			r.facts.VarKept = true
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		r.spec.Remark(fmt.Sprintf("what is written to /var ends with this boot: %v", err), fault.HintOf(err))
	} else {
		r.spec.Remark("what is written to /var ends with this boot: the disk can't be written", "")
	}
	if err := r.coverVar(root); err != nil {
		r.spec.Remark(fmt.Sprintf("/var is the root image's: %v", err), fault.HintOf(err))
	}
	return nil
}

func (r *Root) bindVar(ctx context.Context, root *switchroot.Root) error {
	roots, err := durable.MakeDir(filepath.Join(r.spec.stateDir(), rootsName), 0o700, r.spec.Hook)
	if err != nil {
		return err
	}
	defer roots.Close()
	return root.Persist(ctx, roots, varName)
}

// coverVar mounts what /var holds on the disk with a layer in memory over it.
func (r *Root) coverVar(root *switchroot.Root) error {
	kept, err := openDir(filepath.Join(r.spec.stateDir(), rootsName, varName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer kept.Close()
	return r.attachLayers(root, varName, kept)
}

// attachLayers mounts directories, the uppermost first, at the root's directory of that name with a
// layer in memory over them, which takes on the mode and owner of the first.
func (r *Root) attachLayers(root *switchroot.Root, name string, lowers ...*os.File) error {
	l, err := r.memoryLayer(name)
	if err != nil {
		return err
	}
	defer l.close()
	if err := likeDir(l.upper, lowers[0]); err != nil {
		return err
	}
	m, err := mount.Layers(mount.LayersSpec{Source: r.source(name), Lowers: lowers, Upper: l.upper, Work: l.work})
	if err != nil {
		return err
	}
	defer m.Close()
	return root.Attach(m, name)
}

// source is what the mount table shows for the overlay at the root's directory of that name.
func (r *Root) source(name string) string { return sourceOf(name, r.spec.RootDigest) }

func sourceOf(name string, root fsverity.Digest) string {
	return sourcePrefix + name + ":" + root.String()
}

const sourcePrefix = "powernode-"
