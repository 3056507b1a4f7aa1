package change

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// LocalChanges says what becomes of local changes of what a change changes, too.
type LocalChanges string

// The policies. The zero value keeps them.
const (
	KeepLocal    LocalChanges = "keep"
	ReplaceLocal LocalChanges = "replace"
)

// replaces reports whether the policy takes a conflict out of the writable layer. The attributes of a directory stay: it
// would go with all that is in it. So do the names in "/" itself, of which the union that is mounted there is never made anew.
func replaces(c delta.Conflict) bool {
	return (c.Local != delta.Directory || c.Below == delta.Type) && strings.Count(c.Path, "/") > 1
}

// replaced returns the paths that a step is to take out of the writable layer.
func (f *Findings) replaced(s Step) []string {
	if !s.Replace {
		return nil
	}
	var paths []string
	for _, c := range f.Conflicts {
		if replaces(c) {
			paths = append(paths, c.Path)
		}
	}
	return paths
}

// cantReplace says why local changes can't be replaced as it was asked for; nil where they can, or none is to be.
func (w *work) cantReplace(p *Plan) error {
	i := slices.IndexFunc(p.Conflicts, func(c LocalConflict) bool { return c.Replaced })
	const hint = "leave --local-changes replace out, and remove by hand what isn't wanted"
	switch {
	case w.request.LocalChanges != ReplaceLocal || p.Way == Live:
		return nil
	case w.c.System == nil:
		return fault.New(fault.Refuse, fault.Mount, hint, "local changes can be replaced in the running system only, and nothing runs here that could be changed")
	case i < 0:
		return nil
	default:
		return fault.New(fault.Refuse, fault.Mount, hint, "the local change of %s can be replaced in the running system only, and the change can't go live: %s",
			p.Conflicts[i].Path, strings.Join(p.Reasons, "; "))
	}
}

// replace takes local changes out of the writable layer, over the new root, and has everybody see what that has there. It is part of a
// swap: who goes back calls putBack before.
func (m *Machine) replace(ctx context.Context, to fsverity.Digest, paths []string) (live.Result, error) {
	if len(paths) == 0 {
		return live.Result{}, nil
	}
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return live.Result{}, err
	}
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), m.Place.Hook)
	if err != nil {
		return live.Result{}, err
	}
	defer upper.Close()
	layerDir, err := durable.OpenDir(filepath.Dir(found.Name()), m.Place.Hook)
	if err != nil {
		return live.Result{}, err
	}
	defer layerDir.Close()
	aside, err := layerDir.MakeSub(rootfs.DroppedName(to), 0o700, "dropped")
	if err != nil {
		return live.Result{}, err
	}
	defer aside.Close()
	if err := delta.Drop(ctx, upper, aside, paths); err != nil {
		return live.Result{}, err
	}
	var tops []string
	for _, p := range paths {
		top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		tops = append(tops, top)
	}
	return live.Renew(ctx, m.Place, tops)
}

// dropped are the paths that replace took out, and that aren't back yet.
func (m *Machine) dropped(to fsverity.Digest) ([]string, error) {
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	aside, err := durable.OpenDir(filepath.Join(filepath.Dir(found.Name()), rootfs.DroppedName(to)), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer aside.Close()
	return delta.Dropped(aside)
}

// endReplaced removes what replace took out, or puts it back.
func (m *Machine) endReplaced(to fsverity.Digest, forGood bool) error {
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return err
	}
	defer found.Close()
	return rootfs.EndDropped(found.Name(), rootfs.DroppedName(to), forGood, m.Place.Hook)
}
