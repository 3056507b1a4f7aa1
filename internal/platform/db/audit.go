package db

import (
	"context"
	"database/sql"
	"math"
	"time"
)

const (
	// AuditLife is how long an entry of the audit log is kept.
	AuditLife = 400 * 24 * time.Hour
	// AuditShare is how many of the latest entries of each actor are kept meanwhile, at least. One drops none of another's: who has a token
	// that leaked must not be able to push out what others did. There are as many actors as admins have made tokens.
	AuditShare = 100_000
	// pruneAudit is after how many entries others are dropped.
	pruneAudit = 64
)

// AuditOK is the result of what was done.
const AuditOK = "ok"

// Audit is an entry of the audit log: who did what.
type Audit struct {
	ID        int64
	At        time.Time
	Actor     string // the name of the token
	Role      string
	Address   string
	Action    string
	Target    string
	Request   string // the beginning of what was asked for
	Result    string // AuditOK, or the code of the error
	Error     string
	RequestID string
}

// Intent is what somebody is about to change. The transaction that changes it writes it into the audit log, too; one
// without any is for RecordAudit. It is for one goroutine.
type Intent struct {
	// Entry is read when it is written.
	Entry Audit
	// Written says that a transaction with it was committed.
	Written bool
	// Idle says that a transaction was committed that changed nothing, and so didn't write it.
	Idle bool
}

type intentKey struct{}

// WithIntent returns a context by which the first change is written into the audit log, in the change's transaction.
func WithIntent(ctx context.Context, i *Intent) context.Context {
	return context.WithValue(ctx, intentKey{}, i)
}

// WithoutIntent returns a context for changes that aren't what somebody is about to do, as keeping what was computed.
func WithoutIntent(ctx context.Context) context.Context { return WithIntent(ctx, nil) }

// IntentOf returns what is still to be written, or nil.
func IntentOf(ctx context.Context) *Intent {
	i, _ := ctx.Value(intentKey{}).(*Intent)
	if i == nil || i.Written {
		return nil
	}
	return i
}

// RecordAudit writes an entry by itself.
func (d *DB) RecordAudit(ctx context.Context, entry Audit) error {
	err := d.updateOf(WithoutIntent(ctx), "audit", func(tx *txn) error { return d.audit(ctx, tx, entry) })
	if err == nil {
		d.tellAudit(entry)
	}
	return err
}

// tellAudit says to the log what the audit log has: there it is beyond the reach of who does so much that the share runs over. What
// was asked for may be anything and is left out.
func (d *DB) tellAudit(e Audit) {
	d.log.Info("audit", "by", e.Actor, "role", e.Role, "from", e.Address, "action", e.Action, "target", e.Target, "result", e.Result, "request", e.RequestID)
}

// audit writes an entry within a transaction.
func (d *DB) audit(ctx context.Context, tx *txn, e Audit) error {
	var id int64
	if err := tx.QueryRow(ctx, `INSERT INTO audit (at, actor, role, address, action, target, request, result, error, request_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`, millis(d.now()), e.Actor, e.Role, e.Address, e.Action, e.Target, e.Request, e.Result,
		e.Error, e.RequestID).Scan(&id); err != nil {
		return err
	}
	if id%pruneAudit != 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, "DELETE FROM audit WHERE at < ?", millis(d.now().Add(-AuditLife))); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM audit WHERE actor = ?1 AND id <= (SELECT id FROM audit WHERE actor = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)", e.Actor, AuditShare)
	return err
}

// AuditQuery says which entries are wanted.
type AuditQuery struct {
	// Actor is whose; "" is everybody's.
	Actor string
	// Before is the ID before which to go on; 0 begins with the latest.
	Before int64
	Limit  int
}

// AuditLog returns entries, the newest first.
func (d *DB) AuditLog(ctx context.Context, q AuditQuery) ([]Audit, error) {
	if q.Before == 0 {
		q.Before = math.MaxInt64
	}
	where, args := only("actor", q.Actor)
	rows, err := d.read.Query(ctx, `SELECT id, at, actor, role, address, action, target, request, result, error, request_id FROM audit
		WHERE `+where+" AND id < ? ORDER BY id DESC LIMIT ?", append(args, q.Before, q.Limit)...)
	list, err := collect(rows, err, func(rows *sql.Rows, e *Audit) error {
		var at int64
		err := rows.Scan(&e.ID, &at, &e.Actor, &e.Role, &e.Address, &e.Action, &e.Target, &e.Request, &e.Result, &e.Error, &e.RequestID)
		e.At = moment(at)
		return err
	})
	return list, d.explain(err)
}
