package db

import (
	"context"
	"errors"
)

// ErrInUse says that a registered module is made of what should go, or something attached to it is.
var ErrInUse = errors.New("a registered module is made of it")

// deletion runs fn in one transaction with what must stay in a repository. The manifests are read before it keeps others waiting; within, it is
// those that came in between.
func (d *DB) deletion(ctx context.Context, repository string, parts PartsOf, fn func(tx *txn, k kept) error) error {
	known := map[string]Parts{}
	once := func(digest string) (Parts, error) {
		if of, ok := known[digest]; ok {
			return of, nil
		}
		of, err := parts(digest)
		if err == nil {
			known[digest] = of
		}
		return of, err
	}
	if err := d.view(ctx, func(tx *txn) error {
		_, err := keptOf(ctx, tx, repository, once)
		return err
	}); err != nil {
		return err
	}
	return d.updateOf(ctx, repository, func(tx *txn) error {
		k, err := keptOf(ctx, tx, repository, once)
		if err != nil {
			return err
		}
		return fn(tx, k)
	})
}

// DeleteTag deletes a tag of a repository; what it named stays. ErrInUse says that it attaches something to a registered module, as
// signatures are; ErrNotFound that there is none.
func (d *DB) DeleteTag(ctx context.Context, repository, tag string, parts PartsOf) error {
	return d.deletion(ctx, repository, parts, func(tx *txn, k kept) error {
		if k.tag(tag) {
			return ErrInUse
		}
		return gone(tx.Exec(ctx, "DELETE FROM registry_tags WHERE repository = ? AND tag = ?", repository, tag))
	})
}

// DeleteManifest takes a manifest and its tags out of a repository. ErrInUse says that it is a registered module's, of any
// version, or attached to one as its signatures are; ErrNotFound that it isn't there.
func (d *DB) DeleteManifest(ctx context.Context, repository, digest string, parts PartsOf) error {
	return d.deletion(ctx, repository, parts, func(tx *txn, k kept) error {
		if k.manifests[digest] {
			return ErrInUse
		}
		if _, err := tx.Exec(ctx, "DELETE FROM registry_tags WHERE repository = ? AND digest = ?", repository, digest); err != nil {
			return err
		}
		return gone(tx.Exec(ctx, "DELETE FROM registry_manifests WHERE repository = ? AND digest = ?", repository, digest))
	})
}

// DeleteBlob takes a blob out of a repository. ErrInUse says that a registered module, or what is attached to one, is made of it;
// ErrNotFound that it isn't there.
func (d *DB) DeleteBlob(ctx context.Context, repository, digest string, parts PartsOf) error {
	return d.deletion(ctx, repository, parts, func(tx *txn, k kept) error {
		if k.blobs[digest] {
			return ErrInUse
		}
		return gone(tx.Exec(ctx, "DELETE FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest))
	})
}

// gone turns a deletion of nothing into ErrNotFound.
func gone(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}
