package db

import (
	"context"
	"database/sql"
	"errors"
)

// Manifest is what the registry's index knows of one manifest in a repository.
type Manifest struct {
	Repository string
	Digest     string
	Size       int64
	MediaType  string
	// Subject is the digest of the manifest that this one refers to, or "".
	Subject      string
	ArtifactType string
	// Annotations is the manifest's annotations as JSON, kept for those with a subject.
	Annotations string

	// Parts is what the repository must hold when the manifest is put. It isn't kept.
	Parts Parts
	// Extends is the digest of a manifest that this one holds all of, or "": a tag that attaches that one to a registered module
	// may move here. It isn't kept.
	Extends string
}

// LinkBlob puts a blob, whose bytes are durable, into a repository.
func (d *DB) LinkBlob(ctx context.Context, repository, digest string, size int64) error {
	return d.updateOf(ctx, repository, func(tx *txn) error {
		_, err := tx.Exec(ctx, "INSERT INTO registry_blobs (repository, digest, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", repository, digest, size)
		return err
	})
}

// Blob returns the size of a repository's blob, or ErrNotFound.
func (d *DB) Blob(ctx context.Context, repository, digest string) (int64, error) {
	var size int64
	err := d.read.QueryRow(ctx, "SELECT size FROM registry_blobs WHERE repository = ? AND digest = ?", repository, digest).Scan(&size)
	return size, d.explain(err)
}

// Missing returns those of blobs and manifests that a repository doesn't hold.
func (d *DB) Missing(ctx context.Context, repository string, blobs, manifests []string) ([]string, error) {
	var missing []string
	err := d.view(ctx, func(tx *txn) (err error) {
		missing, err = missingOf(ctx, tx, repository, Parts{Blobs: blobs, Manifests: manifests})
		return err
	})
	return missing, err
}

func missingOf(ctx context.Context, tx *txn, repository string, parts Parts) (missing []string, err error) {
	for _, list := range []struct {
		query   string
		digests []string
	}{
		{"SELECT 1 FROM registry_blobs WHERE repository = ? AND digest = ?", parts.Blobs},
		{"SELECT 1 FROM registry_manifests WHERE repository = ? AND digest = ?", parts.Manifests},
	} {
		for _, digest := range list.digests {
			var one int
			switch err := tx.QueryRow(ctx, list.query, repository, digest).Scan(&one); {
			case errors.Is(err, sql.ErrNoRows):
				missing = append(missing, digest)
			case err != nil:
				return nil, err
			}
		}
	}
	return missing, nil
}

// PutManifest puts a manifest, whose bytes are durable, into its repository, and moves the tag
// to it unless tag is "". A *MissingError says that not all of its parts are there, a *TagHeldError that the tag attaches to a registered
// module what m doesn't extend.
func (d *DB) PutManifest(ctx context.Context, m Manifest, tag string) error {
	return d.updateOf(ctx, m.Repository, func(tx *txn) error {
		if err := holds(ctx, tx, m.Repository, m.Parts); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO registry_manifests (repository, digest, size, media_type, subject, artifact_type, annotations)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			m.Repository, m.Digest, m.Size, m.MediaType, m.Subject, m.ArtifactType, m.Annotations); err != nil {
			return err
		}
		if tag == "" {
			return nil
		}
		if err := mayMove(ctx, tx, m, tag); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO registry_tags (repository, tag, digest) VALUES (?, ?, ?)
			ON CONFLICT (repository, tag) DO UPDATE SET digest = excluded.digest`, m.Repository, tag, m.Digest)
		return err
	})
}

const selectManifests = "SELECT m.repository, m.digest, m.size, m.media_type, m.subject, m.artifact_type, m.annotations FROM registry_manifests m "

func scanManifest(rows *sql.Rows, m *Manifest) error {
	return rows.Scan(&m.Repository, &m.Digest, &m.Size, &m.MediaType, &m.Subject, &m.ArtifactType, &m.Annotations)
}

// Manifest returns the repository's manifest of that digest or that tag, or ErrNotFound. No tag
// looks like a digest: it holds no colon.
func (d *DB) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	rows, err := d.read.Query(ctx, selectManifests+`WHERE m.repository = ?1 AND m.digest =
		coalesce((SELECT digest FROM registry_tags WHERE repository = ?1 AND tag = ?2), ?2)`, repository, reference)
	list, err := collect(rows, err, scanManifest)
	switch {
	case err != nil:
		return Manifest{}, d.explain(err)
	case len(list) == 0:
		return Manifest{}, ErrNotFound
	}
	return list[0], nil
}

// Tags returns a repository's tags in byte order, those after last, at most limit.
func (d *DB) Tags(ctx context.Context, repository, last string, limit int) ([]string, error) {
	rows, err := d.read.Query(ctx, "SELECT tag FROM registry_tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?", repository, last, limit)
	list, err := collect(rows, err, func(rows *sql.Rows, s *string) error { return rows.Scan(s) })
	return list, d.explain(err)
}

// Repositories returns the names of repositories with a manifest in byte order, those after last, at most limit.
func (d *DB) Repositories(ctx context.Context, last string, limit int) ([]string, error) {
	rows, err := d.read.Query(ctx, "SELECT DISTINCT repository FROM registry_manifests WHERE repository > ? ORDER BY repository LIMIT ?", last, limit)
	list, err := collect(rows, err, func(rows *sql.Rows, s *string) error { return rows.Scan(s) })
	return list, d.explain(err)
}

// HasRepository reports whether a repository holds anything.
func (d *DB) HasRepository(ctx context.Context, repository string) (bool, error) {
	var has bool
	err := d.read.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM registry_manifests WHERE repository = ?1)
		OR EXISTS (SELECT 1 FROM registry_blobs WHERE repository = ?1)`, repository).Scan(&has)
	return has, d.explain(err)
}

// Referrers returns the manifests whose subject is that digest, by digest, those after last, at
// most limit; of one artifact type, or of all where artifactType is "".
func (d *DB) Referrers(ctx context.Context, repository, subject, artifactType, last string, limit int) ([]Manifest, error) {
	rows, err := d.read.Query(ctx, selectManifests+`WHERE m.repository = ?1 AND m.subject = ?2 AND m.subject <> ''
		AND (?3 = '' OR m.artifact_type = ?3) AND m.digest > ?4 ORDER BY m.digest LIMIT ?5`, repository, subject, artifactType, last, limit)
	list, err := collect(rows, err, scanManifest)
	return list, d.explain(err)
}
