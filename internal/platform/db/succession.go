package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Errors by which a node gets no further certificate.
var (
	ErrKeyUsed = errors.New("the key has had a certificate already")
	ErrTooMany = errors.New("the node had too many certificates of late")
)

// Bounds of what one node can put on file.
const (
	// keptCertificates is how many certificates of a node are kept, but for those that are in force or
	// that a token was exchanged for. An older one isn't on file any more, and so is worth nothing.
	keptCertificates = 64
	// successorsPerHour is how many certificates an hour a node may get by refresh and renewal.
	successorsPerHour = 30
)

// IssueFunc makes a certificate for the node of that ID. It is called within the transaction that
// files it, and only then.
type IssueFunc func(nodeID string) (Certificate, error)

// Refresh is a node's request for the successor of the certificate that it presented.
type Refresh struct {
	// Presented is the ID of that certificate.
	Presented string
	// KeyHash tells the successor's public key from others.
	KeyHash [32]byte
	// From is the network address that the request came from.
	From  string
	Issue IssueFunc
}

// Refresh gives the presented certificate a successor, and revokes those that it was given before and that
// nobody has used. The same key again gets the same certificate. The presented one stays good until the
// successor's FirstUse. It ends in the errors of Certificate.Ended, ErrNodeInactive, ErrKeyUsed or ErrTooMany.
func (d *DB) Refresh(ctx context.Context, in Refresh) (Certificate, error) {
	nodeID, err := d.nodeOf(ctx, "SELECT node_id FROM certificates WHERE id = ?", in.Presented)
	if err != nil {
		return Certificate{}, err
	}
	var cert Certificate
	err = d.updateOf(ctx, nodeID, func(tx *txn) error {
		presented, err := activeCertificate(ctx, tx, "id", in.Presented)
		if err != nil {
			return err
		}
		if err := presented.Ended(d.now()); err != nil {
			return err
		}
		cert, err = d.succeed(ctx, tx, succession{presented, OriginRefresh, in.KeyHash, in.From, in.Issue})
		return err
	})
	return cert, err
}

// activeCertificate reads the certificate whose column holds value, or returns ErrNodeInactive.
func activeCertificate(ctx context.Context, tx *txn, column string, value any) (Certificate, error) {
	cert, err := certificateBy(ctx, tx, column, value)
	if err != nil {
		return cert, err
	}
	var active bool
	if err := tx.QueryRow(ctx, "SELECT state = 'active' FROM nodes WHERE id = ?", cert.NodeID).Scan(&active); err != nil {
		return cert, err
	}
	if !active {
		return cert, ErrNodeInactive
	}
	return cert, nil
}

// succession is one certificate that takes the place of another.
type succession struct {
	before  Certificate
	origin  Origin
	keyHash [32]byte
	from    string
	issue   IssueFunc
}

// succeed returns the certificate that the key has, or issues one.
func (d *DB) succeed(ctx context.Context, tx *txn, s succession) (Certificate, error) {
	if cert, err := d.ofKey(ctx, tx, s.before.NodeID, s.keyHash); err != nil || cert.ID != "" {
		return cert, err
	}
	now := d.now()
	var recent int
	err := tx.QueryRow(ctx, "SELECT count(*) FROM certificates WHERE node_id = ? AND origin <> 'enroll' AND created_at > ?",
		s.before.NodeID, millis(now.Add(-time.Hour))).Scan(&recent)
	if err != nil {
		return Certificate{}, err
	}
	if recent >= successorsPerHour {
		return Certificate{}, ErrTooMany
	}
	dropped, err := tx.Exec(ctx, `UPDATE certificates SET revoked_at = ? WHERE node_id = ? AND id <> ? AND origin <> 'enroll'
		AND used_at IS NULL AND superseded_at IS NULL AND revoked_at IS NULL`, millis(now), s.before.NodeID, s.before.ID)
	if err != nil {
		return Certificate{}, err
	}
	cert, err := s.issue(s.before.NodeID)
	if err != nil {
		return Certificate{}, err
	}
	cert.NodeID, cert.KeyHash, cert.Origin = s.before.NodeID, s.keyHash, s.origin
	if cert, err = d.file(ctx, tx, cert); err != nil {
		return Certificate{}, err
	}
	kind, verb := EventRefreshed, "refreshed"
	if s.origin == OriginRenew {
		kind, verb = EventRenewed, "renewed"
	}
	text := fmt.Sprintf("%s from %s: certificate %s follows %s", verb, s.from, cert.Serial, s.before.Serial)
	if dropped > 0 {
		text += fmt.Sprintf(", %d that nobody had used revoked", dropped)
	}
	return cert, d.nodeEvent(ctx, tx, kind, cert.NodeID, text)
}

// ofKey returns the node's certificate for that key where it is good, and the zero Certificate where the
// key is new. A key has one certificate in its life, lest an ended one comes back with it; but one that
// ended by time before anyone used it harmed nobody.
func (d *DB) ofKey(ctx context.Context, tx *txn, nodeID string, keyHash [32]byte) (Certificate, error) {
	rows, err := tx.Query(ctx, selectCertificates+"WHERE c.key_hash = ? ORDER BY c.rowid DESC", keyHash[:])
	list, err := collect(rows, err, func(rows *sql.Rows, c *Certificate) error { return scanCertificate(rows.Scan, c) })
	if err != nil {
		return Certificate{}, err
	}
	for _, c := range list {
		ended := c.Ended(d.now())
		switch {
		case c.NodeID != nodeID:
			return Certificate{}, ErrKeyUsed
		case ended == nil:
			return c, nil
		case !errors.Is(ended, ErrExpired) || c.UsedAt != nil || c.Origin == OriginEnroll:
			return Certificate{}, ErrKeyUsed
		}
	}
	return Certificate{}, nil
}

// file puts a certificate on file, and drops the oldest of its node that are of no use.
func (d *DB) file(ctx context.Context, tx *txn, c Certificate) (Certificate, error) {
	c.ID = NewID()
	_, err := tx.Exec(ctx, `INSERT INTO certificates (id, node_id, serial, fingerprint, key_hash, pem, not_before, not_after, created_at, origin)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.ID, c.NodeID, c.Serial, c.Fingerprint[:], c.KeyHash[:], c.PEM, millis(c.NotBefore), millis(c.NotAfter), millis(d.now()), c.Origin)
	if err != nil {
		return Certificate{}, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM certificates WHERE node_id = ?1 AND (revoked_at IS NOT NULL OR superseded_at IS NOT NULL)
		AND id NOT IN (SELECT certificate_id FROM tokens WHERE node_id = ?1 AND certificate_id IS NOT NULL)
		AND rowid <= (SELECT rowid FROM certificates WHERE node_id = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)`, c.NodeID, keptCertificates)
	return c, err
}
