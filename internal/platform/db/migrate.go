package db

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/powernode/powernode-agent/internal/fault"
)

// migrations holds a directory for each dialect. A number is the same change in both; PostgreSQL's begin
// with the state that SQLite's had then.
//
//go:embed migrations/*/*.sql
var migrations embed.FS

// migrate brings the schema up to date. Only one process may be in it.
func (d *DB) migrate(ctx context.Context, pool *sql.DB, dialect goose.Dialect, dir string) error {
	provider, err := migrator(pool, dialect, dir)
	if err != nil {
		return err
	}
	has, wants, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", err)
	case has > wants:
		return fault.New(fault.Refuse, fault.Input, "start the newer powernode-platform, or restore a backup from before it",
			"the database has schema %d, of a newer powernode-platform than this one, which knows %d", has, wants)
	case has > 0 && has < wants:
		d.log.Warn("the database's schema changes now, and there is no way back but a backup from before",
			"from", has, "to", wants, "hint", "docs/operations.md says how to make one")
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema up to date: %w", err)
	}
	return nil
}

func migrator(pool *sql.DB, dialect goose.Dialect, dir string) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations/"+dir)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, pool, sub)
}
