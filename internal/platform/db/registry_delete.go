package db

import (
	"context"
	"database/sql"
	"errors"
)

// ErrInUse says that a registered module is made of what should go.
var ErrInUse = errors.New("a registered module is made of it")

// DeleteTag deletes a tag of a repository; what it named stays. ErrNotFound says that there is none.
func (d *DB) DeleteTag(ctx context.Context, repository, tag string) error {
	return d.updateOf(ctx, repository, func(tx *txn) error {
		return gone(tx.Exec(ctx, "DELETE FROM registry_tags WHERE repository = ? AND tag = ?", repository, tag))
	})
}

// DeleteManifest takes a manifest and its tags out of a repository. ErrInUse says that it is a registered module's, of any
// version, or refers to one as its signatures do; ErrNotFound that it isn't there.
func (d *DB) DeleteManifest(ctx context.Context, repository, digest string) error {
	return d.updateOf(ctx, repository, func(tx *txn) error {
		var used bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM versions v LEFT JOIN images i ON i.version_id = v.id WHERE v.repository = ?1 AND (
			v.digest = ?2 OR i.manifest_digest = ?2 OR EXISTS (SELECT 1 FROM registry_manifests m
				WHERE m.repository = ?1 AND m.digest = ?2 AND m.subject IN (v.digest, i.manifest_digest))))`, repository, digest).Scan(&used); err != nil {
			return err
		}
		if used {
			return ErrInUse
		}
		if _, err := tx.Exec(ctx, "DELETE FROM registry_tags WHERE repository = ? AND digest = ?", repository, digest); err != nil {
			return err
		}
		return gone(tx.Exec(ctx, "DELETE FROM registry_manifests WHERE repository = ? AND digest = ?", repository, digest))
	})
}

// DeleteBlob takes a blob out of a repository. ErrNotFound says that it isn't there.
func (d *DB) DeleteBlob(ctx context.Context, repository, digest string) error {
	return d.updateOf(ctx, repository, func(tx *txn) error {
		return gone(tx.Exec(ctx, "DELETE FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest))
	})
}

// RegisteredImages returns the digests of the image manifests in a repository that registered modules have, of every version.
func (d *DB) RegisteredImages(ctx context.Context, repository string) ([]string, error) {
	rows, err := d.read.Query(ctx, "SELECT DISTINCT i.manifest_digest FROM versions v JOIN images i ON i.version_id = v.id WHERE v.repository = ?", repository)
	list, err := collect(rows, err, func(rows *sql.Rows, s *string) error { return rows.Scan(s) })
	return list, d.explain(err)
}

// gone turns a deletion of nothing into ErrNotFound.
func gone(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}
