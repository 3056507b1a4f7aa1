package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Assigned returns the modules assigned to a node, the one that wins first.
func (d *DB) Assigned(ctx context.Context, nodeID string) ([]Module, error) {
	return d.modules(ctx, moduleColumns+"a.downgrade_to = v.id"+moduleTables+
		"JOIN assignments a ON a.module_id = m.id WHERE a.node_id = ? "+orderRank, nodeID)
}

// ModuleSet is the modules of all nodes that have the same, the one that wins first. Whether one of them may go down isn't in it.
type ModuleSet struct{ Modules []Module }

// AllAssigned returns every node's modules, by the node's ID; those without any aren't in it. Nodes that have the same have one set. However many
// nodes there are, it asks twice.
func (d *DB) AllAssigned(ctx context.Context) (map[string]*ModuleSet, error) {
	type pair struct{ node, module string }
	rows, err := d.read.Query(ctx, "SELECT node_id, module_id FROM assignments ORDER BY node_id")
	pairs, err := collect(rows, err, func(rows *sql.Rows, p *pair) error { return rows.Scan(&p.node, &p.module) })
	if err != nil {
		return nil, d.explain(err)
	}
	ranked, err := d.modules(ctx, selectModules+orderRank)
	if err != nil {
		return nil, err
	}
	ranks := make(map[string]int, len(ranked))
	for i, m := range ranked {
		ranks[m.ID] = i
	}
	out, sets := map[string]*ModuleSet{}, map[string]*ModuleSet{}
	for i := 0; i < len(pairs); {
		node, its := pairs[i].node, []int{}
		for ; i < len(pairs) && pairs[i].node == node; i++ {
			if rank, ok := ranks[pairs[i].module]; ok {
				its = append(its, rank)
			}
		}
		slices.Sort(its)
		name := fmt.Sprint(its)
		if sets[name] == nil {
			sets[name] = &ModuleSet{}
			for _, rank := range its {
				sets[name].Modules = append(sets[name].Modules, ranked[rank])
			}
		}
		out[node] = sets[name]
	}
	return out, nil
}

// Assign assigns a module to a node. Doing it again changes nothing, but that allowDowngrade, unless it is nil, says whether
// the node may go down to the module's current version; a version that becomes current later isn't meant.
func (d *DB) Assign(ctx context.Context, nodeID string, m Module, allowDowngrade *bool) error {
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		n, err := tx.Exec(ctx, "INSERT INTO assignments (node_id, module_id, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
			nodeID, m.ID, millis(d.now()))
		if err != nil {
			return err
		}
		if n > 0 {
			if err := d.event(ctx, tx, EventAssigned, nodeID, m.Name+" "+m.Version); err != nil {
				return err
			}
		}
		if allowDowngrade == nil {
			return nil
		}
		return d.allowDowngrade(ctx, tx, nodeID, m, *allowDowngrade)
	})
}

// allowDowngrade allows the version that the caller has seen, and that only.
func (d *DB) allowDowngrade(ctx context.Context, tx *txn, nodeID string, m Module, allow bool) error {
	query, args, kind := "UPDATE assignments SET downgrade_to = '' WHERE node_id = ? AND module_id = ? AND downgrade_to <> ''", []any{nodeID, m.ID}, EventNoDowngrade
	if allow {
		kind = EventDowngrade
		query = `UPDATE assignments SET downgrade_to = v.id FROM (SELECT id FROM versions WHERE module_id = ?2 AND version = ?3) v
			WHERE node_id = ?1 AND module_id = ?2 AND downgrade_to <> v.id`
		args = append(args, m.Version)
	}
	if n, err := tx.Exec(ctx, query, args...); err != nil || n == 0 {
		return err
	}
	return d.event(ctx, tx, kind, nodeID, m.Name+" "+m.Version)
}

// Unassign takes a module from a node, or returns ErrNotFound where it wasn't assigned. With removeMost the node may lose
// most of its modules at once until it reports that it runs none that isn't assigned; one that was taken before is no error then.
func (d *DB) Unassign(ctx context.Context, nodeID string, m Module, removeMost bool) error {
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		n, err := tx.Exec(ctx, "DELETE FROM assignments WHERE node_id = ? AND module_id = ?", nodeID, m.ID)
		switch {
		case err != nil:
			return err
		case n == 0 && !removeMost:
			return ErrNotFound
		case n > 0:
			if err := d.event(ctx, tx, EventUnassigned, nodeID, m.Name); err != nil {
				return err
			}
		}
		if !removeMost {
			return nil
		}
		return d.setRemoveMost(ctx, tx, nodeID, true, "the node may lose most of its modules at once, once")
	})
}

// setRemoveMost sets the word, and records that where it changes.
func (d *DB) setRemoveMost(ctx context.Context, tx *txn, nodeID string, to bool, text string) error {
	if n, err := tx.Exec(ctx, "UPDATE nodes SET remove_most = ?1 WHERE id = ?2 AND remove_most <> ?1", to, nodeID); err != nil || n == 0 {
		return err
	}
	kind := EventRemovedMost
	if to {
		kind = EventRemoveMost
	}
	return d.event(ctx, tx, kind, nodeID, text)
}

// RemoveMost reports whether a node may lose most of its modules at once.
func (d *DB) RemoveMost(ctx context.Context, nodeID string) (bool, error) {
	var is bool
	err := d.read.QueryRow(ctx, "SELECT remove_most FROM nodes WHERE id = ?", nodeID).Scan(&is)
	return is, d.explain(err)
}

// removed ends the word that a node may lose most of its modules, once it says that it runs none of the platform's modules
// that isn't assigned to it. What was attached on the node itself has no ID here.
func (d *DB) removed(ctx context.Context, tx *txn, nodeID string, hb nodeapi.Heartbeat) error {
	var waiting bool
	err := tx.QueryRow(ctx, "SELECT remove_most FROM nodes WHERE id = ?", nodeID).Scan(&waiting)
	if err != nil || !waiting || hb.MountState != nodeapi.MountMounted || len(hb.ModuleDigests) == 0 {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(hb.ModuleDigests)) {
		var one int
		err := tx.QueryRow(ctx, `SELECT 1 FROM modules m WHERE m.id = ?2
			AND NOT EXISTS (SELECT 1 FROM assignments a WHERE a.node_id = ?1 AND a.module_id = m.id)`, nodeID, id).Scan(&one)
		if !errors.Is(err, sql.ErrNoRows) {
			return err // it runs one still, or nobody knows
		}
	}
	return d.setRemoveMost(ctx, tx, nodeID, false, "the node runs nothing that isn't assigned")
}
