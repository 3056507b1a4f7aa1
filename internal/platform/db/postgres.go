package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Keys of advisory locks. They are PostgreSQL's own namespace of the database; the number is "pwrn".
const (
	migrateLock = 0x7077726e_00000001
	writersLock = 0x7077726e_00000002
	ownerLock   = 0x7077726e // with the hash of an owner
)

// postgresDialect is that of PostgreSQL.
//
// Transactions that write are READ COMMITTED and take turns by advisory locks: those of one owner among themselves, and those of none
// among all. So each sees what the ones before it did, as in SQLite, and none has to be run again, which serializable
// isolation would ask of every second one that adds an event.
type postgresDialect struct {
	// instance tells this process's notifications from others'.
	instance string
	// queries are those that were translated before. There are as many as this package has.
	queries sync.Map
	turns   turns
}

// openPostgres connects to a server.
func (d *DB) openPostgres(ctx context.Context, o Options) error {
	server := *o.Postgres
	dialect := &postgresDialect{instance: NewID()}
	if err := d.migratePostgres(ctx, server); err != nil {
		return err
	}
	write, read := server.pool(server.writing()), server.pool(server.reading())
	d.write, d.read = conn{pool: write, dialect: dialect}, conn{pool: read, dialect: dialect}
	d.closers = append(d.closers, write.Close, read.Close)
	l := listener{server: server, hub: d.hub, log: d.log, instance: dialect.instance}
	d.closers = append(d.closers, l.start(ctx))
	d.server = newServerTime(o, read, d.log)
	d.now = d.server.now
	stop, err := d.server.start(ctx)
	if err == nil {
		d.closers = append(d.closers, stop)
	}
	return err
}

// migratePostgres lets one process at a time bring the schema up to date.
func (d *DB) migratePostgres(ctx context.Context, server Postgres) (err error) {
	// A pool of its own, whose statements take the time that they need.
	pool := server.pool("")
	defer func() { err = errors.Join(err, pool.Close()) }()
	holder, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, holder.Close()) }()
	if _, err := holder.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrateLock)); err != nil {
		return fmt.Errorf("wait for another process that brings the schema up to date: %w", err)
	}
	err = d.migrate(ctx, pool, goose.DialectPostgres, "postgres")
	// The lock ends with its connection.
	return err
}

// query gives parameters PostgreSQL's form: the nth ? is $n, and ?N is $N.
func (p *postgresDialect) query(text string) string {
	if done, ok := p.queries.Load(text); ok {
		return done.(string) //nolint:forcetypeassert // nothing else is stored
	}
	done := dollars(text)
	p.queries.Store(text, done)
	return done
}

func dollars(text string) string {
	var b strings.Builder
	quoted, n := false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'':
			quoted = !quoted
			b.WriteByte(c)
		case c == '?' && !quoted:
			end := i + 1
			for end < len(text) && '0' <= text[end] && text[end] <= '9' {
				end++
			}
			b.WriteByte('$')
			if number := text[i+1 : end]; number != "" {
				b.WriteString(number)
			} else {
				n++
				b.WriteString(strconv.Itoa(n))
			}
			i = end - 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// args replaces what PostgreSQL's texts can't hold and SQLite's can: zero bytes, and what isn't UTF-8. Nodes may send it.
func (*postgresDialect) args(list []any) []any {
	for i, arg := range list {
		if s, ok := arg.(string); ok && (strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)) {
			list[i] = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
		}
	}
	return list
}

func (*postgresDialect) options(writes bool) *sql.TxOptions {
	if writes {
		return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

func (p *postgresDialect) turn(ctx context.Context, owner string) (leave func(), err error) {
	return p.turns.take(ctx, owner, lockWait)
}

// serialize takes locks that end with the transaction, the one of all before that of an owner. Two owners of one hash wait for each other.
func (*postgresDialect) serialize(ctx context.Context, tx *sql.Tx, owner string) error {
	if owner == "" {
		_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(writersLock))
		return err
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock_shared($1), pg_advisory_xact_lock($2, hashtext($3))",
		int64(writersLock), int32(ownerLock), owner)
	return err
}

func (p *postgresDialect) notify(ctx context.Context, tx *sql.Tx, topic string) error {
	_, err := tx.ExecContext(ctx, "SELECT pg_notify($1, $2)", channel, p.instance+" "+topic)
	return err
}

// writable tells a standby, which another server may have become the primary of, and one that is set to read only.
func (*postgresDialect) writable(ctx context.Context, pool *sql.DB) error {
	var reads bool
	err := pool.QueryRowContext(ctx, "SELECT current_setting('transaction_read_only')::boolean").Scan(&reads)
	if err == nil && reads {
		err = fault.New(fault.Retry, fault.General, "name the primary server in --database", "the database only reads")
	}
	return err
}

// again is for a serialization failure and a deadlock. After a lost connection nobody knows what became of the
// transaction; the caller says so, and whoever asked asks again.
func (*postgresDialect) again(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// explain sorts by PostgreSQL's error codes (its manual, appendix A). What a person has to put right on the server is no refusal of the
// request that met it: the same one may succeed afterwards.
func (*postgresDialect) explain(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return explainCode(e, err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || pgconn.SafeToRetry(err) || connectionLost(err) {
		return fault.New(fault.Retry, fault.General, "check that PostgreSQL runs, and the host, port and sslmode in --database", "the database can't be reached: %w", err)
	}
	return err
}

func explainCode(e *pgconn.PgError, err error) error {
	class := e.Code
	if len(class) > 2 {
		class = class[:2]
	}
	switch {
	case e.Code == "23505":
		return fmt.Errorf("%w: %s", ErrExists, e.Message)
	case e.Code == "53100":
		return fault.New(fault.Retry, fault.Mount, "make room on the file system of the database server", "the database's disk is full: %w", err)
	case e.Code == "53300":
		return fault.New(fault.Retry, fault.General, "raise max_connections of the server, or run fewer platforms", "the database takes no further connection: %w", err)
	case e.Code == "55P03" || e.Code == "25P03":
		return fault.New(fault.Retry, fault.General, "see what holds locks in the server's view pg_stat_activity", "the database is busy: %w", err)
	case e.Code == "25006":
		return fault.New(fault.Retry, fault.General, "name the primary server in --database", "the database only reads: %w", err)
	case class == "28":
		return fault.New(fault.Retry, fault.General, "check the user in --database, and --database-password-file", "the database refuses this user: %w", err)
	case e.Code == "3D000":
		return fault.New(fault.Retry, fault.General, "make it with createdb, or name another in --database", "the server has no such database: %w", err)
	case e.Code == "42501":
		return fault.New(fault.Retry, fault.General, "make the user the owner of the database", "the database's user may not do that: %w", err)
	case class == "08" || class == "57":
		return fault.New(fault.Retry, fault.General, "see the database server's log", "the database was interrupted: %w", err)
	case class == "53":
		return fault.New(fault.Retry, fault.General, "see the database server's log", "the database is out of resources: %w", err)
	case class == "XX" || class == "58":
		return fault.New(fault.Broken, fault.Mount, "see the database server's log; restore it from a backup if it is damaged", "the database is damaged: %w", err)
	default:
		return err
	}
}
