package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

const droppedPrefix = "dropped-"

// DroppedName is the directory beside a writable layer's upper in which a live change to a root has what it takes out of the layer
// for that root (delta.Drop), until the root is the current one. A boot of that root as the current one removes it; every other boot puts it back.
func DroppedName(to fsverity.Digest) string { return droppedPrefix + to.String() }

// settleDropped ends what a live change that a power cut ended did with local changes.
func (r *Root) settleDropped(dir *durable.Dir, name string) error {
	layerDir, err := dir.Sub(name)
	if err != nil {
		return err
	}
	defer layerDir.Close()
	names, err := layerDir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if !strings.HasPrefix(n, droppedPrefix) {
			continue
		}
		if err := EndDropped(filepath.Join(layerDir.Path(), upperName), n, r.spec.Current && n == DroppedName(r.spec.RootDigest), r.spec.Hook); err != nil {
			return err
		}
	}
	return nil
}

// EndDropped removes what lies in the directory of that name beside an upper, and then the directory, or with forGood unset
// puts it back where it was. It can be repeated; nothing is there to be done where there is no such directory.
func EndDropped(upperPath, name string, forGood bool, hook durable.Hook) error {
	upper, err := durable.OpenDir(upperPath, hook)
	if err != nil {
		return err
	}
	defer upper.Close()
	layerDir, err := durable.OpenDir(filepath.Dir(upperPath), hook)
	if err != nil {
		return err
	}
	defer layerDir.Close()
	aside, err := layerDir.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer aside.Close()
	if !forGood {
		err = delta.Restore(upper, aside)
	}
	if err == nil {
		err = delta.Discard(aside)
	}
	if err == nil {
		err = aside.Sweep() // a list that wasn't written to its end
	}
	if err == nil {
		err = layerDir.Remove(name, "dropped")
	}
	if err != nil {
		return fmt.Errorf("end what was done with local changes: %w", err)
	}
	return nil
}
