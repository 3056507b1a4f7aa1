package db

import (
	"context"
	"database/sql"
	"errors"
)

// FileLost puts a certificate on file that this platform's authority signed and that isn't there, and reports
// whether it did: after a backup of the database was restored, those that were issued since are unknown. It counts
// as superseded, so that its holder may renew it once an operator has approved that. The caller has checked the
// signature.
//
// One that isn't younger than all that its node has on file was dropped, or ended, and stays unknown; so does one of a
// node that isn't there or isn't active.
func (d *DB) FileLost(ctx context.Context, c Certificate, from string) (filed bool, err error) {
	err = d.update(ctx, func(tx *sql.Tx) error {
		var active bool
		var youngest int64
		err := tx.QueryRowContext(ctx, `SELECT n.state = 'active', (SELECT coalesce(max(not_before), 0) FROM certificates WHERE node_id = n.id)
			FROM nodes n WHERE n.id = ?`, c.NodeID).Scan(&active, &youngest)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return err
		case !active || millis(c.NotBefore) <= youngest:
			return nil
		}
		c.Origin = OriginRefresh
		if c, err = d.file(ctx, tx, c); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE certificates SET superseded_at = ?, unfiled = 1 WHERE id = ?", millis(d.now()), c.ID); err != nil {
			return err
		}
		filed = true
		return d.nodeEvent(ctx, tx, EventUnfiled, c.NodeID, "certificate "+c.Serial+", shown from "+from+
			", is this platform's and wasn't on file: the database is older than it; its renewal needs an approval")
	})
	return filed && err == nil, err
}
