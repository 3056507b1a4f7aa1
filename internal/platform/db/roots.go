package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Conflict is one path that several modules claim, as composition settled it.
type Conflict struct {
	Path   string   `json:"path"`
	Winner string   `json:"winner"`
	Losers []string `json:"losers"`
	Reason string   `json:"reason"`
}

// Root is a composition that was computed.
type Root struct {
	Digest    fsverity.Digest
	Conflicts []Conflict
}

// Root returns the composition whose inputs have that hash, or ErrNotFound.
func (d *DB) Root(ctx context.Context, inputHash [32]byte) (Root, error) {
	var digest, conflicts string
	if err := d.read.QueryRowContext(ctx, "SELECT root_digest, conflicts FROM roots WHERE input_hash = ?", inputHash[:]).Scan(&digest, &conflicts); err != nil {
		return Root{}, explain(err)
	}
	var r Root
	var err error
	if r.Digest, err = fsverity.ParseDigest(digest); err != nil {
		return Root{}, err
	}
	if err := json.Unmarshal([]byte(conflicts), &r.Conflicts); err != nil {
		return Root{}, fmt.Errorf("the conflicts of root %s: %w", digest, err)
	}
	return r, nil
}

// PutRoot keeps a composition.
func (d *DB) PutRoot(ctx context.Context, inputHash [32]byte, r Root) error {
	conflicts, err := json.Marshal(r.Conflicts)
	if err != nil {
		return err
	}
	return d.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO roots (input_hash, root_digest, conflicts, computed_at) VALUES (?, ?, ?, ?)",
			inputHash[:], r.Digest.String(), string(conflicts), millis(d.now()))
		return err
	})
}
