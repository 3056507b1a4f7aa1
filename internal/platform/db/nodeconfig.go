package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// EventConfigured is the event of a change of a node's configuration.
const EventConfigured = "node.configured"

// NodeConfig is a node's configuration as it is kept.
type NodeConfig struct {
	nodeapi.NodeConfig
	ChangedAt time.Time
}

// NodeConfig returns the configuration of the node of that ID, or ErrNotFound while nothing was set.
func (d *DB) NodeConfig(ctx context.Context, nodeID string) (NodeConfig, error) {
	c, err := readConfig(d.read.QueryRow(ctx, selectConfig, nodeID))
	return c, d.explain(err)
}

// ConfigDigest returns the digest of the node's configuration, or ErrNotFound while nothing was set.
func (d *DB) ConfigDigest(ctx context.Context, nodeID string) (string, error) {
	var digest string
	err := d.read.QueryRow(ctx, "SELECT digest FROM node_configs WHERE node_id = ?", nodeID).Scan(&digest)
	return digest, d.explain(err)
}

// ChangeConfig puts what change makes of a node's configuration in its place, and records what change says
// about it as an event. change is given nothing where nothing was set; where it says nothing, nothing is written, and
// what was is returned.
func (d *DB) ChangeConfig(ctx context.Context, nodeID string, change func(was nodeapi.NodeConfig) (now nodeapi.NodeConfig, said string, err error)) (NodeConfig, error) {
	var c NodeConfig
	return c, d.updateOf(ctx, nodeID, func(tx *txn) error {
		was, err := readConfig(tx.QueryRow(ctx, selectConfig, nodeID))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		now, said, err := change(was.NodeConfig)
		if err != nil {
			return err
		}
		if said == "" {
			c = was
			return nil
		}
		c = NodeConfig{NodeConfig: now, ChangedAt: moment(millis(d.now()))}
		text, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO node_configs (node_id, config, digest, changed_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (node_id) DO UPDATE SET config = excluded.config, digest = excluded.digest, changed_at = excluded.changed_at`,
			nodeID, string(text), now.Digest, millis(c.ChangedAt)); err != nil {
			return err
		}
		return d.event(ctx, tx, EventConfigured, nodeID, said)
	})
}

const selectConfig = "SELECT config, changed_at FROM node_configs WHERE node_id = ?"

func readConfig(row *sql.Row) (NodeConfig, error) {
	var text string
	var at int64
	if err := row.Scan(&text, &at); err != nil {
		return NodeConfig{}, err
	}
	c := NodeConfig{ChangedAt: moment(at)}
	if err := json.Unmarshal([]byte(text), &c.NodeConfig); err != nil {
		return NodeConfig{}, fmt.Errorf("a node's configuration: %w", err)
	}
	return c, nil
}
