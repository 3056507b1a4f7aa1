package db

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Errors by which a certificate that is on file is no longer good.
var (
	ErrRevoked    = errors.New("the certificate was revoked")
	ErrSuperseded = errors.New("the certificate's successor has been used")
	ErrExpired    = errors.New("the certificate is outside its validity")
)

// Origin says how a certificate came to be.
type Origin string

// The origins.
const (
	OriginEnroll  Origin = "enroll"
	OriginRefresh Origin = "refresh"
	OriginRenew   Origin = "renew"
)

// Certificate is an issued certificate as it is kept.
type Certificate struct {
	ID          string
	NodeID      string
	Serial      string
	Fingerprint [32]byte
	KeyHash     [32]byte
	PEM         string
	NotBefore   time.Time
	NotAfter    time.Time
	Origin      Origin
	// UsedAt is the time of the first request by it, SupersededAt that of the first one by its successor.
	UsedAt       *time.Time
	SupersededAt *time.Time
	RevokedAt    *time.Time
}

// Ended says why the certificate isn't good at that time: nil, or one of the errors above, the one
// that weighs most.
func (c Certificate) Ended(now time.Time) error {
	switch {
	case c.RevokedAt != nil:
		return ErrRevoked
	case c.SupersededAt != nil:
		return ErrSuperseded
	case !now.Before(c.NotAfter):
		return ErrExpired
	}
	return nil
}

const selectCertificates = `SELECT c.id, c.node_id, c.serial, c.fingerprint, c.key_hash, c.pem, c.not_before, c.not_after, c.origin,
	c.used_at, c.superseded_at, c.revoked_at FROM certificates c `

// scanCertificate reads one row by scan, of sql.Row or sql.Rows.
func scanCertificate(scan func(...any) error, c *Certificate) error {
	var fingerprint, keyHash []byte
	var before, after int64
	var used, superseded, revoked sql.NullInt64
	if err := scan(&c.ID, &c.NodeID, &c.Serial, &fingerprint, &keyHash, &c.PEM, &before, &after, &c.Origin, &used, &superseded, &revoked); err != nil {
		return err
	}
	copy(c.Fingerprint[:], fingerprint)
	copy(c.KeyHash[:], keyHash)
	c.NotBefore, c.NotAfter = moment(before), moment(after)
	c.UsedAt, c.SupersededAt, c.RevokedAt = maybe(used), maybe(superseded), maybe(revoked)
	return nil
}

func maybe(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := moment(ms.Int64)
	return &t
}

// certificateBy reads the certificate whose column, a constant of this package, holds value.
func certificateBy(ctx context.Context, tx *txn, column string, value any) (Certificate, error) {
	var c Certificate
	err := scanCertificate(tx.QueryRow(ctx, selectCertificates+"WHERE c."+column+" = ?", value).Scan, &c)
	return c, err
}

// Certificates returns a node's certificates, newest first.
func (d *DB) Certificates(ctx context.Context, nodeID string) ([]Certificate, error) {
	rows, err := d.read.Query(ctx, selectCertificates+"WHERE c.node_id = ? ORDER BY c.rowid DESC", nodeID)
	list, err := collect(rows, err, func(rows *sql.Rows, c *Certificate) error { return scanCertificate(rows.Scan, c) })
	return list, d.explain(err)
}

// Standing is what is on file about a presented certificate.
type Standing struct {
	NodeID        string
	NodeName      string
	Architecture  string
	Active        bool
	CertificateID string
	Serial        string
	NotAfter      time.Time
	Revoked       bool
	Superseded    bool
	// Used says that a request was made by it before: see FirstUse.
	Used bool
}

// Standing looks up the certificate of that fingerprint, or returns ErrNotFound.
func (d *DB) Standing(ctx context.Context, fingerprint [32]byte) (Standing, error) {
	var s Standing
	var after int64
	err := d.read.QueryRow(ctx, `SELECT n.id, n.name, n.architecture, n.state = 'active', c.id, c.serial, c.not_after,
		c.revoked_at IS NOT NULL, c.superseded_at IS NOT NULL, c.used_at IS NOT NULL
		FROM certificates c JOIN nodes n ON n.id = c.node_id WHERE c.fingerprint = ?`, fingerprint[:]).
		Scan(&s.NodeID, &s.NodeName, &s.Architecture, &s.Active, &s.CertificateID, &s.Serial, &after, &s.Revoked, &s.Superseded, &s.Used)
	s.NotAfter = moment(after)
	return s, d.explain(err)
}

// FirstUse notes that a request was made by a certificate, and supersedes the ones before it: they
// were good only until this one had reached its node. It is judged again in the same transaction, since
// another one may have ended the certificate meanwhile: ErrRevoked, ErrSuperseded or ErrExpired.
func (d *DB) FirstUse(ctx context.Context, certificateID, from string) error {
	nodeID, err := d.nodeOf(ctx, "SELECT node_id FROM certificates WHERE id = ?", certificateID)
	if err != nil {
		return err
	}
	var ended error
	err = d.updateOf(ctx, nodeID, func(tx *txn) error {
		cert, err := certificateBy(ctx, tx, "id", certificateID)
		if err != nil {
			return err
		}
		if ended = cert.Ended(d.now()); ended != nil || cert.UsedAt != nil {
			return nil //nolint:nilerr // what was decided stands, and is returned below
		}
		now := millis(d.now())
		if _, err := tx.Exec(ctx, "UPDATE certificates SET used_at = ? WHERE id = ?", now, cert.ID); err != nil {
			return err
		}
		// By rowid: several may be of one millisecond.
		n, err := tx.Exec(ctx, `UPDATE certificates SET superseded_at = ?1 WHERE node_id = ?2 AND superseded_at IS NULL
			AND revoked_at IS NULL AND rowid < (SELECT rowid FROM certificates WHERE id = ?3)`, now, cert.NodeID, cert.ID)
		if err != nil || n == 0 {
			return err
		}
		return d.event(ctx, tx, EventSuperseded, cert.NodeID, "certificate "+cert.Serial+" is in use from "+from+"; the one before it is superseded")
	})
	if err != nil {
		return err
	}
	return ended
}

// OperatorHash returns the SHA-256 of the operator token, or ErrNotFound before there is one.
func (d *DB) OperatorHash(ctx context.Context) ([]byte, error) {
	var hash []byte
	err := d.read.QueryRow(ctx, "SELECT token_hash FROM operator WHERE one = 1").Scan(&hash)
	return hash, d.explain(err)
}

// SetOperatorHash replaces the SHA-256 of the operator token, or, where first says so, sets it if there is none, and
// reports whether it did.
func (d *DB) SetOperatorHash(ctx context.Context, hash [32]byte, first bool) (set bool, err error) {
	query := `INSERT INTO operator (one, token_hash, created_at) VALUES (1, ?, ?) ON CONFLICT (one) DO `
	if first {
		query += "NOTHING"
	} else {
		query += "UPDATE SET token_hash = excluded.token_hash, created_at = excluded.created_at"
	}
	err = d.update(ctx, func(tx *txn) error {
		n, err := tx.Exec(ctx, query, hash[:], millis(d.now()))
		set = n > 0
		return err
	})
	return set && err == nil, err
}
