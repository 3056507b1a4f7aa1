package db

import (
	"context"
	"database/sql"
	"errors"
)

// keepNodeRoots is how many of the latest root digests that were expected of a node are kept.
const keepNodeRoots = 64

// RootExpected notes that a node was told to come to a root digest.
func (d *DB) RootExpected(ctx context.Context, nodeID, digest string) error {
	var latest string
	err := d.read.QueryRow(ctx, "SELECT root_digest FROM node_roots WHERE node_id = ? ORDER BY expected_at DESC LIMIT 1", nodeID).Scan(&latest)
	switch {
	case err == nil && latest == digest:
		return nil
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return d.explain(err)
	}
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		if _, err := tx.Exec(ctx, `INSERT INTO node_roots (node_id, root_digest, expected_at) VALUES (?, ?, ?)
			ON CONFLICT (node_id, root_digest) DO UPDATE SET expected_at = excluded.expected_at`, nodeID, digest, millis(d.now())); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM node_roots WHERE node_id = ?1 AND expected_at <
			(SELECT expected_at FROM node_roots WHERE node_id = ?1 ORDER BY expected_at DESC LIMIT 1 OFFSET ?2)`, nodeID, keepNodeRoots-1)
		return err
	})
}

// Explained returns the IDs of the nodes, or of the one, whose reported root digest was expected of them at some time.
func (d *DB) Explained(ctx context.Context, nodeID string) (map[string]bool, error) {
	where, args := only("r.node_id", nodeID)
	rows, err := d.read.Query(ctx, "SELECT r.node_id FROM reports r JOIN node_roots x ON x.node_id = r.node_id AND x.root_digest = r.root_digest WHERE "+where, args...)
	list, err := collect(rows, err, func(rows *sql.Rows, id *string) error { return rows.Scan(id) })
	out := make(map[string]bool, len(list))
	for _, id := range list {
		out[id] = true
	}
	return out, d.explain(err)
}
