package db

import "context"

// Calls is what a node is to be told with its heartbeat.
type Calls struct {
	// Reconcile says that its list of modules has changed since it was read.
	Reconcile bool
	// Tasks says that there are tasks that no node has.
	Tasks bool
}

// Calls returns what a node is to be told.
func (d *DB) Calls(ctx context.Context, nodeID string) (Calls, error) {
	var c Calls
	err := d.read.QueryRow(ctx, `SELECT list_now <> list_read, EXISTS (SELECT 1 FROM tasks WHERE node_id = ?1 AND state = 'pending')
		FROM nodes WHERE id = ?1`, nodeID).Scan(&c.Reconcile, &c.Tasks)
	return c, d.explain(err)
}

// ListNumber returns the number of a node's list of modules: what is read afterwards is that list, or a later one.
func (d *DB) ListNumber(ctx context.Context, nodeID string) (now int64, read bool, err error) {
	err = d.read.QueryRow(ctx, "SELECT list_now, list_now = list_read FROM nodes WHERE id = ?", nodeID).Scan(&now, &read)
	return now, read, d.explain(err)
}

// ListRead notes that a node has read its list of modules of that number.
func (d *DB) ListRead(ctx context.Context, nodeID string, number int64) error {
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		_, err := tx.Exec(ctx, "UPDATE nodes SET list_read = ?1 WHERE id = ?2 AND list_read < ?1", number, nodeID)
		return err
	})
}
