package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// changesMax bounds how many local changes to /etc are looked at.
const changesMax = 100_000

// countConflicts counts the local changes to /etc of files that are others in the root image than
// in the one that ran before. Where that one is no longer here, nobody can tell.
func (r *Root) countConflicts(before fsverity.Digest) (int, error) {
	old, err := r.readEtc(before)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now, err := r.readEtc(r.spec.RootDigest)
	if err != nil {
		return 0, err
	}
	changed, err := changedBelow(filepath.Join(r.etcDir(), upperName))
	return conflicts(changed, old, now), err
}

// readEtc returns /etc of a root image; nil where that has none.
func (r *Root) readEtc(root fsverity.Digest) (*tree.Node, error) {
	image, err := r.spec.Store.OpenRootImage(root)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return nil, err
	}
	t, err := composefs.Read(image, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read the root image %s: %w", root, err)
	}
	return t.Lookup(etcName), nil
}

// changedBelow returns what an upper directory holds besides directories, by path below it:
// files and links, and the whiteouts of what was removed.
func changedBelow(upper string) ([]string, error) {
	var changed []string
	err := filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if len(changed) == changesMax {
			return fs.SkipAll
		}
		name, err := filepath.Rel(upper, path)
		changed = append(changed, name)
		return err
	})
	return changed, err
}

// conflicts counts the paths at which two trees differ. Either may be nil.
func conflicts(paths []string, a, b *tree.Node) int {
	n := 0
	for _, path := range paths {
		if !sameFile(lookup(a, path), lookup(b, path)) {
			n++
		}
	}
	return n
}

func lookup(n *tree.Node, path string) *tree.Node {
	if n == nil {
		return nil
	}
	return n.Lookup(path)
}

// sameFile reports whether a person would call two files the same: times don't count.
func sameFile(a, b *tree.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Rdev == b.Rdev &&
		a.Size == b.Size && a.Digest == b.Digest && bytes.Equal(a.Inline, b.Inline) && a.Target == b.Target
}
