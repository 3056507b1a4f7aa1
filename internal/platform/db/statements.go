package db

import (
	"context"
	"database/sql"
	"sync"
)

// statements are the queries of a pool that are parsed already. To parse one costs SQLite as much as to run it, and its driver keeps none
// by itself; PostgreSQL's does, for each connection. There are as many as this package has queries.
type statements struct {
	pool *sql.DB
	kept sync.Map // of *sql.Stmt, by their text
}

// known returns the statement of a query, or nil.
func (s *statements) known(query string) *sql.Stmt {
	kept, _ := s.kept.Load(query)
	stmt, _ := kept.(*sql.Stmt)
	return stmt
}

// prepare returns the statement of a query. It isn't for who holds one of the pool's connections: the one that it waits for may be that.
func (s *statements) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := s.known(query); stmt != nil {
		return stmt, nil
	}
	stmt, err := s.pool.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if first, loaded := s.kept.LoadOrStore(query, stmt); loaded {
		if first, ok := first.(*sql.Stmt); ok {
			return first, stmt.Close()
		}
	}
	return stmt, nil
}

// row is conn.QueryRow for a query in the database's own words.
func (c conn) row(ctx context.Context, query string, args []any) *sql.Row {
	if c.statements != nil {
		// What is wrong with a query, running it tells as well.
		if stmt, err := c.statements.prepare(ctx, query); err == nil {
			return stmt.QueryRowContext(ctx, args...)
		}
	}
	return c.pool.QueryRowContext(ctx, query, args...)
}

// statement returns the transaction's own statement of a query; nil where there is none yet. It will be there for the next one.
func (t *txn) statement(ctx context.Context, query string) *sql.Stmt {
	if t.statements == nil {
		return nil
	}
	if stmt := t.statements.known(query); stmt != nil {
		return t.tx.StmtContext(ctx, stmt)
	}
	t.unknown = append(t.unknown, query)
	return nil
}

// learn prepares what the transaction has run without. The transaction has ended, and what comes of this isn't its concern.
func (t *txn) learn(ctx context.Context) {
	for _, query := range t.unknown {
		if _, err := t.statements.prepare(ctx, query); err != nil {
			return
		}
	}
}
