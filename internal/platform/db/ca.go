package db

import (
	"context"
	"database/sql"
	"time"
)

// The kinds of events of the certificate authority.
const (
	EventCAPrepared  = "ca.prepared"
	EventCAActivated = "ca.activated"
	EventCARetired   = "ca.retired"
)

// Holder is a certificate of an active node that nothing but its age has ended, with what the node last
// said of the CA bundle that it trusts.
type Holder struct {
	NodeID        string
	NodeName      string
	CertificateID string
	Serial        string
	PEM           string
	NotAfter      time.Time
	BundleSHA256  string     // "" where the node doesn't say it
	ReportedAt    *time.Time // nil before the first heartbeat
}

// Holders returns every Holder, by the node's name.
func (d *DB) Holders(ctx context.Context) ([]Holder, error) {
	rows, err := d.read.Query(ctx, `SELECT n.id, n.name, c.id, c.serial, c.pem, c.not_after, coalesce(r.ca_bundle_sha256, ''), r.received_at
		FROM certificates c JOIN nodes n ON n.id = c.node_id LEFT JOIN reports r ON r.node_id = n.id
		WHERE n.state = 'active' AND c.revoked_at IS NULL AND c.superseded_at IS NULL ORDER BY n.name, c.created_at, c.id`)
	list, err := collect(rows, err, func(rows *sql.Rows, h *Holder) error {
		var after int64
		var reported sql.NullInt64
		if err := rows.Scan(&h.NodeID, &h.NodeName, &h.CertificateID, &h.Serial, &h.PEM, &after, &h.BundleSHA256, &reported); err != nil {
			return err
		}
		h.NotAfter = moment(after)
		if reported.Valid {
			t := moment(reported.Int64)
			h.ReportedAt = &t
		}
		return nil
	})
	return list, d.explain(err)
}

// EndCertificates ends the validity of certificates, by ID, now. Their holders may renew them as if their
// time had come.
func (d *DB) EndCertificates(ctx context.Context, ids []string) error {
	return d.update(ctx, func(tx *txn) error {
		now := millis(d.now())
		for _, id := range ids {
			if _, err := tx.Exec(ctx, "UPDATE certificates SET not_after = ?1 WHERE id = ?2 AND not_after > ?1", now, id); err != nil {
				return err
			}
		}
		return nil
	})
}
