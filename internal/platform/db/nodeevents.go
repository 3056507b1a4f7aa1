package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

const (
	// KeptNodeEvents is how many events of a node's own are kept.
	KeptNodeEvents = 500
	// nodeEventLife is how long they are kept.
	nodeEventLife = 30 * 24 * time.Hour
)

// NodeEvent is what a node told of itself.
type NodeEvent struct {
	nodeapi.Event
	NodeID, NodeName string
	ReceivedAt       time.Time
}

// AddNodeEvents keeps what a node tells, the oldest first; all of it or nothing. What is kept already is passed over.
func (d *DB) AddNodeEvents(ctx context.Context, nodeID string, events []nodeapi.Event) error {
	if len(events) == 0 {
		return nil
	}
	return d.updateOf(ctx, nodeID, func(tx *txn) error {
		now := d.now()
		for _, e := range events {
			if e.Fields == nil {
				e.Fields = map[string]string{}
			}
			fields, err := json.Marshal(e.Fields)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `INSERT INTO node_events (node_id, event_id, received_at, at, kind, severity, text, fields)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, event_id) DO NOTHING`,
				nodeID, e.ID, millis(now), millis(e.At), e.Kind, string(e.Severity), e.Text, string(fields)); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM node_events WHERE node_id = ?1 AND (received_at < ?2 OR seq <=
			(SELECT seq FROM node_events WHERE node_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?3))`,
			nodeID, millis(now.Add(-nodeEventLife)), KeptNodeEvents)
		return err
	})
}

// NodeEvents returns what nodes told, the newest first: of one node, or of all where nodeID is "", and no more than limit.
func (d *DB) NodeEvents(ctx context.Context, nodeID string, limit int) ([]NodeEvent, error) {
	where, args := only("e.node_id", nodeID)
	rows, err := d.read.Query(ctx, `SELECT e.event_id, e.node_id, n.name, e.received_at, e.at, e.kind, e.severity, e.text, e.fields
		FROM node_events e JOIN nodes n ON n.id = e.node_id WHERE `+where+" ORDER BY e.seq DESC LIMIT ?", append(args, limit)...)
	list, err := collect(rows, err, func(rows *sql.Rows, e *NodeEvent) error {
		var received, at int64
		var fields string
		if err := rows.Scan(&e.ID, &e.NodeID, &e.NodeName, &received, &at, &e.Kind, &e.Severity, &e.Text, &fields); err != nil {
			return err
		}
		e.ReceivedAt, e.At = moment(received), moment(at)
		if err := json.Unmarshal([]byte(fields), &e.Fields); err != nil {
			return fmt.Errorf("event %s of node %s: %w", e.ID, e.NodeID, err)
		}
		return nil
	})
	return list, d.explain(err)
}
