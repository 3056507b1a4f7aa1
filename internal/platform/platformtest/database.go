package platformtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	// The drivers by which tests look into the databases.
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// Postgres makes a database for a test in a PostgreSQL of the tests' own.
func Postgres(t testing.TB) *db.Postgres {
	t.Helper()
	return parse(t, PostgresURL(t))
}

// PostgresURL is Postgres for who hands it on.
func PostgresURL(t testing.TB) string {
	t.Helper()
	return postgrestest.Database(t, func(url string) error {
		server, err := db.ParsePostgres(url, "")
		if err != nil {
			return err
		}
		d, err := db.Open(context.Background(), db.Options{Postgres: server, Now: time.Now})
		if err != nil {
			return err
		}
		return d.Close()
	})
}

// migrated holds a SQLite database with the schema of now, and nothing in it.
var migrated = sync.OnceValues(func() (data []byte, err error) { //nolint:gochecknoglobals // one for all tests of a program
	dir, err := os.MkdirTemp("", "powernode-sqlite-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "platform.db")
	d, err := db.Open(context.Background(), db.Options{Path: path, Now: time.Now})
	if err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// file puts a database into a data directory that has none: to make one takes much longer than to copy it.
func file(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, "platform.db")
	if _, err := os.Lstat(path); err == nil {
		return
	}
	data, err := migrated()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Empty is Postgres without anything in it.
func Empty(t testing.TB) *db.Postgres {
	t.Helper()
	return parse(t, postgrestest.Empty(t))
}

func parse(t testing.TB, url string) *db.Postgres {
	t.Helper()
	server, err := db.ParsePostgres(url, "")
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// Database is the platform's PostgreSQL, or nil.
func (p *Platform) Database() *db.Postgres { return p.options.Database }

// Replica starts another platform over the same PostgreSQL, with a data directory of its own; its options must let several be one.
func (p *Platform) Replica() *Platform {
	p.t.Helper()
	return start(p.t, p.options, filepath.Join(p.t.TempDir(), "replica"), "127.0.0.1:0", p.Clock, &p.Config)
}

// parameter is ? or ?1 in a query.
var parameter = regexp.MustCompile(`\?(\d*)`)

// Hold keeps all that the platform knows of heartbeats from being written, until the returned function is called; there must be some. It is to be
// called within the seconds for which the platform waits.
func (p *Platform) Hold() (release func()) {
	p.t.Helper()
	d := p.open()
	tx, err := d.BeginTx(p.t.Context(), nil)
	if err == nil {
		_, err = tx.ExecContext(p.t.Context(), "UPDATE reports SET uptime_seconds = uptime_seconds")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		// Nothing was changed.
		_ = tx.Rollback()
		_ = d.Close()
	})
	p.t.Cleanup(release)
	return release
}

// open opens the platform's database behind its back.
func (p *Platform) open() *sql.DB {
	p.t.Helper()
	driver, source := "sqlite", filepath.Join(p.Dir, "platform.db")+"?_pragma=busy_timeout(10000)"
	if p.options.Database != nil {
		driver, source = "pgx", p.options.Database.URL()
	}
	d, err := sql.Open(driver, source)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// Execute changes the platform's database behind its back, by a statement in the words that SQLite and PostgreSQL have in common, with ?
// or ?1 for parameters. It must change something.
func (p *Platform) Execute(query string, args ...any) {
	p.t.Helper()
	if p.options.Database != nil {
		n := 0
		query = parameter.ReplaceAllStringFunc(query, func(s string) string {
			if n++; s == "?" {
				return fmt.Sprintf("$%d", n)
			}
			return "$" + s[1:]
		})
	}
	d := p.open()
	defer d.Close() //nolint:errcheck // what it did is done
	result, err := d.ExecContext(p.t.Context(), query, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		p.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}
