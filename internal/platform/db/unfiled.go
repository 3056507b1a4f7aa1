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
// node that isn't there or isn't active. One that was issued before an operator revoked all of its node goes on file as
// revoked: the revocation was meant for it as well, and may have been made because of it.
func (d *DB) FileLost(ctx context.Context, c Certificate, from string) (filed bool, err error) {
	err = d.updateOf(ctx, c.NodeID, func(tx *txn) error {
		var active bool
		var youngest int64
		var revoked sql.NullInt64
		err := tx.QueryRow(ctx, `SELECT n.state = 'active', (SELECT coalesce(max(not_before), 0) FROM certificates WHERE node_id = n.id),
			CASE WHEN n.revoked_at >= ?1 THEN n.revoked_at END FROM nodes n WHERE n.id = ?2`, millis(c.NotBefore), c.NodeID).Scan(&active, &youngest, &revoked)
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
		if _, err := tx.Exec(ctx, "UPDATE certificates SET superseded_at = ?, revoked_at = ?, unfiled = TRUE WHERE id = ?", millis(d.now()), revoked, c.ID); err != nil {
			return err
		}
		filed = true
		becomes := "its renewal needs an approval"
		if revoked.Valid {
			becomes = "it was revoked with its node"
		}
		return d.nodeEvent(ctx, tx, EventUnfiled, c.NodeID, "certificate "+c.Serial+", shown from "+from+
			", is this platform's and wasn't on file: the database is older than it; "+becomes)
	})
	return filed && err == nil, err
}
