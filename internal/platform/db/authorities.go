package db

import (
	"context"
	"database/sql"
	"errors"
)

// AuthoritiesTopic is what Watch tells changes of Authorities by.
const AuthoritiesTopic = "authorities"

// Authorities is what platforms over one database have in common of their certificate authority.
type Authorities struct {
	// Version grows by one with each change; 0 is none yet.
	Version int64
	// Origin tells one platform's authorities from another's.
	Origin string
	// Sealed is the authorities with their keys, encrypted; nil where they aren't shared.
	Sealed []byte
}

const selectAuthorities = "SELECT version, origin, sealed FROM authorities WHERE one = 1"

func readAuthorities(row *sql.Row) (Authorities, error) {
	var a Authorities
	err := row.Scan(&a.Version, &a.Origin, &a.Sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return Authorities{}, nil
	}
	return a, err
}

// Authorities returns what is kept.
func (d *DB) Authorities(ctx context.Context) (Authorities, error) {
	a, err := readAuthorities(d.read.QueryRow(ctx, selectAuthorities))
	return a, d.explain(err)
}

// ChangeAuthorities puts what change makes of what is kept in its place, where its Version is another, and tells
// AuthoritiesTopic. No other platform changes them meanwhile.
func (d *DB) ChangeAuthorities(ctx context.Context, change func(was Authorities) (Authorities, error)) error {
	return d.update(ctx, func(tx *txn) error {
		was, err := readAuthorities(tx.QueryRow(ctx, selectAuthorities))
		if err != nil {
			return err
		}
		now, err := change(was)
		if err != nil || now.Version == was.Version {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO authorities (one, version, origin, sealed) VALUES (1, ?, ?, ?)
			ON CONFLICT (one) DO UPDATE SET version = excluded.version, origin = excluded.origin, sealed = excluded.sealed`,
			now.Version, now.Origin, now.Sealed); err != nil {
			return err
		}
		return tx.notify(ctx, AuthoritiesTopic)
	})
}
