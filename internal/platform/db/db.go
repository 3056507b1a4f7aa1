// Package db keeps the platform's records in SQLite or PostgreSQL: nodes, certificates, tokens, modules,
// assignments, events, and the registry's index.
//
// It promises that each exported method is one transaction, that a committed one survives a
// power cut, and that secrets are never in it: of tokens it holds SHA-256 hashes. It decides
// what must be decided within a transaction (may this token be used?), and nothing else. What
// it does is the same over both databases, and several processes may share one PostgreSQL. It
// trusts its file, or its server.
package db

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
)

// Options says which database to open.
type Options struct {
	// Path is SQLite's file, which is made if there is none.
	Path string
	// Postgres, where it isn't nil, is the server to use instead.
	Postgres *Postgres
	// Now tells the time. Over PostgreSQL it is put right by what the server's clock differs from this machine's.
	Now func() time.Time
	// Machine is the machine's clock, by which Now goes; nil is time.Now. Tests have others.
	Machine func() time.Time
	// Logger is told of changes of the schema and of a server that went away; nil is nobody.
	Logger *slog.Logger
}

// DB is an open database. It may be used by several goroutines at once.
type DB struct {
	write conn
	read  conn
	hub   *hub
	now   func() time.Time
	// server is the clock of PostgreSQL's machine; nil over SQLite.
	server *serverTime
	log    *slog.Logger
	beats  beats
	// closers are closed last to first.
	closers []func() error
}

// Open opens a database, and brings its schema up to date.
func Open(ctx context.Context, o Options) (*DB, error) {
	d := &DB{hub: newHub(), now: o.Now, log: o.Logger}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	var err error
	var name string
	var kind dialect = sqliteDialect{}
	if o.Postgres != nil {
		name, kind = o.Postgres.Name(), &postgresDialect{}
		err = d.openPostgres(ctx, o)
	} else {
		name = o.Path
		err = d.openSQLite(ctx, o.Path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the database %s: %w", name, kind.explain(err)), d.Close())
	}
	return d, nil
}

// Close closes the database.
func (d *DB) Close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// Ping reports whether the database answers and can be written to, and what time it is is known.
func (d *DB) Ping(ctx context.Context) error {
	if err := d.write.dialect.writable(ctx, d.write.pool); err != nil {
		return d.explain(err)
	}
	return d.TimeKnown()
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
