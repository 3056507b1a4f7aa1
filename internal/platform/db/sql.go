package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// dialect is what one database does differently from the other. Each has its own file.
//
// Queries are written once, in the SQL that both know: parameters are ? or ?1, ?2…, an insertion that may meet a row has
// ON CONFLICT, truth is TRUE and FALSE, and rows that several may claim at once are read with FOR UPDATE SKIP LOCKED,
// which SQLite's dialect leaves out. certificates.rowid is the order in which they came to be.
type dialect interface {
	// query turns a query of this package into the database's own.
	query(text string) string
	// args are the parameters as the database takes them.
	args(list []any) []any
	// options are those of a transaction that writes, or only reads.
	options(writes bool) *sql.TxOptions
	// turn waits, before a transaction takes a connection, until no other of the same owner in this process is under way, where it would only wait
	// for it. leave follows its end.
	turn(ctx context.Context, owner string) (leave func(), err error)
	// serialize makes a transaction wait until no other is under way that might meet it: those of the same owner, and those
	// of none; where owner is "", all.
	serialize(ctx context.Context, tx *sql.Tx, owner string) error
	// notify wakes, once the transaction is committed, those who wait for a topic in other processes.
	notify(ctx context.Context, tx *sql.Tx, topic string) error
	// writable returns an error where the database answers and can only be read.
	writable(ctx context.Context, pool *sql.DB) error
	// again reports whether a transaction that ended in err may succeed if it is run again as it is.
	again(err error) bool
	// explain turns the database's errors that callers tell apart into this package's own, and leaves the others.
	explain(err error) error
}

// attempts is how often a transaction is run before its conflict with others is an error.
const attempts = 10

// conn is a pool of connections.
type conn struct {
	pool    *sql.DB
	dialect dialect
	// statements are kept for the pool, or nil where its driver keeps them.
	statements *statements
}

// Query runs a query outside of any transaction.
func (c conn) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.pool.QueryContext(ctx, c.dialect.query(query), c.dialect.args(args)...)
}

// QueryRow is Query for one row. Its Scan returns sql.ErrNoRows where there is none.
func (c conn) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return c.row(ctx, c.dialect.query(query), c.dialect.args(args))
}

// txn is a transaction. All rows of one query are read before the next one: PostgreSQL has one at a time.
type txn struct {
	tx *sql.Tx
	conn
	// topics are those that notify was called with.
	topics []string
	// unknown are queries that no statement was kept for.
	unknown []string
	// changed says that there is something to commit.
	changed bool
}

// notes says that a query which isn't only to read changes something: with RETURNING the driver doesn't say how many rows.
func (t *txn) notes(query string) {
	t.changed = t.changed || !strings.HasPrefix(query, "SELECT") && !strings.HasPrefix(query, "WITH")
}

// Exec runs a statement and returns how many rows it changed.
func (t *txn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	query, args = t.dialect.query(query), t.dialect.args(args)
	var result sql.Result
	var err error
	if stmt := t.statement(ctx, query); stmt != nil {
		result, err = stmt.ExecContext(ctx, args...)
	} else {
		result, err = t.tx.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	t.changed = t.changed || n > 0
	return n, err
}

// Query runs a query, or a statement with RETURNING.
func (t *txn) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	t.notes(query)
	query, args = t.dialect.query(query), t.dialect.args(args)
	if stmt := t.statement(ctx, query); stmt != nil {
		return stmt.QueryContext(ctx, args...)
	}
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRow is Query for one row. Its Scan returns sql.ErrNoRows where there is none.
func (t *txn) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	t.notes(query)
	query, args = t.dialect.query(query), t.dialect.args(args)
	if stmt := t.statement(ctx, query); stmt != nil {
		return stmt.QueryRowContext(ctx, args...)
	}
	return t.tx.QueryRowContext(ctx, query, args...)
}

// notify wakes, once the transaction is committed, every Watch of the topic, in this process and in others.
func (t *txn) notify(ctx context.Context, topic string) error {
	t.topics = append(t.topics, topic)
	return t.dialect.notify(ctx, t.tx, topic)
}

