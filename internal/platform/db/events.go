package db

import (
	"context"
	"database/sql"
	"time"
)

// The kinds of events.
const (
	EventCreated       = "node.created"
	EventTokenCreated  = "token.created"
	EventEnrolled      = "node.enrolled"
	EventEnrollRefused = "enroll.refused"
	EventRunning       = "node.running"
	EventBooted        = "node.booted"
	EventBootTrouble   = "node.boot_trouble"
	EventAssigned      = "module.assigned"
	EventUnassigned    = "module.unassigned"
	EventRegistered    = "module.registered"
	// What is meant although a node would take it for a mistake, and when that ends.
	EventDowngrade     = "downgrade.allowed"
	EventNoDowngrade   = "downgrade.taken_back"
	EventRemoveMost    = "removal.allowed"
	EventRemovedMost   = "removal.done"
	EventAccessRefused = "access.refused"

	EventRefreshed       = "certificate.refreshed"
	EventRenewed         = "certificate.renewed"
	EventSuperseded      = "certificate.superseded"
	EventUnfiled         = "certificate.unfiled"
	EventRevoked         = "certificate.revoked"
	EventRenewalWaiting  = "renewal.waiting"
	EventRenewalApproved = "renewal.approved"
	EventRenewalDenied   = "renewal.denied"
	EventRenewalRefused  = "renewal.refused"
	EventShared          = "identity.shared"
	EventCleared         = "identity.cleared"
)

// keepEvents is how many of the latest events are kept.
const keepEvents = 10_000

// Event is something that happened, for the operator to see.
type Event struct {
	ID     int64
	At     time.Time
	Kind   string
	NodeID string // "" where no node is concerned
	Text   string
}

// RecordEvent keeps an event; of one kind and one node, the last keptNodeEvents.
func (d *DB) RecordEvent(ctx context.Context, kind, nodeID, text string) error {
	return d.updateOf(ctx, nodeID, func(tx *txn) error { return d.nodeEvent(ctx, tx, kind, nodeID, text) })
}

// event keeps an event within a transaction and drops those that are too old.
func (d *DB) event(ctx context.Context, tx *txn, kind, nodeID, text string) error {
	if err := d.addEvent(ctx, tx, kind, nodeID, text); err != nil {
		return err
	}
	return dropEvents(ctx, tx)
}

// addEvent is event without the dropping, for many at once: dropEvents must follow.
func (d *DB) addEvent(ctx context.Context, tx *txn, kind, nodeID, text string) error {
	_, err := tx.Exec(ctx, "INSERT INTO events (at, kind, node_id, text) VALUES (?, ?, ?, ?)", millis(d.now()), kind, nodeID, text)
	return err
}

func dropEvents(ctx context.Context, tx *txn) error {
	// By their number, not by the latest ID: there are gaps where a node's were dropped. Those that another transaction is
	// about to drop needn't be waited for.
	_, err := tx.Exec(ctx, `DELETE FROM events WHERE id IN
		(SELECT id FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?) FOR UPDATE SKIP LOCKED)`, keepEvents)
	return err
}

// keptNodeEvents is how many events of one kind and one node are kept by nodeEvent.
const keptNodeEvents = 100

// nodeEvent is event, for what a node can bring about as often as it likes: it must not push out what is
// known of the others.
func (d *DB) nodeEvent(ctx context.Context, tx *txn, kind, nodeID, text string) error {
	if err := d.event(ctx, tx, kind, nodeID, text); err != nil || nodeID == "" {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM events WHERE node_id = ?1 AND kind = ?2 AND id <=
		(SELECT id FROM events WHERE node_id = ?1 AND kind = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`, nodeID, kind, keptNodeEvents)
	return err
}

// Events returns the latest events, newest first: of one node, or of all where nodeID is "".
func (d *DB) Events(ctx context.Context, nodeID string, limit int) ([]Event, error) {
	where, args := only("node_id", nodeID)
	rows, err := d.read.Query(ctx, "SELECT id, at, kind, node_id, text FROM events WHERE "+where+" ORDER BY id DESC LIMIT ?", append(args, limit)...)
	list, err := collect(rows, err, func(rows *sql.Rows, e *Event) error {
		var at int64
		err := rows.Scan(&e.ID, &at, &e.Kind, &e.NodeID, &e.Text)
		e.At = moment(at)
		return err
	})
	return list, d.explain(err)
}
