package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Errors by which an enrollment is refused. A stranger isn't told which; the operator is, by an event.
var (
	ErrTokenUnknown  = errors.New("the token is unknown")
	ErrTokenExpired  = errors.New("the token has expired")
	ErrTokenUsed     = errors.New("the token was used by another key")
	ErrTokenMismatch = errors.New("the token belongs to another node")
	ErrTokenRevoked  = errors.New("the token's certificate is no longer good")
	ErrNodeInactive  = errors.New("the node isn't active")
	ErrArchitecture  = errors.New("the node is of another architecture")
)

// Enrollment is what a node asks for, after its request was checked.
type Enrollment struct {
	Token string
	// KeyHash tells the node's public key from others.
	KeyHash [32]byte
	// NodeID is what the node believes to be, or "".
	NodeID string
	// Architecture is the node's own, or "".
	Architecture string
	// From is the network address that the request came from.
	From  string
	Issue IssueFunc
}

// CreateToken keeps the hash of a bootstrap token for a node.
func (d *DB) CreateToken(ctx context.Context, nodeID, token string, ttl time.Duration) (expires time.Time, err error) {
	now := d.now()
	hash := sha256.Sum256([]byte(token))
	expires = moment(millis(now.Add(ttl)))
	return expires, d.updateOf(ctx, nodeID, func(tx *txn) error {
		if _, err := tx.Exec(ctx, "INSERT INTO tokens (id, node_id, hash, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
			NewID(), nodeID, hash[:], millis(now), millis(expires)); err != nil {
			return err
		}
		return d.event(ctx, tx, EventTokenCreated, nodeID, "bootstrap token, good until "+expires.Format(time.RFC3339))
	})
}

// Enroll exchanges a token for a certificate: in one transaction the token is used up and the
// certificate put on file. The same token with the same key gives the same certificate again,
// also after the token's own life, for nodes whose answer was lost. Every other token ends in one
// of the errors above, with an event for those that name a node.
func (d *DB) Enroll(ctx context.Context, in Enrollment) (Certificate, error) {
	hash := sha256.Sum256([]byte(in.Token))
	nodeID, err := d.nodeOf(ctx, "SELECT node_id FROM tokens WHERE hash = ?", hash[:])
	switch {
	case errors.Is(err, ErrNotFound):
		return Certificate{}, ErrTokenUnknown
	case err != nil:
		return Certificate{}, err
	}
	var cert Certificate
	var refused error
	err = d.updateOf(ctx, nodeID, func(tx *txn) error {
		var t tokenRow
		t, refused = d.judge(ctx, tx, in)
		switch {
		case errors.Is(refused, ErrTokenUnknown):
			return nil
		case isRefusal(refused):
			return d.event(ctx, tx, EventEnrollRefused, t.nodeID, "enrollment from "+in.From+" refused: "+refused.Error())
		case refused != nil:
			return refused
		case t.certificateID.Valid:
			var err error
			cert, err = certificateBy(ctx, tx, "id", t.certificateID.String)
			return err
		}
		var err error
		cert, err = d.useToken(ctx, tx, t, in)
		return err
	})
	if err != nil {
		return Certificate{}, err
	}
	return cert, refused
}

func isRefusal(err error) bool {
	for _, r := range []error{ErrTokenUnknown, ErrTokenExpired, ErrTokenUsed, ErrTokenMismatch, ErrTokenRevoked, ErrNodeInactive, ErrArchitecture} {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}

// tokenRow is a token with the node that it belongs to and the certificate that it was used for.
type tokenRow struct {
	id, nodeID, architecture string
	active                   bool
	expires                  int64
	certificateID            sql.NullString
}

// judge finds the token and says whether it may be used: nil, one of the refusals, or what went wrong.
func (d *DB) judge(ctx context.Context, tx *txn, in Enrollment) (tokenRow, error) {
	var t tokenRow
	hash := sha256.Sum256([]byte(in.Token))
	err := tx.QueryRow(ctx, `SELECT t.id, t.node_id, n.architecture, n.state = 'active', t.expires_at, t.certificate_id
		FROM tokens t JOIN nodes n ON n.id = t.node_id WHERE t.hash = ?`, hash[:]).
		Scan(&t.id, &t.nodeID, &t.architecture, &t.active, &t.expires, &t.certificateID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t, ErrTokenUnknown
	case err != nil:
		return t, err
	case !t.active:
		return t, ErrNodeInactive
	case in.NodeID != "" && in.NodeID != t.nodeID:
		return t, ErrTokenMismatch
	case t.certificateID.Valid:
		cert, err := certificateBy(ctx, tx, "id", t.certificateID.String)
		switch {
		case err != nil:
			return t, err
		case cert.KeyHash != in.KeyHash:
			return t, ErrTokenUsed
		case cert.Ended(d.now()) != nil:
			return t, ErrTokenRevoked
		}
		return t, nil
	case !d.now().Before(moment(t.expires)):
		return t, ErrTokenExpired
	case in.Architecture != "" && t.architecture != "" && in.Architecture != t.architecture:
		return t, fmt.Errorf("%w: %s, and it enrolls as %s", ErrArchitecture, t.architecture, in.Architecture)
	}
	return t, nil
}

// useToken issues the certificate, files it, and revokes those that the node had before: a new
// token means that the node begins anew, and whoever holds an older key is no longer it.
func (d *DB) useToken(ctx context.Context, tx *txn, t tokenRow, in Enrollment) (Certificate, error) {
	cert, err := in.Issue(t.nodeID)
	if err != nil {
		return Certificate{}, err
	}
	now := millis(d.now())
	revoked, err := tx.Exec(ctx, "UPDATE certificates SET revoked_at = ? WHERE node_id = ? AND revoked_at IS NULL", now, t.nodeID)
	if err != nil {
		return Certificate{}, err
	}
	cert.NodeID, cert.KeyHash, cert.Origin = t.nodeID, in.KeyHash, OriginEnroll
	if cert, err = d.file(ctx, tx, cert); err != nil {
		return Certificate{}, err
	}
	for _, stmt := range []struct {
		query string
		args  []any
	}{
		{"UPDATE tokens SET used_at = ?, certificate_id = ? WHERE id = ?", []any{now, cert.ID, t.id}},
		{"UPDATE nodes SET architecture = ? WHERE id = ? AND architecture = ''", []any{in.Architecture, t.nodeID}},
		{"DELETE FROM renewals WHERE node_id = ?", []any{t.nodeID}},
	} {
		if _, err := tx.Exec(ctx, stmt.query, stmt.args...); err != nil {
			return Certificate{}, err
		}
	}
	if err := forgetMachines(ctx, tx, t.nodeID); err != nil {
		return Certificate{}, err
	}
	text := "enrolled from " + in.From + ", certificate " + cert.Serial
	if revoked > 0 {
		text += fmt.Sprintf(", %d earlier revoked", revoked)
	}
	return cert, d.event(ctx, tx, EventEnrolled, t.nodeID, text)
}
