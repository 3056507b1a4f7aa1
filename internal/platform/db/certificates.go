package db

import (
	"context"
	"database/sql"
	"time"
)

const selectCertificates = "SELECT id, node_id, serial, fingerprint, key_hash, pem, not_before, not_after, revoked_at FROM certificates "

// scanCertificate reads one row by scan, of sql.Row or sql.Rows.
func scanCertificate(scan func(...any) error, c *Certificate) error {
	var fingerprint, keyHash []byte
	var before, after int64
	var revoked sql.NullInt64
	if err := scan(&c.ID, &c.NodeID, &c.Serial, &fingerprint, &keyHash, &c.PEM, &before, &after, &revoked); err != nil {
		return err
	}
	copy(c.Fingerprint[:], fingerprint)
	copy(c.KeyHash[:], keyHash)
	c.NotBefore, c.NotAfter = moment(before), moment(after)
	if revoked.Valid {
		t := moment(revoked.Int64)
		c.RevokedAt = &t
	}
	return nil
}

// certificateBy reads the certificate whose column, a constant of this package, holds value.
func certificateBy(ctx context.Context, tx *sql.Tx, column string, value any) (Certificate, error) {
	var c Certificate
	err := scanCertificate(tx.QueryRowContext(ctx, selectCertificates+"WHERE "+column+" = ?", value).Scan, &c)
	return c, err
}

// Certificates returns a node's certificates, newest first.
func (d *DB) Certificates(ctx context.Context, nodeID string) ([]Certificate, error) {
	rows, err := d.read.QueryContext(ctx, selectCertificates+"WHERE node_id = ? ORDER BY created_at DESC, id", nodeID)
	list, err := collect(rows, err, func(rows *sql.Rows, c *Certificate) error { return scanCertificate(rows.Scan, c) })
	return list, explain(err)
}

// Standing is what is on file about a presented certificate.
type Standing struct {
	NodeID       string
	NodeName     string
	Architecture string
	Active       bool
	NotAfter     time.Time
	Revoked      bool
}

// Standing looks up the certificate of that fingerprint, or returns ErrNotFound.
func (d *DB) Standing(ctx context.Context, fingerprint [32]byte) (Standing, error) {
	var s Standing
	var after int64
	err := d.read.QueryRowContext(ctx, `SELECT n.id, n.name, n.architecture, n.state = 'active', c.not_after, c.revoked_at IS NOT NULL
		FROM certificates c JOIN nodes n ON n.id = c.node_id WHERE c.fingerprint = ?`, fingerprint[:]).
		Scan(&s.NodeID, &s.NodeName, &s.Architecture, &s.Active, &after, &s.Revoked)
	s.NotAfter = moment(after)
	return s, explain(err)
}

// OperatorHash returns the SHA-256 of the operator token, or ErrNotFound before there is one.
func (d *DB) OperatorHash(ctx context.Context) ([]byte, error) {
	var hash []byte
	err := d.read.QueryRowContext(ctx, "SELECT token_hash FROM operator WHERE one = 1").Scan(&hash)
	return hash, explain(err)
}

// SetOperatorHash replaces the SHA-256 of the operator token.
func (d *DB) SetOperatorHash(ctx context.Context, hash [32]byte) error {
	return d.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO operator (one, token_hash, created_at) VALUES (1, ?, ?)", hash[:], millis(d.now()))
		return err
	})
}
