package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Errors by which an operator's word comes to nothing.
var (
	ErrNothingWaits = errors.New("nothing waits for an approval")
	ErrSeveralWait  = errors.New("several renewals wait for an approval")
)

// Revocation is what Revoke did.
type Revocation struct {
	// Serials are those of the certificates that were revoked now, newest first.
	Serials []string
	// Tokens is the number of bootstrap tokens that were made void.
	Tokens int64
}

// Revoke revokes the node's certificates, or the one of that serial number. With serial "" the tokens that
// nobody has used end as well, and so does every renewal. Revoking again does nothing; ErrNotFound says
// that the node has no certificate of that serial number.
func (d *DB) Revoke(ctx context.Context, nodeID, serial string) (Revocation, error) {
	var out Revocation
	err := d.update(ctx, func(tx *sql.Tx) error {
		now := millis(d.now())
		rows, err := tx.QueryContext(ctx, selectCertificates+"WHERE c.node_id = ?1 AND (?2 = '' OR c.serial = ?2) ORDER BY c.rowid DESC", nodeID, serial)
		list, err := collect(rows, err, func(rows *sql.Rows, c *Certificate) error { return scanCertificate(rows.Scan, c) })
		switch {
		case err != nil:
			return err
		case serial != "" && len(list) == 0:
			return ErrNotFound
		}
		for _, c := range list {
			if c.RevokedAt == nil {
				out.Serials = append(out.Serials, c.Serial)
			}
			for _, query := range []string{
				"UPDATE certificates SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
				"DELETE FROM renewals WHERE certificate_id = ?1 AND ?2 > 0",
			} {
				if _, err := tx.ExecContext(ctx, query, c.ID, now); err != nil {
					return err
				}
			}
		}
		if serial == "" {
			out.Tokens, err = affected(tx.ExecContext(ctx, "UPDATE tokens SET expires_at = ?1 WHERE node_id = ?2 AND used_at IS NULL AND expires_at > ?1", now, nodeID))
			if err != nil {
				return err
			}
		}
		if len(out.Serials) == 0 && out.Tokens == 0 {
			return nil
		}
		text := fmt.Sprintf("an operator revoked %d certificates and %d tokens", len(out.Serials), out.Tokens)
		if serial != "" {
			text = "an operator revoked certificate " + serial
		}
		return d.event(ctx, tx, EventRevoked, nodeID, text)
	})
	return out, err
}

// Decision is an operator's word about what waits at a node.
type Decision struct {
	NodeID string
	// Renewal is the ID of the one that is meant, or its beginning; "" where only one waits.
	Renewal string
	Deny    bool
}

// Decided is what an operator's word did.
type Decided struct {
	Renewals []Renewal
	// Cleared are the texts that called for attention.
	Cleared []string
}

// Decide approves the renewal that waits, or denies those that do. An approval also clears what called for
// attention. ErrNothingWaits and ErrSeveralWait say that the word can't be meant.
func (d *DB) Decide(ctx context.Context, in Decision) (Decided, error) {
	var out Decided
	err := d.update(ctx, func(tx *sql.Tx) error {
		all, err := renewals(ctx, tx, in.NodeID)
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.State == RenewalWaiting && strings.HasPrefix(r.ID, in.Renewal) {
				out.Renewals = append(out.Renewals, r)
			}
		}
		if !in.Deny && len(out.Renewals) > 1 {
			return ErrSeveralWait
		}
		if !in.Deny && in.Renewal == "" {
			if out.Cleared, err = d.clearAttention(ctx, tx, in.NodeID); err != nil {
				return err
			}
		}
		if len(out.Renewals) == 0 && len(out.Cleared) == 0 {
			return ErrNothingWaits
		}
		state, kind := RenewalApproved, EventRenewalApproved
		if in.Deny {
			state, kind = RenewalDenied, EventRenewalDenied
		}
		for i := range out.Renewals {
			r := &out.Renewals[i]
			r.State = state
			if _, err := tx.ExecContext(ctx, "UPDATE renewals SET state = ?, decided_at = ? WHERE id = ?", state, millis(d.now()), r.ID); err != nil {
				return err
			}
			if err := d.event(ctx, tx, kind, in.NodeID, fmt.Sprintf("an operator %s the renewal of certificate %s asked from %s", state, r.Serial, r.From)); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}
