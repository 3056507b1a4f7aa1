package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// KeptBoots is how many boots of a node are kept.
const KeptBoots = 16

// Boot is a boot report with the time of its arrival.
type Boot struct {
	nodeapi.BootReport
	ReceivedAt time.Time
}

// BootReport keeps what a boot says of itself, in place of what the same boot said before, and the
// last KeptBoots of the node. A boot that went wrong, and one that came to a generation because another
// failed, are events: once for each stage and generation, however the reason is put, as it may name a time.
func (d *DB) BootReport(ctx context.Context, nodeID string, report nodeapi.BootReport) error {
	text, err := json.Marshal(report)
	if err != nil {
		return err
	}
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		var old string
		err := tx.QueryRow(ctx, "SELECT report FROM boots WHERE node_id = ? AND boot_id = ?", nodeID, report.BootID).Scan(&old)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var was nodeapi.BootReport
		if old != "" {
			if err := json.Unmarshal([]byte(old), &was); err != nil {
				return fmt.Errorf("the report of boot %s of node %s: %w", report.BootID, nodeID, err)
			}
		}
		before, _ := bootNews(was)
		if now, news := bootNews(report); news != "" && now != before {
			if err := d.nodeEvent(ctx, tx, EventBootTrouble, nodeID, news); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO boots (node_id, boot_id, received_at, report) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (node_id, boot_id) DO UPDATE SET received_at = ?3, report = ?4`,
			nodeID, report.BootID, millis(d.now()), string(text)); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM boots WHERE node_id = ?1 AND id NOT IN
			(SELECT id FROM boots WHERE node_id = ?1 ORDER BY id DESC LIMIT ?2)`, nodeID, KeptBoots)
		return err
	})
}

// trouble is what tells the troubles of one boot apart.
type trouble struct {
	outcome    nodeapi.BootOutcome
	stage      string
	generation uint64
}

// bootNews says in a sentence what an operator should know of a boot, or "" where all went well.
func bootNews(r nodeapi.BootReport) (trouble, string) {
	switch {
	case r.Outcome == nodeapi.BootInRecovery || r.Outcome == nodeapi.BootEnded:
		at := ""
		if r.Stage != "" {
			at = " at stage " + r.Stage
		}
		return trouble{r.Outcome, r.Stage, 0}, strings.TrimSuffix(fmt.Sprintf("boot %s%s: %s", r.Outcome, at, r.Failure), ": ")
	case r.Trial != nil && r.Trial.Verdict == nodeapi.TrialFailed:
		return trouble{generation: r.Trial.Generation}, fmt.Sprintf("generation %d failed its trial: %s", r.Trial.Generation, r.Trial.Reason)
	case r.Fallback != nil:
		return trouble{r.Outcome, "", r.Fallback.Generation},
			fmt.Sprintf("booted generation %d: generation %d failed its trial: %s", r.Generation, r.Fallback.Generation, r.Fallback.Reason)
	}
	return trouble{}, ""
}

// Boots returns the last boots of a node, newest first.
func (d *DB) Boots(ctx context.Context, nodeID string) ([]Boot, error) {
	rows, err := d.read.Query(ctx, "SELECT received_at, report FROM boots WHERE node_id = ? ORDER BY id DESC", nodeID)
	list, err := collect(rows, err, func(rows *sql.Rows, b *Boot) error {
		var received int64
		var report string
		if err := rows.Scan(&received, &report); err != nil {
			return err
		}
		b.ReceivedAt = moment(received)
		if err := json.Unmarshal([]byte(report), &b.BootReport); err != nil {
			return fmt.Errorf("a boot report of node %s: %w", nodeID, err)
		}
		return nil
	})
	return list, d.explain(err)
}
