package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// PruneUppers removes the writable layers on the disk that belong to roots which keep doesn't
// hold: those that no generation has any more. One that is mounted stays. It returns how many went.
func PruneUppers(stateDir string, keep map[fsverity.Digest]struct{}, hook durable.Hook) (int, error) {
	dir, err := durable.OpenDir(filepath.Join(stateDir, uppersName), hook)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove old writable layers: %w", err)
	}
	defer dir.Close()
	table, err := mount.ReadTable()
	if err != nil {
		return 0, err
	}
	mounted := make(map[string]bool)
	for _, u := range table.Unions() {
		mounted[filepath.Base(filepath.Dir(u.Upper))] = true
	}
	names, err := dir.Names()
	if err != nil {
		return 0, fmt.Errorf("remove old writable layers: %w", err)
	}
	pruned := 0
	for _, name := range names {
		digest, err := fsverity.ParseDigest(strings.SplitN(name, ".", 2)[0])
		if err != nil || mounted[name] {
			continue
		}
		if _, wanted := keep[digest]; wanted {
			continue
		}
		if err := dir.RemoveTree(name, "upper"); err != nil {
			return pruned, fmt.Errorf("remove old writable layers: %w", err)
		}
		pruned++
	}
	return pruned, nil
}
