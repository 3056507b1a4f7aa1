package db

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// asked is one query with its parameters.
type asked struct {
	query string
	args  []any
}

// listening is a dialect that notes what is asked.
type listening struct {
	dialect
	heard *[]asked
}

func (l listening) query(text string) string {
	text = l.dialect.query(text)
	*l.heard = append(*l.heard, asked{query: text})
	return text
}

func (l listening) args(list []any) []any {
	list = l.dialect.args(list)
	(*l.heard)[len(*l.heard)-1].args = list
	return list
}

// many fills the tables that grow: those of 40 nodes, of whose tasks few are open, and none of the newest.
func many(t *testing.T, d *DB) {
	t.Helper()
	const upTo = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
	text := func(s string) string {
		if postgrestest.Wanted() {
			return "CAST(" + s + " AS TEXT)"
		}
		return s
	}
	for _, query := range []asked{
		{"INSERT INTO nodes (id, name, architecture, created_at) " + upTo + "SELECT " + text("i") + ", 'web-' || i, 'amd64', 1 FROM n", []any{40}},
		{"INSERT INTO node_events (node_id, event_id, received_at, at, kind, severity, text, fields) " + upTo +
			"SELECT " + text("i % 39 + 1") + ", " + text("i") + ", 1, 1, 'k', 'info', 't', '{}' FROM n", []any{20_000}},
		{"INSERT INTO events (at, kind, node_id, text) " + upTo + "SELECT 1, 'k', " + text("i % 39 + 1") + ", 't' FROM n", []any{20_000}},
		{"INSERT INTO tasks (id, node_id, kind, options, requested_by, created_at, deadline_seconds, state) " + upTo +
			"SELECT " + text("i") + ", " + text("i % 39 + 1") + ", 'sync', '{}', 'o', 1, 60, CASE WHEN i < 5 THEN 'pending' ELSE 'complete' END FROM n", []any{20_000}},
		{"INSERT INTO audit (at, actor, role, address, action, target, request, result, error, request_id) " + upTo +
			"SELECT i, 'a' || (i % 39), 'deploy', '', 'x', '', '', 'ok', '', '' FROM n", []any{20_000}},
		{"INSERT INTO attention (node_id, kind, at, text) " + upTo + "SELECT " + text("i % 39 + 1") + ", 'k' || i, 1, 't' FROM n", []any{4000}},
	} {
		execute(t, d, query.query, query.args...)
	}
	execute(t, d, "ANALYZE")
}

var (
	// scans is SQLite's word for a table that is read from one end; by what index, if any, comes after it. All of an index of the open tasks
	// alone isn't much.
	scans = regexp.MustCompile(`^SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?`)
	// thrown is PostgreSQL's word for rows that it read in vain.
	thrown = regexp.MustCompile(`(?:Rows Removed by \w+(?: \w+)?): (\d+)`)
)

// wasted says what of a query's plan reads rows that aren't asked for, or "".
func wasted(t *testing.T, d *DB, q asked, allowed string) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if !postgrestest.Wanted() {
		rows := first(d.read.pool.QueryContext(ctx, "EXPLAIN QUERY PLAN "+q.query, q.args...))
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var detail string
			check(t, rows.Scan(&id, &parent, &unused, &detail))
			if m := scans.FindStringSubmatch(detail); m != nil && (m[2] == "" || m[2] != allowed) {
				return detail
			}
		}
		check(t, rows.Err())
		return ""
	}
	rows := first(d.read.pool.QueryContext(ctx, "EXPLAIN (ANALYZE, TIMING OFF) "+q.query, q.args...))
	defer rows.Close()
	for rows.Next() {
		var line string
		check(t, rows.Scan(&line))
		var n int
		if m := thrown.FindStringSubmatch(line); m != nil {
			if _, err := fmt.Sscan(m[1], &n); err != nil || n > 200 {
				return strings.TrimSpace(line)
			}
		}
	}
	check(t, rows.Err())
	return ""
}

// TestPlans: what asks for one node's, one actor's or the open ones of much reads these alone, found by an index. The one that is asked for
// has none: to look for nothing takes longest where all is looked at.
func TestPlans(t *testing.T) {
	d, _ := newDB(t)
	many(t, d)
	ctx := t.Context()
	var heard []asked
	d.read.dialect = listening{d.read.dialect, &heard}
	d.write.dialect = listening{d.write.dialect, &heard}
	for name, look := range map[string]func() error{
		"a node's events":         func() error { _, err := d.NodeEvents(ctx, "40", 100); return err },
		"events about a node":     func() error { _, err := d.Events(ctx, "40", 100); return err },
		"a node's tasks":          func() error { _, err := d.Tasks(ctx, Tasks{NodeID: "40", Limit: 100}); return err },
		"a node's open tasks":     func() error { _, err := d.Tasks(ctx, Tasks{NodeID: "40", Open: true, Limit: 100}); return err },
		"all open tasks":          func() error { _, err := d.Tasks(ctx, Tasks{Open: true, Limit: 100}); return err },
		"an actor's changes":      func() error { _, err := d.AuditLog(ctx, AuditQuery{Actor: "b", Limit: 100}); return err },
		"a node's attention":      func() error { _, err := d.Attention(ctx, "40"); return err },
		"tasks for a node":        func() error { _, err := d.LeaseTasks(ctx, "40", nil, 1); return err },
		"tasks that expire":       func() error { _, err := d.ExpireTasks(ctx); return err },
		"audit that is too old":   func() error { return explained(ctx, d, "SELECT id FROM audit WHERE at < ?", 1) },
		"whether a root is known": func() error { _, err := d.Explained(ctx, "40"); return err },
	} {
		heard = nil
		check(t, look())
		if len(heard) == 0 {
			t.Fatalf("%s: nothing was asked", name)
		}
		for _, q := range heard {
			if line := wasted(t, d, q, map[string]string{"all open tasks": "tasks_open_all", "tasks that expire": "tasks_open"}[name]); line != "" {
				t.Errorf("%s: %s\n%s", name, line, q.query)
			}
		}
	}
	// The test sees what it is about.
	if wasted(t, d, asked{query: "SELECT seq FROM tasks WHERE requested_by = 'x' LIMIT 100"}, "") == "" {
		t.Error("a plan that reads all isn't seen")
	}
}

// explained asks what another query has as its condition.
func explained(ctx context.Context, d *DB, query string, args ...any) error {
	rows, err := d.read.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	return rows.Close()
}
