package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// OldUpper is a writable layer on the disk that no root needs any more.
type OldUpper struct {
	// Name is that of its directory, Bytes what it takes on the disk.
	Name  string
	Bytes int64
}

// OldUppers returns the writable layers that PruneUppers would remove.
func OldUppers(stateDir string, keep map[fsverity.Digest]struct{}) ([]OldUpper, error) {
	dir, names, err := oldUppers(stateDir, keep, nil)
	if dir == nil || err != nil {
		return nil, err
	}
	defer dir.Close()
	old := make([]OldUpper, len(names))
	for i, name := range names {
		old[i].Name = name
		if old[i].Bytes, err = allocated(dir.Root(), name); err != nil {
			return nil, fmt.Errorf("look for old writable layers: %w", err)
		}
	}
	return old, nil
}

// allocated adds up what a directory with all that is in it takes on the disk, each file once for each of its names.
func allocated(dir *os.Root, name string) (int64, error) {
	var sum int64
	err := fs.WalkDir(dir.FS(), name, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}

// oldUppers opens the directory of writable layers and lists those to remove; nil where there is none.
func oldUppers(stateDir string, keep map[fsverity.Digest]struct{}, hook durable.Hook) (*durable.Dir, []string, error) {
	dir, err := durable.OpenDir(filepath.Join(stateDir, uppersName), hook)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for old writable layers: %w", err)
	}
	names, err := unneeded(dir, keep)
	if err != nil {
		dir.Close()
		return nil, nil, fmt.Errorf("look for old writable layers: %w", err)
	}
	return dir, names, nil
}

// unneeded lists the layers that no root in keep uses. Those that are mounted aren't among them, nor those of which nobody
// knows what they are for. One that was put aside, because another one took over its root, goes with its root.
func unneeded(dir *durable.Dir, keep map[fsverity.Digest]struct{}) ([]string, error) {
	mounted, err := mountedLayers()
	if err != nil {
		return nil, err
	}
	layers, err := readLayers(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range layers {
		if !mounted[l.name] && l.damaged == nil && !l.neededFor(keep) {
			names = append(names, l.name)
		}
	}
	return names, nil
}

func (l *keptLayer) neededFor(keep map[fsverity.Digest]struct{}) bool {
	return slices.ContainsFunc(l.record.Roots, func(r layerRoot) bool {
		_, kept := keep[r.RootDigest]
		return kept
	})
}

// BeneathUppers says for roots that boot over a writable layer on the disk which other roots' images that was used over last: it is
// settled by what they hold. One whose record is damaged isn't booted over.
func BeneathUppers(stateDir string) (map[fsverity.Digest][]fsverity.Digest, error) {
	dir, err := durable.OpenDir(filepath.Join(stateDir, uppersName), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a node that keeps none
	}
	if err != nil {
		return nil, fmt.Errorf("look what writable layers lie over: %w", err)
	}
	defer dir.Close()
	layers, err := readLayers(dir)
	if err != nil {
		return nil, fmt.Errorf("look what writable layers lie over: %w", err)
	}
	beneath := make(map[fsverity.Digest][]fsverity.Digest)
	for _, l := range layers {
		for _, r := range l.record.Roots {
			if used := layers.of(r.RootDigest, l.level); r.RootDigest != l.record.Over && used != nil && used.name == l.name {
				beneath[r.RootDigest] = append(beneath[r.RootDigest], l.record.Over)
			}
		}
	}
	return beneath, nil
}

// PruneUppers removes the writable layers on the disk that belong to no root in keep, but to such as
// no generation has any more. One that is mounted stays. It returns how many went.
func PruneUppers(stateDir string, keep map[fsverity.Digest]struct{}, hook durable.Hook) (int, error) {
	dir, names, err := oldUppers(stateDir, keep, hook)
	if dir == nil || err != nil {
		return 0, err
	}
	defer dir.Close()
	for i, name := range names {
		if err := dir.RemoveTree(name, "upper"); err != nil {
			return i, fmt.Errorf("remove old writable layers: %w", err)
		}
	}
	return len(names), nil
}
