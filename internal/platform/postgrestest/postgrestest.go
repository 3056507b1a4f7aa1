// Package postgrestest runs a real PostgreSQL for tests: one server for a program of tests, made on its first use and ended
// with the program, and a database of its own for each test.
//
// It promises nothing to production code, which must not import it. The server keeps nothing safe (it never syncs), listens on a
// unix socket alone, lets everyone in by that, and runs as a user without rights, since PostgreSQL refuses root. Where it isn't installed,
// tests are skipped with the command that installs it, or fail where the tools are required.
package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// Users of the server. The one with the password needs it; the others need none.
const (
	// Owner owns the databases of tests, and can do nothing else.
	Owner = "platform"
	// Guarded is a user who must give Password.
	Guarded  = "guarded"
	Password = "correct horse"
	admin    = "postgres"
)

// Variable names, in the environment, the database that packages' tests run over: "postgres", or SQLite.
const Variable = "POWERNODE_TEST_DATABASE"

// Wanted reports whether the tests that are under way are to run over PostgreSQL.
func Wanted() bool { return os.Getenv(Variable) == "postgres" }

// shared is the server of this program, once it is started.
type shared struct {
	sync.Mutex
	server   *server
	err      error
	prepared bool
	count    atomic.Int64
}

var program shared //nolint:gochecknoglobals // one server for all tests of a program

// Database makes a database for a test and returns its URL. The first call of a program starts the server, and has
// prepare fill the database that all others are copies of; later calls leave prepare alone. The database ends with the test.
func Database(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	return database(t, prepare, "template_tests")
}

// Empty is Database without anything in it.
func Empty(t testing.TB) string {
	t.Helper()
	return database(t, nil, "template0")
}

func database(t testing.TB, prepare func(url string) error, template string) string {
	t.Helper()
	s := started(t, prepare)
	name := fmt.Sprintf("test_%d", program.count.Add(1))
	if err := s.create(name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nobody waits for it. FORCE: a test that failed may have left it open.
		go func() { _ = s.run("DROP DATABASE " + name + " WITH (FORCE)") }()
	})
	return s.url(name)
}

func started(t testing.TB, prepare func(url string) error) *server {
	t.Helper()
	program.Lock()
	defer program.Unlock()
	if program.server == nil && program.err == nil {
		bin, err := programs()
		if err != nil {
			oracle.Missing(t, err.Error())
		}
		program.server, program.err = start(bin)
	}
	if program.err != nil {
		t.Fatal(program.err)
	}
	s := program.server
	if prepare != nil && !program.prepared {
		if program.err = s.prepare(prepare); program.err != nil {
			t.Fatal(program.err)
		}
		program.prepared = true
	}
	return s
}

// prepare makes the template of the tests' databases.
func (s *server) prepare(fill func(url string) error) error {
	if err := s.create("template_tests", "template0"); err != nil {
		return err
	}
	return fill(s.url("template_tests"))
}

func (s *server) create(name, template string) error {
	// The files are copied as they are: the other way writes each page into the log, and takes thrice as long.
	return s.run("CREATE DATABASE " + name + " TEMPLATE " + template + " OWNER " + Owner + " STRATEGY FILE_COPY")
}

// url is how Owner reaches a database.
func (s *server) url(name string) string {
	u := url.URL{Scheme: "postgres", User: url.User(Owner), Path: "/" + name, RawQuery: url.Values{"host": {s.dir}}.Encode()}
	return u.String()
}

// run runs statements as the server's administrator.
func (s *server) run(statements ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// From when it is its turn: others' may take long on a busy machine.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if s.admin == nil || s.admin.IsClosed() {
		c, err := pgx.Connect(ctx, "postgres://"+admin+"@/postgres?host="+url.QueryEscape(s.dir))
		if err != nil {
			return err
		}
		s.admin = c
	}
	for _, statement := range statements {
		if _, err := s.admin.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Administer runs statements as the server's administrator, in no test's database.
func Administer(t testing.TB, statements ...string) {
	t.Helper()
	if err := started(t, nil).run(statements...); err != nil {
		t.Fatal(err)
	}
}

// Socket returns the path of the unix socket that the server behind a database's URL listens on.
func Socket(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
}

// programs returns the directory of the newest server's programs.
func programs() (string, error) {
	// Debian keeps them by version, out of the way.
	list, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(list) == 0 {
		return "", fmt.Errorf("PostgreSQL isn't installed; run scripts/setup")
	}
	newest := list[0]
	for _, path := range list {
		// Versions have two digits, until there is a 100.
		if strings.Compare(path, newest) > 0 {
			newest = path
		}
	}
	return filepath.Dir(newest), nil
}
