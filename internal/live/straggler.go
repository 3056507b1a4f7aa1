package live

import (
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/mount"
)

// has reports whether a mount was carried over.
func (r *replacement) has(e mount.Entry) bool {
	return slices.ContainsFunc(r.inside, func(o mount.Entry) bool { return o.ID.Mount == e.ID.Mount && o.Point == e.Point })
}

// stragglers carries those mounts into the new tree, which has its place already, that somebody made inside of the old one after the
// others were carried. It works directly before the old tree goes: what is mounted between this and the unmounting, in some
// microseconds, goes with it.
func (w *work) stragglers(r *replacement) error {
	if r.away || r.tree == nil {
		return nil
	}
	table, err := mount.ReadTable()
	if err != nil {
		return err
	}
	for _, e := range insideOf(table, r.seen(w.base).ID.Mount, w.path(r.change.Name)) {
		if r.has(e) {
			continue
		}
		if err := w.carry(r.tree, r, e, len(table.Children(e.ID.Mount)) > 0); err != nil {
			return fmt.Errorf("take %s along, which was mounted just now: %w", e.Point, err)
		}
	}
	return nil
}
