package delta

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/mount"
)

// Running is the View of the root that runs at a path, "/" on a node: of each top-level directory the union that is mounted
// there, if one of ours is, else the root's own, whatever is mounted over it. A persistent /etc, a bound /var or
// /run lie over such a directory and are never reached through it.
func Running(root string) View {
	return func(top string) (*os.File, error) {
		at, rest := root, top
		if own := filepath.Join(root, top); top != "" {
			if _, err := mount.UnionAt(own); err == nil {
				at, rest = own, ""
			}
		}
		dir, err := bare(at)
		if err != nil || rest == "" {
			return dir, err
		}
		defer dir.Close()
		sub, err := openDirAt(dir, rest)
		if err != nil {
			return nil, fmt.Errorf("look at /%s of the running root: %w", top, err)
		}
		return sub, nil
	}
}

// bare opens what is mounted at a path, without what is mounted in it.
func bare(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	m, err := mount.Clone(dir, false)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.OpenDir()
}

// At is the View of what is mounted at a path, as a union of its own: a persistent /etc.
func At(path string) View {
	return func(top string) (*os.File, error) {
		dir, err := bare(path)
		if err != nil || top == "" {
			return dir, err
		}
		defer dir.Close()
		return openDirAt(dir, top)
	}
}
