package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// ErrVersionTaken says that a module's version is registered with another digest: a version
// names one content for ever.
var ErrVersionTaken = errors.New("the version is registered with another digest")

// Module is a module in its current version.
type Module struct {
	ID               string
	Name             string
	Variety          string
	CategoryPosition int
	Priority         int

	Version        string
	Repository     string // the path in the platform's registry
	Digest         string // of an image manifest or an index
	RebootRequired bool
	RegisteredAt   time.Time

	Images []Image // one for each architecture, by architecture

	// AllowDowngrade says of an assigned module that this very version may be lower than one that the node has run.
	AllowDowngrade bool
}

// Image is a module's version for one architecture.
type Image struct {
	Architecture   string
	ManifestDigest string
	Seal           fsverity.Digest
	Manifest       string // the manifest.yaml from the image's labels
}

// EffectivePriority is category position x 1000 + priority: higher wins.
func (m Module) EffectivePriority() int { return m.CategoryPosition*1000 + m.Priority }

// AnyArchitecture is the architecture of an image that holds nothing that a processor runs.
const AnyArchitecture = "all"

// Image returns the module's image for an architecture: the one made for it, else the one for any.
func (m Module) Image(architecture string) (Image, bool) {
	for _, want := range []string{architecture, AnyArchitecture} {
		for _, image := range m.Images {
			if image.Architecture == want {
				return image, true
			}
		}
	}
	return Image{}, false
}

// Register makes m's version the current one of the module of that name, which it makes if need
// be, and returns it with its ID. Registering the same digest again changes rank and variety
// only. ErrVersionTaken says that the version's digest is another.
func (d *DB) Register(ctx context.Context, m Module) (Module, error) {
	return d.register(ctx, m, func(*txn) error { return nil })
}

// register is Register in one transaction with what check looks at, which may refuse it.
func (d *DB) register(ctx context.Context, m Module, check func(tx *txn) error) (Module, error) {
	err := d.update(ctx, func(tx *txn) error {
		if err := check(tx); err != nil {
			return err
		}
		now := millis(d.now())
		var versionID string
		err := tx.QueryRow(ctx, "SELECT id FROM modules WHERE name = ?", m.Name).Scan(&m.ID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			m.ID = NewID()
		case err != nil:
			return err
		}
		var digest string
		err = tx.QueryRow(ctx, "SELECT id, digest FROM versions WHERE module_id = ? AND version = ?", m.ID, m.Version).Scan(&versionID, &digest)
		switch {
		case err == nil && digest != m.Digest:
			return fmt.Errorf("%s %s: %w, %s", m.Name, m.Version, ErrVersionTaken, digest)
		case errors.Is(err, sql.ErrNoRows):
			versionID = NewID()
		case err != nil:
			return err
		}
		for _, stmt := range []struct {
			query string
			args  []any
		}{
			{
				`INSERT INTO modules (id, name, variety, category_position, priority, version_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET variety = excluded.variety, category_position = excluded.category_position,
				priority = excluded.priority, version_id = excluded.version_id`,
				[]any{m.ID, m.Name, m.Variety, m.CategoryPosition, m.Priority, versionID, now},
			},
			{
				`INSERT INTO versions (id, module_id, version, repository, digest, reboot_required, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET repository = excluded.repository`,
				[]any{versionID, m.ID, m.Version, m.Repository, m.Digest, m.RebootRequired, now},
			},
		} {
			if _, err := tx.Exec(ctx, stmt.query, stmt.args...); err != nil {
				return err
			}
		}
		for _, image := range m.Images {
			if _, err := tx.Exec(ctx, `INSERT INTO images (version_id, architecture, manifest_digest, seal, manifest) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT DO NOTHING`, versionID, image.Architecture, image.ManifestDigest, image.Seal.String(), image.Manifest); err != nil {
				return err
			}
		}
		return d.event(ctx, tx, EventRegistered, "", fmt.Sprintf("%s %s, %s@%s", m.Name, m.Version, m.Repository, m.Digest))
	})
	if err != nil {
		return Module{}, err
	}
	return d.Module(ctx, m.ID)
}

const (
	moduleColumns = `SELECT m.id, m.name, m.variety, m.category_position, m.priority, v.version, v.repository, v.digest,
	v.reboot_required, v.created_at, i.architecture, i.manifest_digest, i.seal, i.manifest, `
	moduleTables = ` FROM modules m JOIN versions v ON v.id = m.version_id JOIN images i ON i.version_id = v.id `
	// No node is concerned, so nothing is allowed to one.
	selectModules = moduleColumns + "FALSE" + moduleTables
)

// Rank order: the module that wins comes first; among equals the smaller name.
const orderRank = "ORDER BY m.category_position * 1000 + m.priority DESC, m.name, i.architecture"

// modules runs a query that begins with selectModules and folds each module's images together.
func (d *DB) modules(ctx context.Context, query string, args ...any) ([]Module, error) {
	rows, err := d.read.Query(ctx, query, args...)
	flat, err := collect(rows, err, func(rows *sql.Rows, m *Module) error {
		var registered int64
		var image Image
		var seal string
		if err := rows.Scan(&m.ID, &m.Name, &m.Variety, &m.CategoryPosition, &m.Priority, &m.Version, &m.Repository, &m.Digest,
			&m.RebootRequired, &registered, &image.Architecture, &image.ManifestDigest, &seal, &image.Manifest, &m.AllowDowngrade); err != nil {
			return err
		}
		m.RegisteredAt = moment(registered)
		m.Images = []Image{image}
		var err error
		m.Images[0].Seal, err = fsverity.ParseDigest(seal)
		return err
	})
	if err != nil {
		return nil, d.explain(err)
	}
	list := []Module{}
	for _, m := range flat {
		if last := len(list) - 1; last >= 0 && list[last].ID == m.ID {
			list[last].Images = append(list[last].Images, m.Images...)
			continue
		}
		list = append(list, m)
	}
	return list, nil
}

// Modules returns every module, by name.
func (d *DB) Modules(ctx context.Context) ([]Module, error) {
	return d.modules(ctx, selectModules+"ORDER BY m.name, i.architecture")
}

// Module returns the module of that ID or name, or ErrNotFound.
func (d *DB) Module(ctx context.Context, ref string) (Module, error) {
	list, err := d.modules(ctx, selectModules+"WHERE m.id = ?1 OR m.name = ?1 AND NOT EXISTS (SELECT 1 FROM modules WHERE id = ?1) "+orderRank, ref)
	switch {
	case err != nil:
		return Module{}, err
	case len(list) == 0:
		return Module{}, ErrNotFound
	}
	return list[0], nil
}

// AssignedRepository reports whether a node may read a repository of the registry: whether the
// current version of a module assigned to it lies there.
func (d *DB) AssignedRepository(ctx context.Context, nodeID, repository string) (bool, error) {
	var n int
	err := d.read.QueryRow(ctx, `SELECT count(*) FROM assignments a JOIN modules m ON m.id = a.module_id
		JOIN versions v ON v.id = m.version_id WHERE a.node_id = ? AND v.repository = ?`, nodeID, repository).Scan(&n)
	return n > 0, d.explain(err)
}
