package db

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestOperatorRecords(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	hash := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
	if _, err := d.OperatorByHash(ctx, hash("first")); !errors.Is(err, ErrNotFound) {
		t.Errorf("before there is one: %v", err)
	}
	first(d.SetOperatorHash(ctx, hash("first"), true))
	if o := first(d.OperatorByHash(ctx, hash("first"))); o.Name != FirstOperator || o.Role != "admin" || !o.CreatedAt.Equal(c.now()) {
		t.Errorf("%+v", o)
	}
	first(d.CreateOperator(ctx, Operator{Name: "a", Role: "read", CreatedBy: FirstOperator}, hash("a")))
	for name, o := range map[string]Operator{"the name": {Name: "a", Role: "read"}, "the first's name": {Name: FirstOperator, Role: "read"}} {
		if _, err := d.CreateOperator(ctx, o, hash(name)); !errors.Is(err, ErrExists) {
			t.Errorf("%s twice: %v", name, err)
		}
	}
	if _, err := d.CreateOperator(ctx, Operator{Name: "b", Role: "root"}, hash("b")); err == nil {
		t.Error("a role that there isn't")
	}
	if o := first(d.OperatorByHash(ctx, hash("a"))); o.Name != "a" || o.Role != "read" || o.CreatedBy != FirstOperator {
		t.Errorf("%+v", o)
	}
	for i := 1; i < maxOperators; i++ {
		name := fmt.Sprintf("more-%d", i)
		first(d.CreateOperator(ctx, Operator{Name: name, Role: "deploy", CreatedBy: "a"}, hash(name)))
	}
	if _, err := d.CreateOperator(ctx, Operator{Name: "z", Role: "read"}, hash("z")); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more than there may be: %v", err)
	}
	check(t, d.RevokeOperator(ctx, "a"))
	if err := d.RevokeOperator(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
	if _, err := d.OperatorByHash(ctx, hash("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("after it was revoked: %v", err)
	}
	if list := first(d.Operators(ctx)); len(list) != maxOperators || list[0].Name != FirstOperator {
		t.Errorf("%d", len(list))
	}
}

// TestIntent: what is changed on somebody's behalf is in the audit log if, and only if, it is committed, and once.
func TestIntent(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	intent := &Intent{Entry: Audit{Actor: "a", Role: "admin", Address: "192.0.2.1", Action: "node.create", Target: "web", Request: "{\x00\xff}", Result: AuditOK, RequestID: "r"}}
	with := WithIntent(ctx, intent)
	boom := errors.New("boom")
	if err := d.update(with, func(tx *txn) error {
		if _, err := tx.Exec(with, "INSERT INTO nodes (id, name, architecture, created_at) VALUES ('x', 'x', '', 1)"); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if list := first(d.AuditLog(ctx, AuditQuery{Limit: 10})); intent.Written || len(list) != 0 {
		t.Errorf("of what was undone: %+v", list)
	}
	first(d.CreateNode(WithoutIntent(with), "web-0", ""))
	first(d.CreateNode(with, "web-1", ""))
	first(d.CreateNode(with, "web-2", ""))
	list := first(d.AuditLog(ctx, AuditQuery{Limit: 10}))
	if !intent.Written || len(list) != 1 || list[0].Target != "web" || list[0].Actor != "a" || list[0].Result != AuditOK || list[0].At.IsZero() {
		t.Errorf("%+v", list)
	}
	// A commit that fails leaves neither.
	canceled, cancel := context.WithCancel(WithIntent(ctx, &Intent{Entry: intent.Entry}))
	cancel()
	if _, err := d.CreateNode(canceled, "web-3", ""); err == nil {
		t.Error("made by who has gone")
	}
	if list := first(d.AuditLog(ctx, AuditQuery{Limit: 10})); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

// TestIntentIdle: what changes nothing is in no log.
func TestIntentIdle(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "web-1", ""))
	m := first(d.Register(ctx, Module{Name: "base", Variety: "config", Version: "1", Repository: "r", Digest: "x", Images: []Image{{Architecture: "amd64", ManifestDigest: "y"}}}))
	for i, want := range []bool{true, false, false} {
		intent := &Intent{Entry: Audit{Actor: "a", Role: "deploy", Action: "module.assign", Result: AuditOK}}
		check(t, d.Assign(WithIntent(ctx, intent), n.ID, m, nil))
		if list := first(d.AuditLog(ctx, AuditQuery{Limit: 10})); intent.Written != want || intent.Idle == want || len(list) != 1 {
			t.Errorf("assigned %d times: %+v, and %d entries", i+1, intent, len(list))
		}
	}
	// An insertion with RETURNING counts.
	intent := &Intent{Entry: Audit{Actor: "a", Role: "deploy", Action: "x", Result: AuditOK}}
	check(t, d.update(WithIntent(ctx, intent), func(tx *txn) error {
		var id int64
		return tx.QueryRow(ctx, "UPDATE nodes SET name = 'web-2' WHERE id = ? RETURNING 1", n.ID).Scan(&id)
	}))
	if !intent.Written || intent.Idle {
		t.Errorf("%+v", intent)
	}
}

// TestAuditIsBounded: an actor's oldest go, and nobody else's; all go when they are old.
func TestAuditIsBounded(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	check(t, d.RecordAudit(ctx, Audit{Actor: "other", Role: "admin", Action: "x", Target: "first", Result: AuditOK}))
	const more = 2*pruneAudit + 5
	check(t, d.update(ctx, func(tx *txn) error {
		_, err := tx.Exec(ctx, `INSERT INTO audit (at, actor, role, address, action, target, request, result, error, request_id)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			SELECT ?, 'busy', 'deploy', '', 'x', 'old', '', 'ok', '', '' FROM n`, AuditShare, millis(c.now()))
		return err
	}))
	for i := range more {
		check(t, d.RecordAudit(ctx, Audit{Actor: "busy", Role: "deploy", Action: "x", Target: fmt.Sprint(i), Result: "FORBIDDEN"}))
	}
	var n int
	check(t, d.read.QueryRow(ctx, "SELECT count(*) FROM audit").Scan(&n))
	if n < AuditShare+1 || n > AuditShare+pruneAudit+1 {
		t.Errorf("%d entries", n)
	}
	if list := first(d.AuditLog(ctx, AuditQuery{Actor: "busy", Limit: more + 1})); list[0].Target != fmt.Sprint(more-1) || list[more-1].Target != "0" || list[more].Target != "old" {
		t.Errorf("not the latest: %+v", list)
	}
	if list := first(d.AuditLog(ctx, AuditQuery{Actor: "other", Limit: 10})); len(list) != 1 || list[0].Target != "first" {
		t.Errorf("another's: %+v", list)
	}
	c.advance(AuditLife + time.Second)
	for range pruneAudit {
		check(t, d.RecordAudit(ctx, Audit{Actor: "later", Role: "deploy", Action: "x", Result: AuditOK}))
	}
	if list := first(d.AuditLog(ctx, AuditQuery{Limit: 1000})); len(list) > pruneAudit || list[len(list)-1].Actor != "later" {
		t.Errorf("%d entries after %s", len(list), AuditLife)
	}
}

// TestExplained: a node's root is explained if it was expected of that node; only the latest are remembered.
func TestExplained(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	a, b := first(d.CreateNode(ctx, "a", "amd64")), first(d.CreateNode(ctx, "b", "amd64"))
	root := func(i int) string { return strings.Repeat(fmt.Sprintf("%04x", i), 16) }
	runs := func(n Node, digest string) {
		t.Helper()
		check(t, d.Heartbeat(ctx, Sender{NodeID: n.ID, From: "192.0.2.1"}, nodeapi.Heartbeat{
			BootID: "b", AgentVersion: "v", Architecture: "amd64", MountState: nodeapi.MountMounted, RootDigest: digest,
		}))
	}
	for i := range keepNodeRoots + 3 {
		c.advance(time.Second)
		check(t, d.RootExpected(ctx, a.ID, root(i)))
		check(t, d.RootExpected(ctx, a.ID, root(i)))
	}
	for i, want := range map[int]bool{0: false, 2: false, 3: true, keepNodeRoots + 2: true, keepNodeRoots + 3: false} {
		runs(a, root(i))
		runs(b, root(i))
		for _, of := range []string{"", a.ID} {
			if got := first(d.Explained(ctx, of)); got[a.ID] != want || got[b.ID] {
				t.Errorf("root %d: %v", i, got)
			}
		}
	}
	// What is expected again is among the latest again.
	c.advance(time.Second)
	check(t, d.RootExpected(ctx, a.ID, root(3)))
	c.advance(time.Second)
	check(t, d.RootExpected(ctx, a.ID, root(1000)))
	runs(a, root(3))
	if !first(d.Explained(ctx, ""))[a.ID] {
		t.Error("it was forgotten")
	}
}
