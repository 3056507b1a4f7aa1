package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/powernode/powernode-agent/internal/fault"
)

// readers is the number of connections for reading. SQLite in WAL mode lets them run beside the
// one writer.
const readers = 4

// forUpdate is how a query reads rows that it is to change.
const forUpdate = " FOR UPDATE"

// sqliteDialect is that of SQLite, whose one writer makes most of it simple.
type sqliteDialect struct{}

// openSQLite opens the database file at path.
func (d *DB) openSQLite(ctx context.Context, path string) error {
	// FULL: a certificate that a node holds must be on file after a power cut, too.
	write, err := connectSQLite(path, "immediate", "journal_mode(WAL)", "synchronous(FULL)")
	if err != nil {
		return err
	}
	d.write = conn{write, sqliteDialect{}, &statements{pool: write}}
	d.closers = append(d.closers, write.Close)
	// One connection: SQLite has one writer, and waiting for it here costs nothing, while waiting for its lock
	// there means polling.
	write.SetMaxOpenConns(1)
	if err := d.migrate(ctx, write, goose.DialectSQLite3, "sqlite"); err != nil {
		return err
	}
	read, err := connectSQLite(path, "deferred", "query_only(ON)")
	if err != nil {
		return err
	}
	d.read = conn{read, sqliteDialect{}, &statements{pool: read}}
	d.closers = append(d.closers, read.Close)
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return nil
}

func connectSQLite(path, txlock string, pragmas ...string) (*sql.DB, error) {
	values := url.Values{"_txlock": {txlock}, "_pragma": append([]string{"busy_timeout(10000)", "foreign_keys(ON)"}, pragmas...)}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}
	return sql.Open("sqlite", dsn.String())
}

// query leaves out the words about rows that several transactions want: there is one that writes.
func (sqliteDialect) query(text string) string {
	if !strings.Contains(text, forUpdate) {
		return text
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, forUpdate+" SKIP LOCKED", ""), forUpdate, "")
}

func (sqliteDialect) args(list []any) []any { return list }

// options are none: the pools are made for writing and for reading.
func (sqliteDialect) options(bool) *sql.TxOptions { return nil }

// turn has nothing to do: there is one connection that writes, and who has it waits for nobody.
func (sqliteDialect) turn(context.Context, string) (func(), error) { return func() {}, nil }

func (sqliteDialect) serialize(context.Context, *sql.Tx, string) error { return nil }

// notify has nothing to do: no other process has the file open.
func (sqliteDialect) notify(context.Context, *sql.Tx, string) error { return nil }

// writable takes the lock for writing. A full disk shows only when something is written.
func (sqliteDialect) writable(ctx context.Context, pool *sql.DB) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return rollback(tx)
}

// again is never: who waited for the writer in vain did so for ten seconds.
func (sqliteDialect) again(error) bool { return false }

func (sqliteDialect) explain(err error) error {
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
