package db

import (
	"context"
	"database/sql"

	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// tasksAtOnce bounds the nodes whose tasks one call of ExpireTasks settles.
const tasksAtOnce = 1000

// ExpireTasks gives up the tasks that have waited for their nodes for too long, of tasksAtOnce nodes at most, and returns of how many
// nodes. Several processes may do it at the same time.
func (d *DB) ExpireTasks(ctx context.Context) (nodes int, err error) {
	if err := d.TimeKnown(); err != nil {
		return 0, err
	}
	rows, err := d.read.Query(ctx, "SELECT DISTINCT t.node_id FROM tasks t WHERE "+isOpen+
		" AND t.good_until > 0 AND t.good_until <= ?1 AND t.expires_at <= ?1 LIMIT ?2", millis(d.now()), tasksAtOnce)
	ids, err := collect(rows, err, func(rows *sql.Rows, id *string) error { return rows.Scan(id) })
	if err != nil {
		return 0, d.explain(err)
	}
	for _, id := range ids {
		if err := d.updateOf(ctx, id, func(tx *txn) error { return d.settleTasks(ctx, tx, id) }); err != nil {
			return nodes, err
		}
		nodes++
	}
	return nodes, nil
}

// settleTasks writes down what has become of a node's tasks by the passing of time.
func (d *DB) settleTasks(ctx context.Context, tx *txn, nodeID string) error {
	if err := d.TimeKnown(); err != nil {
		return err
	}
	open, err := openTasks(ctx, tx, nodeID)
	if err != nil {
		return err
	}
	for i := range open {
		before := open[i].Task
		if open[i].Task = lease.Settle(before, d.now()); open[i].Task == before {
			continue
		}
		if err := d.saveTask(ctx, tx, before, &open[i]); err != nil {
			return err
		}
	}
	return nil
}
