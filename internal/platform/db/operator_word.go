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
	ErrNothingWaits  = errors.New("nothing waits for an approval")
	ErrSeveralWait   = errors.New("several renewals wait for an approval")
	ErrNotOneMatter  = errors.New("both a renewal and a doubt about the identity wait for an approval")
	ErrRenewalUnsaid = errors.New("too little of a renewal's ID")
)

// Revocation is what Revoke did.
type Revocation struct {
	// Serials are those of the certificates that were revoked now, newest first.
	Serials []string
	// Tokens is the number of bootstrap tokens that were made void.
	Tokens int64
}

// Revoke revokes the node's certificates, or the one of that serial number. With serial "" the tokens that
// nobody has used end as well, and so does every renewal, and the certificates that FileLost comes upon later. Revoking again does nothing; ErrNotFound says
// that the node has no certificate of that serial number.
func (d *DB) Revoke(ctx context.Context, nodeID, serial string) (Revocation, error) {
	var out Revocation
	err := d.updateOf(ctx, nodeID, func(tx *txn) error {
		out = Revocation{}
		now := millis(d.now())
		rows, err := tx.Query(ctx, selectCertificates+"WHERE c.node_id = ?1 AND (?2 = '' OR c.serial = ?2) ORDER BY c.rowid DESC", nodeID, serial)
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
			if _, err := tx.Exec(ctx, "UPDATE certificates SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", now, c.ID); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "DELETE FROM renewals WHERE certificate_id = ?", c.ID); err != nil {
				return err
			}
		}
		if serial == "" {
			if _, err := tx.Exec(ctx, "UPDATE nodes SET revoked_at = ? WHERE id = ?", now, nodeID); err != nil {
				return err
			}
			out.Tokens, err = tx.Exec(ctx, "UPDATE tokens SET expires_at = ?1 WHERE node_id = ?2 AND used_at IS NULL AND expires_at > ?1", now, nodeID)
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
	// Renewal is the ID of the one that is meant, or its beginning of at least shortestRenewal characters; "" where
	// only one waits.
	Renewal string
	// Attention says that what called for attention is meant, and no renewal.
	Attention bool
	Deny      bool
}

// shortestRenewal is how much of a renewal's ID names it. IDs are random: what was read names no other one that
// came since.
const shortestRenewal = 4

// Decided is what an operator's word did.
type Decided struct {
	Renewals []Renewal
	// Cleared are the texts that called for attention.
	Cleared []string
}

// Decide approves the one renewal that waits or is named, or denies those that do, or the one, or clears what called for attention: one of
// these, never two by one word. ErrNothingWaits says that there is none of them; ErrSeveralWait, ErrNotOneMatter and
// ErrRenewalUnsaid that it isn't clear which is meant, and Decided has the renewals that may be.
func (d *DB) Decide(ctx context.Context, in Decision) (Decided, error) {
	var out Decided
	err := d.updateOf(ctx, in.NodeID, func(tx *txn) error {
		out = Decided{}
		if in.Renewal != "" && len(in.Renewal) < shortestRenewal {
			return ErrRenewalUnsaid
		}
		if !in.Attention {
			all, err := renewals(ctx, tx, in.NodeID)
			if err != nil {
				return err
			}
			for _, r := range all {
				if r.State == RenewalWaiting && strings.HasPrefix(r.ID, in.Renewal) {
					out.Renewals = append(out.Renewals, r)
				}
			}
		}
		if !in.Deny && in.Renewal == "" {
			var err error
			if out.Cleared, err = d.clearAttention(ctx, tx, in.NodeID); err != nil {
				return err
			}
		}
		switch {
		case len(out.Renewals) == 0 && len(out.Cleared) == 0:
			return ErrNothingWaits
		case len(out.Renewals) > 0 && len(out.Cleared) > 0:
			// Undone by the error, with the transaction.
			return ErrNotOneMatter
		case len(out.Renewals) > 1 && (!in.Deny || in.Renewal != ""):
			return ErrSeveralWait
		}
		state := RenewalApproved
		if in.Deny {
			state = RenewalDenied
		}
		for i := range out.Renewals {
			if err := d.decideRenewal(ctx, tx, &out.Renewals[i], state, ""); err != nil {
				return err
			}
		}
		return dropEvents(ctx, tx)
	})
	return out, err
}

// decideRenewal puts an operator's word about one renewal on file; dropEvents must follow. how, if any, says by which word.
func (d *DB) decideRenewal(ctx context.Context, tx *txn, r *Renewal, state RenewalState, how string) error {
	r.State = state
	if _, err := tx.Exec(ctx, "UPDATE renewals SET state = ?, decided_at = ? WHERE id = ?", state, millis(d.now()), r.ID); err != nil {
		return err
	}
	kind := EventRenewalApproved
	if state == RenewalDenied {
		kind = EventRenewalDenied
	}
	return d.addEvent(ctx, tx, kind, r.NodeID, fmt.Sprintf("an operator %s the renewal of certificate %s asked from %s%s", state, r.Serial, r.From, how))
}
