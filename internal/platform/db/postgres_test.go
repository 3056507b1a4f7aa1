package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// overPostgres is for tests of what only PostgreSQL has: they are in the second run.
func overPostgres(t *testing.T) {
	t.Helper()
	if !postgrestest.Wanted() {
		t.Skip("it is about PostgreSQL")
	}
}

func TestDollars(t *testing.T) {
	for in, want := range map[string]string{
		"SELECT 1": "SELECT 1", "a = ? AND b = ?": "a = $1 AND b = $2", "?1 = '' OR n = ?1 AND ?12": "$1 = '' OR n = $1 AND $12",
		"'it''s ?' || ?": "'it''s ?' || $1", "": "", "?": "$1",
	} {
		if got := dollars(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := (sqliteDialect{}).query("SELECT a FROM b WHERE c = ? LIMIT 1 FOR UPDATE SKIP LOCKED"); got != "SELECT a FROM b WHERE c = ? LIMIT 1" {
		t.Errorf("%q", got)
	}
}

func TestParsePostgres(t *testing.T) {
	// What the environment says of other programs' databases is no part of this test.
	for _, name := range []string{"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGSSLMODE", "PGPASSFILE", "PGSERVICE"} {
		t.Setenv(name, "")
		check(t, os.Unsetenv(name))
	}
	for text, want := range map[string]string{
		"postgres://u@db.example/p":                     "p on db.example verified",
		"postgresql://u@db.example/p":                   "p on db.example verified",
		"postgres://u@db.example/p?sslmode=require":     "p on db.example unverified",
		"postgres://u@db.example/p?sslmode=verify-full": "p on db.example verified",
		"postgres://u@db.example/p?sslmode=disable":     "p on db.example unverified",
		"postgres://u@127.0.0.1:5433/p":                 "p on 127.0.0.1 verified",
		"postgres://u@localhost/p":                      "p on localhost verified",
		"postgres://u@/p?host=/run/postgresql":          "p on /run/postgresql verified",
		"postgres://u@a.example,b.example/p":            "p on a.example verified",
	} {
		p, err := ParsePostgres(text, "")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := p.Name() + " verified"
		if p.Unverified() {
			got = p.Name() + " unverified"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{
		"", "platform.db", "mysql://u@h/p", "postgres://u:hidden@h/p", "postgres://u@h/p?password=hidden", "postgres://u@h:hidden/p",
		"postgres://u@h/p?sslpassword=hidden", "postgres://u@h/p?%zz=hidden", "postgres://u@h/p?sslmode=maybe", "postgres://u:hidden@h/p?sslmode=%zz",
	} {
		_, err := ParsePostgres(text, "")
		if err == nil || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := ParsePostgres("postgres://u@/p", filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(fault.HintOf(err), "--database-password-file") {
		t.Errorf("a password file that isn't there: %v", err)
	}
}

// TestPassword: the password is read for each connection, and a wrong one is said so.
func TestPassword(t *testing.T) {
	overPostgres(t)
	u := first(url.Parse(postgrestest.Empty(t)))
	u.User = url.User(postgrestest.Guarded)
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) { check(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("wrong\n")
	server := first(ParsePostgres(u.String(), file))
	_, err := Open(t.Context(), Options{Postgres: server, Now: time.Now})
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(fault.HintOf(err), "--database-password-file") {
		t.Errorf("a wrong password: %v", err)
	}
	write(postgrestest.Password + "\n")
	pool := server.pool("")
	defer pool.Close()
	check(t, pool.PingContext(t.Context()))
	// One that went away later is for a person to put back, and no word against who asks meanwhile.
	check(t, os.Remove(file))
	other := server.pool("")
	defer other.Close()
	if err := (&postgresDialect{}).explain(other.PingContext(t.Context())); fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestPostgresErrors(t *testing.T) {
	d := &postgresDialect{}
	for code, want := range map[string]fault.Kind{
		"53100": fault.Retry, "53300": fault.Retry, "25006": fault.Retry, "28P01": fault.Retry, "28000": fault.Retry, "3D000": fault.Retry, "42501": fault.Retry,
		"08006": fault.Retry, "55P03": fault.Retry, "57P01": fault.Retry, "57P03": fault.Retry, "53200": fault.Retry, "XX001": fault.Broken, "58030": fault.Broken,
	} {
		err := d.explain(fmt.Errorf("x: %w", &pgconn.PgError{Code: code, Message: "m"}))
		if fault.KindOf(err) != want || fault.HintOf(err) == "" {
			t.Errorf("%s: %s %v", code, fault.KindOf(err), err)
		}
	}
	if err := d.explain(&pgconn.PgError{Code: "23505"}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	for _, err := range []error{io.ErrUnexpectedEOF, &net.OpError{Err: errors.New("reset")}} {
		if got := d.explain(err); fault.KindOf(got) != fault.Retry {
			t.Errorf("%v: %v", err, got)
		}
	}
	for _, err := range []error{context.Canceled, errors.New("other"), &pgconn.PgError{Code: "42601"}, &pgconn.PgError{}} {
		if got := d.explain(err); got != err { //nolint:errorlint // the very same
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestNoServer(t *testing.T) {
	_, err := Open(t.Context(), Options{Postgres: first(ParsePostgres("postgres://u@/p?host="+url.QueryEscape(t.TempDir()), "")), Now: time.Now})
	if err == nil || fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	overPostgres(t)
	u := first(url.Parse(postgrestest.Empty(t)))
	u.Path = "/absent"
	_, err = Open(t.Context(), Options{Postgres: first(ParsePostgres(u.String(), "")), Now: time.Now})
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(fault.HintOf(err), "createdb") {
		t.Errorf("%v", err)
	}
}

// TestOddTexts: what a node may send and PostgreSQL's texts can't hold is kept as well as it goes.
func TestOddTexts(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", ""))
	odd := "zero \x00, half \xff, whole ü"
	check(t, d.Heartbeat(ctx, Sender{n.ID, "c", "192.0.2.1"}, nodeapi.Heartbeat{AgentVersion: odd, BootID: odd, LoadAverage: odd, Remarks: []string{odd}}))
	if got := first(d.Node(ctx, n.ID)).Report; got == nil || !strings.HasSuffix(got.AgentVersion, "whole ü") || !strings.HasSuffix(got.Remarks[0], "whole ü") {
		t.Errorf("%+v", got)
	}
	if _, err := d.Node(ctx, odd); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// TestTransactionsTakeTurns: those of one owner one after the other, those of none alone; and what is read in them is what the ones before have
// written.
func TestTransactionsTakeTurns(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", ""))
	// A count that is read and written again loses nothing.
	raise := func(owner string) error {
		return d.updateOf(ctx, owner, func(tx *txn) error {
			var now int64
			if err := tx.QueryRow(ctx, "SELECT created_at FROM nodes WHERE id = ?", n.ID).Scan(&now); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE nodes SET created_at = ? WHERE id = ?", now+1, n.ID)
			return err
		})
	}
	before := first(d.Node(ctx, n.ID)).CreatedAt
	var wg sync.WaitGroup
	const workers, rounds = 8, 10
	for i := range workers {
		wg.Go(func() {
			for range rounds {
				owner := n.ID
				if i%2 == 0 {
					owner = ""
				}
				if err := raise(owner); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := first(d.Node(ctx, n.ID)).CreatedAt.Sub(before); got != workers*rounds*time.Millisecond {
		t.Errorf("%s of %d", got, workers*rounds)
	}
}

// TestDeadlock: of two transactions that wait for each other the server ends one, and it is run again.
func TestDeadlock(t *testing.T) {
	overPostgres(t)
	d, _ := newDB(t)
	ctx := t.Context()
	a, b := first(d.CreateNode(ctx, "a", "")), first(d.CreateNode(ctx, "b", ""))
	var meet sync.WaitGroup
	meet.Add(2)
	var runs sync.Map
	touch := func(mine, other string) error {
		begun := false
		return d.updateOf(ctx, mine, func(tx *txn) error {
			n, _ := runs.LoadOrStore(mine, new(int))
			*n.(*int)++ //nolint:forcetypeassert // just stored
			for i, id := range []string{mine, other} {
				if _, err := tx.Exec(ctx, "UPDATE nodes SET created_at = created_at + 1 WHERE id = ?", id); err != nil {
					return err
				}
				if i == 0 && !begun {
					begun = true
					meet.Done()
					meet.Wait()
				}
			}
			return nil
		})
	}
	errs := make(chan error, 2)
	go func() { errs <- touch(a.ID, b.ID) }()
	go func() { errs <- touch(b.ID, a.ID) }()
	check(t, <-errs)
	check(t, <-errs)
	total := 0
	runs.Range(func(_, n any) bool { total += *n.(*int); return true }) //nolint:forcetypeassert // as above
	if got := first(d.Node(ctx, "a")).CreatedAt.Sub(a.CreatedAt); got != 2*time.Millisecond || total < 3 {
		t.Errorf("%s, in %d runs", got, total)
	}
}

// TestStandstill: a platform that stands still in the middle of a transaction holds the others up for a while only.
func TestStandstill(t *testing.T) {
	overPostgres(t)
	at := place(t)
	at.Postgres.idleWait, at.Postgres.lockWait = time.Hour, time.Millisecond
	still, patient := *at.Postgres, *at.Postgres
	still.idleWait = 50 * time.Millisecond
	patient.lockWait = time.Minute
	c := newClock()
	hasty, slow, waits := reopen(t, at, c), reopen(t, Options{Postgres: &still}, c), reopen(t, Options{Postgres: &patient}, c)
	ctx := t.Context()
	begun, gone := make(chan struct{}), make(chan struct{})
	stood := make(chan error, 1)
	go func() {
		for stands := false; ; {
			err := slow.update(ctx, func(*txn) error {
				if !stands {
					stands = true
					close(begun)
				}
				<-gone
				return nil
			})
			// On a busy machine it may stand still for so long before it has begun, too.
			if stands || fault.KindOf(err) != fault.Retry {
				stood <- err
				return
			}
		}
	}()
	select {
	case <-begun:
	case err := <-stood:
		t.Fatal(err)
	}
	// Who doesn't wait is told so, unless it is over already; who waits gets through.
	if _, err := hasty.CreateNode(ctx, "a", ""); err != nil && fault.KindOf(err) != fault.Retry {
		t.Error(err)
	}
	if _, err := waits.CreateNode(ctx, "b", ""); err != nil {
		t.Error(err)
	}
	close(gone)
	if err := <-stood; fault.KindOf(err) != fault.Retry {
		t.Errorf("%v", err)
	}
}

// TestWatchOther: who waits in one process is woken by another one, also after all connections were cut.
func TestWatchOther(t *testing.T) {
	overPostgres(t)
	c := newClock()
	at := place(t)
	one, two := reopen(t, at, c), reopen(t, at, c)
	ctx := t.Context()
	n := first(one.CreateNode(ctx, "n", ""))
	woken, other := two.Watch(ctx, TaskTopic(n.ID)), two.Watch(ctx, "other")
	newTask(t, one, n.ID, nodeapi.TaskSync)
	<-woken
	select {
	case <-other:
		t.Error("another topic's")
	default:
	}
	postgrestest.Administer(t, fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'", at.Postgres.Database()))
	// Everyone, once the connection is there again.
	<-other
	drain(woken)
	for first, err := one.Node(ctx, n.ID); err != nil || first.ID == ""; first, err = one.Node(ctx, n.ID) {
		if fault.KindOf(err) != fault.Retry {
			t.Fatal(err)
		}
	}
	for {
		// The first ones may meet a connection that was cut.
		_, err := one.CreateTask(ctx, taskOf(n.ID, nodeapi.TaskIntrospect))
		if err == nil {
			break
		}
		if fault.KindOf(err) != fault.Retry {
			t.Fatal(err)
		}
	}
	<-woken
}

func drain(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// TestWatchEnds: nothing is left of who waited.
func TestWatchEnds(t *testing.T) {
	d, _ := newDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	ch := d.Watch(ctx, "a")
	d.Watch(t.Context(), "b")
	d.hub.wakeAll()
	<-ch
	cancel()
	for {
		d.hub.mu.Lock()
		left := len(d.hub.watchers)
		d.hub.mu.Unlock()
		if left == 1 {
			return
		}
	}
}

// TestWatchNeedsACommit: a transaction that comes to nothing wakes nobody.
func TestWatchNeedsACommit(t *testing.T) {
	d, _ := newDB(t)
	ch := d.Watch(t.Context(), "a")
	undone := errors.New("undone")
	err := d.update(t.Context(), func(tx *txn) error {
		check(t, tx.notify(t.Context(), "a"))
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	select {
	case <-ch:
		t.Error("woken")
	default:
	}
}

// TestOpenAtOnce: several processes bring one empty database up to date.
func TestOpenAtOnce(t *testing.T) {
	overPostgres(t)
	server := first(ParsePostgres(postgrestest.Empty(t), ""))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var said bytes.Buffer
			d, err := Open(t.Context(), Options{Postgres: server, Now: time.Now, Logger: slog.New(slog.NewTextHandler(&said, nil))})
			if err != nil {
				t.Error(err)
				return
			}
			if said.Len() > 0 {
				t.Errorf("%s", &said)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
