package db

import (
	"context"
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

// keepRoots is how many of the latest compositions are kept.
const keepRoots = 1000

// Root is a composition that was computed.
type Root struct {
	// Digest is the root digest; zero where there is none.
	Digest fsverity.Digest
	// Refusal says why the modules make no composition; "" where they make one.
	Refusal   string
	Conflicts []Conflict
}

// Root returns the composition whose inputs have that hash, or ErrNotFound.
func (d *DB) Root(ctx context.Context, inputHash [32]byte) (Root, error) {
	var digest, conflicts string
	var r Root
	if err := d.read.QueryRow(ctx, "SELECT root_digest, refusal, conflicts FROM roots WHERE input_hash = ?", inputHash[:]).
		Scan(&digest, &r.Refusal, &conflicts); err != nil {
		return Root{}, d.explain(err)
	}
	if err := r.Digest.UnmarshalText([]byte(digest)); err != nil {
		return Root{}, err
	}
	if err := json.Unmarshal([]byte(conflicts), &r.Conflicts); err != nil {
		return Root{}, fmt.Errorf("the conflicts of root %s: %w", digest, err)
	}
	return r, nil
}

// PutRoot keeps a composition, and drops those that are too old.
func (d *DB) PutRoot(ctx context.Context, inputHash [32]byte, r Root) error {
	conflicts, err := json.Marshal(r.Conflicts)
	if err != nil {
		return err
	}
	digest, err := r.Digest.MarshalText()
	if err != nil {
		return err
	}
	return d.updateOf(ctx, "roots", func(tx *txn) error {
		if _, err := tx.Exec(ctx, `INSERT INTO roots (input_hash, root_digest, refusal, conflicts, computed_at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (input_hash) DO UPDATE SET root_digest = excluded.root_digest, refusal = excluded.refusal,
			conflicts = excluded.conflicts, computed_at = excluded.computed_at`,
			inputHash[:], string(digest), r.Refusal, string(conflicts), millis(d.now())); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM roots WHERE computed_at <= (SELECT computed_at FROM roots ORDER BY computed_at DESC LIMIT 1 OFFSET ?)", keepRoots)
		return err
	})
}
