package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Parts is what a manifest refers to, by digest: blobs, and manifests where it is an index.
type Parts struct{ Blobs, Manifests []string }

// PartsOf tells what the manifest of that digest is made of, which its repository holds. It is called within transactions, and
// so doesn't ask the database.
type PartsOf func(digest string) (Parts, error)

// MissingError says that a manifest is made of what its repository doesn't hold.
type MissingError struct{ Repository, Digest string }

// Error names what is missing.
func (e *MissingError) Error() string { return e.Repository + " lacks " + e.Digest }

// TagHeldError says that a tag by which something is attached to a registered module can't leave the manifest that it names.
type TagHeldError struct{ Tag, Former string }

// Error names the tag.
func (e *TagHeldError) Error() string {
	return fmt.Sprintf("%s is attached to a registered module, as %s", e.Tag, e.Former)
}

// attachedTo returns what the tags begin with that attach something to a manifest: all of the tag in the referrers tag schema of the
// distribution specification 1.1, and what stands before ".sig", ".att" and ".sbom" in cosign's.
func attachedTo(digest string) string {
	algorithm, encoded, _ := strings.Cut(digest, ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// attachment returns what attachedTo returned for the manifest that a tag is attached to, if it is to any.
func attachment(tag string) string {
	base, _, _ := strings.Cut(tag, ".")
	return base
}

// selectRegistered finds the manifests of registered modules of all versions in a repository: their indexes and their images.
const selectRegistered = `SELECT v.digest FROM versions v WHERE v.repository = ?1
	UNION SELECT i.manifest_digest FROM versions v JOIN images i ON i.version_id = v.id WHERE v.repository = ?1`

func scanString(rows *sql.Rows, s *string) error { return rows.Scan(s) }

// kept is what a repository must go on holding for the sake of registered modules: they themselves, what they are made of, and what is
// attached to any of it, as signatures and attestations are, by its subject or by a tag, with all that it is made of in turn.
type kept struct{ manifests, blobs, attached map[string]bool }

// tag reports whether a tag attaches something to what is kept.
func (k kept) tag(tag string) bool { return k.attached[attachment(tag)] }

func keptOf(ctx context.Context, tx *txn, repository string, parts PartsOf) (kept, error) {
	k := kept{manifests: map[string]bool{}, blobs: map[string]bool{}, attached: map[string]bool{}}
	rows, err := tx.Query(ctx, selectRegistered, repository)
	next, err := collect(rows, err, scanString)
	if err != nil || len(next) == 0 {
		return k, err
	}
	held, attached, err := attachments(ctx, tx, repository)
	if err != nil {
		return k, err
	}
	for len(next) > 0 {
		digest := next[len(next)-1]
		next = next[:len(next)-1]
		if k.manifests[digest] {
			continue
		}
		k.manifests[digest], k.attached[attachedTo(digest)] = true, true
		next = append(next, attached[digest]...)
		next = append(next, attached[attachedTo(digest)]...)
		if !held[digest] {
			continue // registered while the modules were in another registry
		}
		of, err := parts(digest)
		if err != nil {
			return k, err
		}
		for _, blob := range of.Blobs {
			k.blobs[blob] = true
		}
		next = append(next, of.Manifests...)
	}
	return k, nil
}

// attachments returns the manifests that a repository holds, and which of them are attached to what: by its digest, or by attachedTo of it.
func attachments(ctx context.Context, tx *txn, repository string) (held map[string]bool, attached map[string][]string, err error) {
	type pair struct{ name, digest string }
	scan := func(rows *sql.Rows, p *pair) error { return rows.Scan(&p.name, &p.digest) }
	rows, err := tx.Query(ctx, "SELECT subject, digest FROM registry_manifests WHERE repository = ?", repository)
	manifests, err := collect(rows, err, scan)
	if err != nil {
		return nil, nil, err
	}
	rows, err = tx.Query(ctx, "SELECT tag, digest FROM registry_tags WHERE repository = ? AND tag LIKE 'sha%-%'", repository)
	tags, err := collect(rows, err, scan)
	if err != nil {
		return nil, nil, err
	}
	held, attached = map[string]bool{}, map[string][]string{}
	for _, m := range manifests {
		held[m.digest] = true
		if m.name != "" {
			attached[m.name] = append(attached[m.name], m.digest)
		}
	}
	for _, t := range tags {
		attached[attachment(t.name)] = append(attached[attachment(t.name)], t.digest)
	}
	return held, attached, nil
}

// holds returns a *MissingError unless a repository holds those parts.
func holds(ctx context.Context, tx *txn, repository string, parts Parts) error {
	missing, err := missingOf(ctx, tx, repository, parts)
	if err == nil && len(missing) > 0 {
		err = &MissingError{repository, missing[0]}
	}
	return err
}

// mayMove returns a *TagHeldError if a tag attaches something else than m and what m extends to a registered module.
func mayMove(ctx context.Context, tx *txn, m Manifest, tag string) error {
	var former string
	err := tx.QueryRow(ctx, "SELECT digest FROM registry_tags WHERE repository = ? AND tag = ?", m.Repository, tag).Scan(&former)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && (former == m.Digest || former == m.Extends):
		return nil
	case err != nil:
		return err
	}
	rows, err := tx.Query(ctx, selectRegistered, m.Repository)
	registered, err := collect(rows, err, scanString)
	if err != nil {
		return err
	}
	for _, digest := range registered {
		if attachedTo(digest) == attachment(tag) {
			return &TagHeldError{tag, former}
		}
	}
	return nil
}

// RegisterHeld is Register for a module in the platform's own registry. A *MissingError says that its repository doesn't hold all of it
// any more: what is registered can't be deleted, but what is about to be can.
func (d *DB) RegisterHeld(ctx context.Context, m Module, parts PartsOf) (Module, error) {
	return d.register(ctx, m, func(tx *txn) error {
		digests := []string{m.Digest}
		for _, image := range m.Images {
			digests = append(digests, image.ManifestDigest)
		}
		if err := holds(ctx, tx, m.Repository, Parts{Manifests: digests}); err != nil {
			return err
		}
		for _, digest := range digests {
			of, err := parts(digest)
			if err != nil {
				return err
			}
			if err := holds(ctx, tx, m.Repository, of); err != nil {
				return err
			}
		}
		return nil
	})
}