// update runs fn in one write transaction, as if no other one ran beside it. fn may be run more than once; what it did before
// is undone then, but for what it left in variables.
func (d *DB) update(ctx context.Context, fn func(tx *txn) error) error {
	return d.updateOf(ctx, "", fn)
}

// updateOf is update for a transaction that decides by what belongs to one owner alone, a node's ID or a repository's name: on PostgreSQL
// those of other owners run beside it. It may add events, too, and look up what nobody owns. What is changed on somebody's behalf,
// see WithIntent, is in the audit log if, and only if, it is committed; where nothing is changed there is nothing to tell.
func (d *DB) updateOf(ctx context.Context, owner string, fn func(tx *txn) error) error {
	dialect := d.write.dialect
	change, intent, written := fn, IntentOf(ctx), false
	if intent != nil {
		change = func(tx *txn) error {
			written = false
			if err := fn(tx); err != nil || !tx.changed {
				return err
			}
			written = true
			return d.audit(ctx, tx, intent.Entry)
		}
	}
	for attempt := 1; ; attempt++ {
		topics, err := d.once(ctx, owner, change)
		switch {
		case err == nil:
			if intent != nil {
				if intent.Written, intent.Idle = written, !written; written {
					d.tellAudit(intent.Entry)
				}
			}
			for _, topic := range topics {
				d.hub.wake(topic)
			}
			return nil
		case !dialect.again(err):
			return d.explain(err)
		case attempt == attempts:
			return d.explain(fmt.Errorf("after %d attempts: %w", attempts, err))
		}
		select {
		case <-ctx.Done():
			return d.explain(err)
		case <-time.After(rand.N(time.Duration(attempt) * 10 * time.Millisecond)):
		}
	}
}

// once is one attempt of updateOf.
func (d *DB) once(ctx context.Context, owner string, fn func(tx *txn) error) (topics []string, err error) {
	leave, err := d.write.dialect.turn(ctx, owner)
	if err != nil {
		return nil, err
	}
	defer leave()
	tx, err := d.write.pool.BeginTx(ctx, d.write.dialect.options(true))
	if err != nil {
		return nil, err
	}
	t := &txn{tx: tx, conn: d.write}
	if err = d.write.dialect.serialize(ctx, tx, owner); err == nil {
		err = fn(t)
	}
	if err != nil {
		return nil, errors.Join(err, rollback(tx))
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	t.learn(ctx)
	return t.topics, nil
}

// nodeOf finds the ID of a node by something that belongs to it for ever, or returns ErrNotFound.
func (d *DB) nodeOf(ctx context.Context, query string, arg any) (string, error) {
	var id string
	err := d.read.QueryRow(ctx, query, arg).Scan(&id)
	return id, d.explain(err)
}

// view runs fn in one read transaction: everything that fn reads is of one moment.
func (d *DB) view(ctx context.Context, fn func(tx *txn) error) error {
	tx, err := d.read.pool.BeginTx(ctx, d.read.dialect.options(false))
	if err != nil {
		return d.explain(err)
	}
	t := &txn{tx: tx, conn: d.read}
	err = errors.Join(d.explain(fn(t)), rollback(tx))
	t.learn(ctx)
	return err
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// explain turns the errors of SQL and of the database that callers tell apart into this package's own.
func (d *DB) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	}
	return d.write.dialect.explain(err)
}

// only is the condition that a column has a value, with its parameters; none where the value is "". It is put into the query only where there
// is one: behind an OR neither database would look into the column's index.
func only(column, value string) (condition string, args []any) {
	if value == "" {
		return "TRUE", nil
	}
	return column + " = ?", []any{value}
}

// collect reads every row by scan.
func collect[T any](rows *sql.Rows, err error, scan func(rows *sql.Rows, v *T) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	// What can go wrong with reading is in rows.Err.
	defer func() { _ = rows.Close() }()
	list := []T{}
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}
