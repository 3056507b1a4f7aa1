package db

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// TestSuccessors goes through what becomes of a node's certificates, without a network.
func TestSuccessors(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node, old := enrolled(t, d, c, "web-1")
	_, others := enrolled(t, d, c, "web-2")
	issued := 1000
	issue := issuer(c, 90*24*time.Hour, &issued)
	key := func(n int) [32]byte { return sha256.Sum256(fmt.Append(nil, n)) }
	refresh := func(presented Certificate, n int) (Certificate, error) {
		return d.Refresh(ctx, Refresh{Presented: presented.ID, KeyHash: key(n), From: "192.0.2.1", Issue: issue})
	}
	verdict := RenewIssue
	renew := func(presented Certificate, n int) (Renewed, error) {
		return d.Renew(ctx, RenewRequest{
			Presented: presented.Fingerprint, KeyHash: key(n), From: "192.0.2.1", Issue: issue, Judge: func(Certificate) RenewVerdict { return verdict },
		})
	}
	if _, err := d.Refresh(ctx, Refresh{Presented: old.ID, KeyHash: others.KeyHash, Issue: issue}); !errors.Is(err, ErrKeyUsed) {
		t.Errorf("another node's key: %v", err)
	}
	a := first(refresh(old, 1))
	check(t, d.FirstUse(ctx, old.ID, "")) // the old one goes on, and ends nothing that is newer
	if s := first(d.Standing(ctx, a.Fingerprint)); s.Superseded || s.Revoked {
		t.Errorf("%+v", s)
	}
	check(t, d.FirstUse(ctx, a.ID, ""))
	check(t, d.FirstUse(ctx, a.ID, ""))
	if err := d.FirstUse(ctx, old.ID, ""); !errors.Is(err, ErrSuperseded) {
		t.Errorf("%v", err)
	}
	if s := first(d.Standing(ctx, others.Fingerprint)); s.Superseded {
		t.Error("another node's certificate was superseded")
	}

	// A node that is off for long after an answer was lost: the same key again is worth another certificate.
	c.advance(100 * 24 * time.Hour)
	b := first(renew(a, 2)).Issued
	c.advance(100 * 24 * time.Hour)
	again := first(renew(a, 2)).Issued
	if again.ID == b.ID || again.Ended(c.now()) != nil || again.Origin != OriginRenew {
		t.Errorf("%+v", again)
	}
	if _, err := renew(a, 1); !errors.Is(err, ErrKeyUsed) {
		t.Errorf("the key of the ended one itself: %v", err)
	}
	verdict = RenewRefuse
	out, err := renew(a, 3)
	if !errors.Is(err, ErrRenewalPolicy) || out.Presented.ID != a.ID {
		t.Errorf("%+v, %v", out, err)
	}

	// What waits is bounded, and who asked least lately gives way.
	verdict = RenewAsk
	for n := range 3 * keptRenewals {
		c.advance(time.Second)
		if out := first(renew(a, 100+n)); !out.Waiting {
			t.Fatalf("%+v", out)
		}
		c.advance(time.Second)
		first(renew(a, 100)) // one asks all the time
	}
	list := first(d.Renewals(ctx, node.ID))
	if len(list) != keptRenewals {
		t.Errorf("%d renewals", len(list))
	}
	if list[0].LastAskedAt.Sub(list[0].AskedAt) == 0 {
		t.Error("who asks all the time gave way")
	}
	first(d.Decide(ctx, Decision{NodeID: node.ID, Renewal: list[0].ID}))
	if out := first(renew(a, 100)); out.Waiting || out.Issued.ID == "" {
		t.Errorf("approved: %+v", out)
	}
	// A revocation of all ends what waits and what is approved, too.
	first(d.Revoke(ctx, node.ID, ""))
	if n := len(first(d.Renewals(ctx, ""))); n != 0 {
		t.Errorf("%d renewals are left", n)
	}
	if _, err := renew(a, 100); !errors.Is(err, ErrRevoked) {
		t.Errorf("%v", err)
	}
}

