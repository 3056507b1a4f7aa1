// Package db keeps the platform's records in SQLite: nodes, certificates, tokens, modules,
// assignments, events, and the registry's index.
//
// It promises that each exported method is one transaction, that a committed one survives a
// power cut, and that secrets are never in it: of tokens it holds SHA-256 hashes. It decides
// what must be decided within a transaction (may this token be used?), and nothing else. It
// trusts its file.
package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/powernode/powernode-agent/internal/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is the number of connections for reading. SQLite in WAL mode lets them run beside the
// one writer.
const readers = 4

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
)

// DB is an open database. It may be used by several goroutines at once.
type DB struct {
	// write has one connection: SQLite has one writer, and waiting for it here costs nothing,
	// while waiting for its lock there means polling.
	write *sql.DB
	read  *sql.DB
	now   func() time.Time
}

// Open opens the database file at path, makes it if there is none, and brings its schema up to date.
func Open(ctx context.Context, path string, now func() time.Time) (*DB, error) {
	d, err := open(ctx, path, now)
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", path, explain(err))
	}
	return d, nil
}

func open(ctx context.Context, path string, now func() time.Time) (*DB, error) {
	// FULL: a certificate that a node holds must be on file after a power cut, too.
	write, err := connect(path, "immediate", "journal_mode(WAL)", "synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read, err := connect(path, "deferred", "query_only(ON)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return &DB{write: write, read: read, now: now}, nil
}

func connect(path, txlock string, pragmas ...string) (*sql.DB, error) {
	values := url.Values{"_txlock": {txlock}, "_pragma": append([]string{"busy_timeout(10000)", "foreign_keys(ON)"}, pragmas...)}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}
	return sql.Open("sqlite", dsn.String())
}

func migrate(ctx context.Context, write *sql.DB) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, write, sub)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema up to date: %w", err)
	}
	return nil
}

// Close closes the database.
func (d *DB) Close() error { return errors.Join(d.read.Close(), d.write.Close()) }

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error {
	var one int
	return explain(d.read.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// update runs fn in one write transaction.
func (d *DB) update(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	if err := fn(tx); err != nil {
		return errors.Join(explain(err), rollback(tx))
	}
	return explain(tx.Commit())
}

// view runs fn in one read transaction: everything that fn reads is of one moment.
func (d *DB) view(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := d.read.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	return errors.Join(explain(fn(tx)), rollback(tx))
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// explain turns the errors of SQL and SQLite that callers tell apart into this package's own.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch code := e.Code(); {
	case code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fmt.Errorf("%w: %s", ErrExists, strings.TrimSpace(e.Error()))
	case code&0xff == sqlite3.SQLITE_FULL:
		return fault.New(fault.Retry, fault.Mount, "make room on the file system of the data directory", "the disk is full: %w", err)
	case code&0xff == sqlite3.SQLITE_NOTADB || code&0xff == sqlite3.SQLITE_CORRUPT:
		return fault.New(fault.Broken, fault.Mount, "restore platform.db from a backup, together with the files beside it", "the database is damaged: %w", err)
	case code&0xff == sqlite3.SQLITE_IOERR || code&0xff == sqlite3.SQLITE_READONLY || code&0xff == sqlite3.SQLITE_CANTOPEN:
		return fault.New(fault.Broken, fault.Mount, "check the disk and the permissions of the data directory", "the database can't be used: %w", err)
	default:
		return err
	}
}

// NewID returns a random UUID (RFC 9562, version 4).
func NewID() string {
	var b [16]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// millis and moment convert between times and what the tables hold.
func millis(t time.Time) int64 { return t.UnixMilli() }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

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
