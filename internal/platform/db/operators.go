package db

import (
	"context"
	"database/sql"
	"time"
)

// FirstOperator is the name of the token that the platform makes at its first start, and that its credential file holds. It is an
// admin's, and isn't among those that are made and revoked: so nobody can lock everybody out.
const FirstOperator = "operator"

// firstRole is FirstOperator's role.
const firstRole = "admin"

// maxOperators bounds the tokens that there are beside the first.
const maxOperators = 256

// Operator is one operator's token. The token itself isn't kept.
type Operator struct {
	Name      string
	Role      string
	CreatedAt time.Time
	CreatedBy string // "" of the first
}

const selectOperators = `SELECT '` + FirstOperator + `' AS name, '` + firstRole + `' AS role, token_hash, created_at, '' AS created_by FROM operator
	UNION ALL SELECT name, role, token_hash, created_at, created_by FROM operator_tokens`

// OperatorByHash returns the operator whose token has that SHA-256, or ErrNotFound. It looks each time: a token that was revoked
// stops working at once. That the database compares hashes byte by byte tells nobody of a token.
func (d *DB) OperatorByHash(ctx context.Context, hash [32]byte) (Operator, error) {
	var o Operator
	var created int64
	err := d.read.QueryRow(ctx, "SELECT name, role, created_at, created_by FROM ("+selectOperators+") AS operators WHERE token_hash = ?", hash[:]).
		Scan(&o.Name, &o.Role, &created, &o.CreatedBy)
	o.CreatedAt = moment(created)
	return o, d.explain(err)
}

// Operators returns all, the first and then the others by name.
func (d *DB) Operators(ctx context.Context) ([]Operator, error) {
	rows, err := d.read.Query(ctx, "SELECT name, role, created_at, created_by FROM ("+selectOperators+") AS operators ORDER BY created_by <> '', name")
	list, err := collect(rows, err, func(rows *sql.Rows, o *Operator) error {
		var created int64
		err := rows.Scan(&o.Name, &o.Role, &created, &o.CreatedBy)
		o.CreatedAt = moment(created)
		return err
	})
	return list, d.explain(err)
}

// CreateOperator keeps a token's SHA-256. ErrExists says that the name is taken, ErrTooMany that there are too many.
func (d *DB) CreateOperator(ctx context.Context, o Operator, hash [32]byte) (Operator, error) {
	o.CreatedAt = moment(millis(d.now()))
	if o.Name == FirstOperator {
		return o, ErrExists
	}
	return o, d.update(ctx, func(tx *txn) error {
		var n int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM operator_tokens").Scan(&n); err != nil {
			return err
		}
		if n >= maxOperators {
			return ErrTooMany
		}
		_, err := tx.Exec(ctx, "INSERT INTO operator_tokens (name, role, token_hash, created_at, created_by) VALUES (?, ?, ?, ?, ?)",
			o.Name, o.Role, hash[:], millis(o.CreatedAt), o.CreatedBy)
		return err
	})
}

// RevokeOperator forgets a token, or returns ErrNotFound.
func (d *DB) RevokeOperator(ctx context.Context, name string) error {
	return d.update(ctx, func(tx *txn) error {
		n, err := tx.Exec(ctx, "DELETE FROM operator_tokens WHERE name = ?", name)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}