// TestCertificatesAreBounded: a node that refreshes without end fills nothing, and keeps what it uses.
func TestCertificatesAreBounded(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node, current := enrolled(t, d, c, "web-1")
	issued := 1000
	issue := issuer(c, 90*24*time.Hour, &issued)
	for n := range 3 * keptCertificates {
		c.advance(10 * time.Minute)
		next := first(d.Refresh(ctx, Refresh{Presented: current.ID, KeyHash: [32]byte{1, byte(n), byte(n >> 8)}, Issue: issue}))
		check(t, d.FirstUse(ctx, next.ID, ""))
		current = next
	}
	list := first(d.Certificates(ctx, node.ID))
	if len(list) > keptCertificates+2 || list[0].ID != current.ID {
		t.Errorf("%d certificates", len(list))
	}
	if s := first(d.Standing(ctx, current.Fingerprint)); s.Revoked || s.Superseded {
		t.Errorf("%+v", s)
	}
	if n := len(first(d.Events(ctx, node.ID, keepEvents))); n > 3*keptNodeEvents {
		t.Errorf("%d events", n)
	}
}

// TestMigrateCertificates brings a database of the version before up to date: what was good stays good,
// and goes on from there.
func TestMigrateCertificates(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "platform.db")
	old := first(sql.Open("sqlite", path))
	provider := first(migrator(old, goose.DialectSQLite3, "sqlite"))
	first(provider.UpTo(t.Context(), 3))
	good, revoked := sha256.Sum256([]byte("good")), sha256.Sum256([]byte("revoked"))
	now := millis(c.now())
	for _, stmt := range []struct {
		query string
		args  []any
	}{
		{"INSERT INTO nodes (id, name, architecture, created_at) VALUES ('n', 'web-1', 'amd64', 1)", nil},
		{`INSERT INTO certificates (id, node_id, serial, fingerprint, key_hash, pem, not_before, not_after, created_at, revoked_at)
			VALUES ('r', 'n', 'AA', ?1, ?1, 'pem', 1, ?2, 1, 2), ('g', 'n', 'BB', ?3, ?3, 'pem', 1, ?2, 2, NULL)`, []any{revoked[:], now + 1_000_000, good[:]}},
		{"INSERT INTO tokens (id, node_id, hash, created_at, expires_at, used_at, certificate_id) VALUES ('t', 'n', ?, 1, 2, 2, 'g')", []any{good[:]}},
		{`INSERT INTO reports (node_id, received_at, boot_id, agent_version, architecture, uptime_seconds, module_digests, mount_state, load_average,
			memory_free_kb, root_digest, integrity_level, generation) VALUES ('n', 5, 'boot-1', '1', 'amd64', 1, '{}', 'mounted', '', 0, '', '', 1)`, nil},
	} {
		first(old.Exec(stmt.query, stmt.args...))
	}
	check(t, old.Close())

	d := reopen(t, Options{Path: path}, c)
	ctx := t.Context()
	if s := first(d.Standing(ctx, good)); s.Revoked || s.Superseded || s.Used || s.CertificateID != "g" {
		t.Errorf("%+v", s)
	}
	if s := first(d.Standing(ctx, revoked)); !s.Revoked {
		t.Errorf("%+v", s)
	}
	issued := 0
	next := first(d.Refresh(ctx, Refresh{Presented: "g", KeyHash: [32]byte{1}, Issue: issuer(c, time.Hour, &issued)}))
	check(t, d.FirstUse(ctx, next.ID, ""))
	if s := first(d.Standing(ctx, good)); !s.Superseded {
		t.Errorf("%+v", s)
	}
	// The boot that was reported before is the last one known.
	beat := nodeapi.Heartbeat{BootID: "boot-2", AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted}
	check(t, d.Heartbeat(ctx, Sender{"n", next.ID, ""}, beat))
	beat.BootID = "boot-1"
	check(t, d.Heartbeat(ctx, Sender{"n", next.ID, ""}, beat))
	if len(first(d.Attention(ctx, ""))["n"]) != 1 {
		t.Error("a boot from before the migration comes again unseen")
	}
}
