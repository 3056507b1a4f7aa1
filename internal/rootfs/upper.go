package rootfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// layer is a writable layer: two directories of one mount.
type layer struct{ upper, work *os.File }

func (l layer) close() {
	l.upper.Close()
	l.work.Close()
}

// makeUpper makes the writable layer by the spec. A disk that can't take one gives way to memory.
func (r *Root) makeUpper(ctx context.Context) (layer, error) {
	if r.spec.Upper.Kind == OnPersist && r.spec.PersistReadOnly {
		r.spec.Remark("the writable layer is in memory: the disk can't be written, and what was changed there isn't seen", "")
	} else if r.spec.Upper.Kind == OnPersist {
		l, err := r.upperOnPersist(ctx)
		if err == nil {
			r.facts.Upper, r.facts.UpperDir = OnPersist, l.upper.Name()
			return l, nil
		}
		if ctx.Err() != nil || errors.Is(err, errLayerInUse) {
			return layer{}, err
		}
		r.inherited = false
		r.spec.Remark(fmt.Sprintf("the writable layer is in memory: %v", err), fault.HintOf(err))
	}
	if err := r.mountMemory(); err != nil {
		return layer{}, err
	}
	r.facts.Upper, r.facts.UpperDir, r.facts.UpperSize = InMemory, filepath.Join(r.spec.memoryDir(), upperName), r.spec.Upper.Size
	return r.memoryLayer("")
}

// diskLayer opens the upper directory in path on the disk, made with mode perm where it is
// missing, and a work directory that was never used. Those of earlier boots go, unless a root runs
// that may be using one.
func (r *Root) diskLayer(path string, perm fs.FileMode) (layer, error) {
	dir, err := durable.MakeDir(path, 0o700, r.spec.Hook)
	if err != nil {
		return layer{}, err
	}
	defer dir.Close()
	if !r.spec.Beside {
		if err := removeWork(dir); err != nil {
			return layer{}, err
		}
	}
	upper, err := dir.MakeSub(upperName, perm, "layer-upper")
	if err != nil {
		return layer{}, err
	}
	upper.Close()
	// Nothing in it needs to be on the disk: a later boot removes it, whatever of it is there.
	work := workPrefix + strings.ToLower(rand.Text())
	if err := dir.Root().Mkdir(work, 0o700); err != nil {
		return layer{}, dir.Diagnose(err)
	}
	return openLayer(filepath.Join(path, upperName), filepath.Join(path, work))
}

func removeWork(dir *durable.Dir) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, workPrefix) {
			if err := dir.Root().RemoveAll(name); err != nil {
				return dir.Diagnose(err)
			}
		}
	}
	return nil
}

// mountMemory mounts the tmpfs of the writable layers in memory, once.
func (r *Root) mountMemory() error {
	if r.memory != (mount.ID{}) {
		return nil
	}
	dir := r.spec.memoryDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the writable layer: %w", err)
	}
	m, err := mount.New("tmpfs", 0, mount.String("mode", "700"), mount.String("size", r.spec.Upper.Size))
	if err != nil {
		return fault.New(fault.Refuse, fault.Mount, "give --upper-size a size like 512m or 25%",
			"make a writable layer of size %s: %w", r.spec.Upper.Size, err)
	}
	defer m.Close()
	if err := m.Attach(dir); err != nil {
		return err
	}
	r.memory, err = m.ID()
	return err
}

// memoryLayer makes a layer in memory; all of a root's share its size. name tells it from the
// root's own, which is "".
func (r *Root) memoryLayer(name string) (layer, error) {
	if err := r.mountMemory(); err != nil {
		return layer{}, err
	}
	upper := filepath.Join(r.spec.memoryDir(), name, upperName)
	work := filepath.Join(r.spec.memoryDir(), name, "work")
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o700)); err != nil {
		return layer{}, fmt.Errorf("make the writable layer: %w", err)
	}
	return openLayer(upper, work)
}

func openLayer(upper, work string) (l layer, err error) {
	if l.upper, err = os.Open(upper); err != nil {
		return layer{}, fmt.Errorf("open the writable layer: %w", err)
	}
	if l.work, err = os.Open(work); err != nil {
		l.upper.Close()
		return layer{}, fmt.Errorf("open the writable layer: %w", err)
	}
	return l, nil
}
