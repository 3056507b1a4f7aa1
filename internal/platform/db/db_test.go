package db

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// TestMain runs every test over both databases.
func TestMain(m *testing.M) { os.Exit(postgrestest.Both(m)) }

// migrated holds a SQLite database with the schema of now, and nothing in it.
var migrated = sync.OnceValues(func() (data []byte, err error) { //nolint:gochecknoglobals // one for all tests
	dir, err := os.MkdirTemp("", "powernode-sqlite-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "platform.db")
	d, err := Open(context.Background(), Options{Path: path, Now: time.Now})
	if err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// place is where a new database is, with the schema of now: a copy, as to make one takes much longer.
func place(t *testing.T) Options {
	t.Helper()
	if !postgrestest.Wanted() {
		path := filepath.Join(t.TempDir(), "platform.db")
		check(t, os.WriteFile(path, first(migrated()), 0o600))
		return Options{Path: path}
	}
	url := postgrestest.Database(t, func(url string) error {
		d, err := Open(context.Background(), Options{Postgres: first(ParsePostgres(url, "")), Now: time.Now})
		if err != nil {
			return err
		}
		return d.Close()
	})
	return Options{Postgres: first(ParsePostgres(url, ""))}
}

func reopen(t *testing.T, o Options, c *clock) *DB {
	t.Helper()
	o.Now = c.now
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newDB(t *testing.T) (*DB, *clock) {
	c := newClock()
	return reopen(t, place(t), c), c
}

// execute changes the database behind its back.
func execute(t *testing.T, d *DB, query string, args ...any) {
	t.Helper()
	check(t, d.update(t.Context(), func(tx *txn) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// issuer returns an Issue that gives distinct certificates valid for life, and counts them.
func issuer(c *clock, life time.Duration, issued *int) func(string) (Certificate, error) {
	return func(nodeID string) (Certificate, error) {
		*issued++
		text := fmt.Sprintf("certificate %d of %s at %s", *issued, nodeID, c.now())
		return Certificate{
			Serial: fmt.Sprintf("%X", sha256.Sum256([]byte(text)))[:32], Fingerprint: sha256.Sum256([]byte(text)),
			PEM: text, NotBefore: c.now(), NotAfter: c.now().Add(life),
		}, nil
	}
}

func TestOpenTwiceAndOddPaths(t *testing.T) {
	c := newClock()
	for _, name := range []string{"plain.db", "with space.db", "q?x=1.db", "hash#1.db", "per%20cent.db"} {
		path := filepath.Join(t.TempDir(), name)
		d, err := Open(t.Context(), Options{Path: path, Now: c.now})
		check(t, err)
		n := first(d.CreateNode(t.Context(), "web-1", "amd64"))
		check(t, d.Close())
		again := reopen(t, Options{Path: path}, c)
		got := first(again.Node(t.Context(), "web-1"))
		if diff := cmp.Diff(n, got); diff != "" {
			t.Errorf("%s: the node isn't the same after reopening:\n%s", name, diff)
		}
	}
	if _, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "absent", "x.db"), Now: c.now}); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a directory that isn't there: %v", err)
	}
}

// first drops an error that the test states to be nil, by failing where it isn't.
func first[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNodes(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	b := first(d.CreateNode(ctx, "b", ""))
	a := first(d.CreateNode(ctx, "a", "arm64"))
	if _, err := d.CreateNode(ctx, "a", ""); !errors.Is(err, ErrExists) {
		t.Errorf("a taken name: %v", err)
	}
	if diff := cmp.Diff([]Node{a, b}, first(d.Nodes(ctx))); diff != "" {
		t.Error(diff)
	}
	// A node named like another's ID doesn't hide that other.
	first(d.CreateNode(ctx, a.ID, ""))
	for _, ref := range []string{"a", a.ID} {
		if got := first(d.Node(ctx, ref)); got.ID != a.ID {
			t.Errorf("node %q is %s", ref, got.Name)
		}
	}
	if _, err := d.Node(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown node: %v", err)
	}

	hb := nodeapi.Heartbeat{
		BootID: "boot1", AgentVersion: "1", Architecture: "arm64", UptimeSeconds: 7, ModuleDigests: map[string]string{"m": "sha256:00"},
		MountState: nodeapi.MountMounted, LoadAverage: "0.1 0.2 0.3", MemoryFreeKB: 5, RootDigest: "ff", IntegrityLevel: "checked", Generation: 1<<63 - 1,
	}
	check(t, d.Heartbeat(ctx, Sender{NodeID: a.ID}, hb))
	c.advance(time.Minute)
	hb.BootID = "boot2"
	check(t, d.Heartbeat(ctx, Sender{NodeID: a.ID}, hb))
	check(t, d.Heartbeat(ctx, Sender{NodeID: a.ID}, hb))
	if diff := cmp.Diff(&Report{hb, c.now()}, first(d.Node(ctx, "a")).Report); diff != "" {
		t.Error(diff)
	}
	var kinds []string
	for _, e := range first(d.Events(ctx, a.ID, 10)) {
		kinds = append(kinds, e.Kind)
	}
	if diff := cmp.Diff([]string{EventBooted, EventRunning}, kinds); diff != "" {
		t.Error(diff)
	}
	if err := d.Heartbeat(ctx, Sender{NodeID: "nobody"}, hb); err == nil {
		t.Error("a heartbeat of nobody was kept")
	}
}

func TestEnroll(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node := first(d.CreateNode(ctx, "n", ""))
	other := first(d.CreateNode(ctx, "other", "amd64"))
	issued := 0
	in := Enrollment{Token: "secret", KeyHash: sha256.Sum256([]byte("key")), From: "192.0.2.1", Architecture: "arm64", Issue: issuer(c, time.Hour, &issued)}
	with := func(change func(*Enrollment)) Enrollment { e := in; change(&e); return e }
	refused := func(name string, e Enrollment, want error) {
		t.Helper()
		before := issued
		if _, err := d.Enroll(ctx, e); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if issued != before {
			t.Errorf("%s: a certificate was issued", name)
		}
	}

	refused("unknown", in, ErrTokenUnknown)
	first(d.CreateToken(ctx, node.ID, "late", time.Minute))
	first(d.CreateToken(ctx, node.ID, "secret", 2*time.Minute))
	first(d.CreateToken(ctx, other.ID, "others", time.Hour))
	c.advance(time.Minute)
	refused("expired on the second", with(func(e *Enrollment) { e.Token = "late" }), ErrTokenExpired)
	refused("another node's", with(func(e *Enrollment) { e.NodeID = other.ID }), ErrTokenMismatch)
	refused("another architecture", with(func(e *Enrollment) { e.Token = "others" }), ErrArchitecture)

	cert := first(d.Enroll(ctx, in))
	if cert.NodeID != node.ID || issued != 1 {
		t.Fatalf("enrolled %+v, %d issued", cert, issued)
	}
	if got := first(d.Node(ctx, "n")).Architecture; got != "arm64" {
		t.Errorf("the architecture is %q", got)
	}
	c.advance(30 * time.Minute) // the token's own life is over
	for range 10 {
		if diff := cmp.Diff(cert, first(d.Enroll(ctx, in))); diff != "" {
			t.Fatalf("the answer isn't the same again:\n%s", diff)
		}
	}
	refused("another key", with(func(e *Enrollment) { e.KeyHash[0]++ }), ErrTokenUsed)
	if e := first(d.Events(ctx, node.ID, 1))[0]; e.Kind != EventEnrollRefused || !strings.Contains(e.Text, "another key") || !strings.Contains(e.Text, "192.0.2.1") {
		t.Errorf("the operator sees %+v", e)
	}
	standing := first(d.Standing(ctx, cert.Fingerprint))
	if standing.NodeID != node.ID || standing.Revoked || !standing.Active {
		t.Errorf("standing %+v", standing)
	}

	// A new token begins anew: the certificate before no longer counts, nor does its token.
	first(d.CreateToken(ctx, node.ID, "second", time.Hour))
	fresh := first(d.Enroll(ctx, with(func(e *Enrollment) { e.Token = "second" })))
	if !first(d.Standing(ctx, cert.Fingerprint)).Revoked || first(d.Standing(ctx, fresh.Fingerprint)).Revoked {
		t.Error("the new certificate didn't take the place of the old one")
	}
	refused("the first token again", in, ErrTokenRevoked)
	c.advance(2 * time.Hour)
	refused("its certificate has expired", with(func(e *Enrollment) { e.Token = "second" }), ErrTokenRevoked)

	execute(t, d, "UPDATE nodes SET state = 'terminated' WHERE id = ?", other.ID)
	refused("terminated", with(func(e *Enrollment) { e.Token, e.Architecture = "others", "" }), ErrNodeInactive)
	if _, err := d.Standing(ctx, [32]byte{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// TestEnrollFailsWhole checks that a token isn't used up by an issue that failed.
func TestEnrollFailsWhole(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node := first(d.CreateNode(ctx, "n", "amd64"))
	first(d.CreateToken(ctx, node.ID, "secret", time.Hour))
	sick := errors.New("the signer is away")
	in := Enrollment{Token: "secret", Issue: func(string) (Certificate, error) { return Certificate{}, sick }}
	if _, err := d.Enroll(ctx, in); !errors.Is(err, sick) {
		t.Fatal(err)
	}
	issued := 0
	in.Issue = issuer(c, time.Hour, &issued)
	first(d.Enroll(ctx, in))
	if n := len(first(d.Certificates(ctx, node.ID))); n != 1 {
		t.Errorf("%d certificates", n)
	}
}

// TestEnrollRace lets many callers use one token at once, each with one of two keys: exactly one
// certificate comes of it.
func TestEnrollRace(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node := first(d.CreateNode(ctx, "n", "amd64"))
	first(d.CreateToken(ctx, node.ID, "secret", time.Hour))
	issued := 0 // written within transactions only, of which there is one at a time
	issue := issuer(c, time.Hour, &issued)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for i := range 64 {
		wg.Go(func() {
			cert, err := d.Enroll(context.WithoutCancel(ctx), Enrollment{Token: "secret", KeyHash: [32]byte{byte(i % 2)}, Issue: issue})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				got[err.Error()]++
				return
			}
			got[cert.PEM]++
		})
	}
	wg.Wait()
	if issued != 1 || len(got) != 2 || got[ErrTokenUsed.Error()] != 32 {
		t.Errorf("%d issued, answers %v", issued, got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	execute(t, d, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO events (at, kind, text) SELECT i, 'old', '' FROM n`, 2*keepEvents)
	execute(t, d, "DELETE FROM events WHERE at % 2 = 1") // their IDs have gaps
	check(t, d.RecordEvent(ctx, "k", "", "text"))
	list := first(d.Events(ctx, "", 2*keepEvents))
	if len(list) != keepEvents || list[0].Text != "text" || list[len(list)-1].ID != 4 {
		t.Errorf("%d events", len(list))
	}
}

// TestSickNode: what a boot says over and over in other words is one event, and a node that is in trouble
// at every boot doesn't push out the others' events.
func TestSickNode(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	well, sick := first(d.CreateNode(ctx, "well", "amd64")), first(d.CreateNode(ctx, "sick", "amd64"))
	check(t, d.RecordEvent(ctx, EventBooted, well.ID, "text"))
	report := nodeapi.BootReport{BootID: "a", AgentVersion: "v1", Outcome: nodeapi.BootInRecovery}
	texts := func() (list []string) {
		for _, e := range first(d.Events(ctx, sick.ID, 2*keepEvents)) {
			if e.Kind == EventBootTrouble {
				list = append(list, e.Text)
			}
		}
		return list
	}
	for _, c := range [][2]string{{"", ""}, {"fetch", "no answer since 04:00"}, {"fetch", "no answer since 04:01"}, {"mount", "no space"}} {
		report.Stage, report.Failure = c[0], c[1]
		check(t, d.BootReport(ctx, sick.ID, report))
	}
	want := []string{"boot in recovery at stage mount: no space", "boot in recovery at stage fetch: no answer since 04:00", "boot in recovery"}
	if diff := cmp.Diff(want, texts()); diff != "" {
		t.Error(diff)
	}
	for i := range keptNodeEvents + 10 {
		report.BootID = fmt.Sprint(i)
		check(t, d.BootReport(ctx, sick.ID, report))
	}
	if n := len(texts()); n != keptNodeEvents {
		t.Errorf("%d events of the sick node", n)
	}
	if list := first(d.Events(ctx, well.ID, 10)); len(list) != 1 {
		t.Error("nothing is known of the other node")
	}
}

func TestModules(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node := first(d.CreateNode(ctx, "n", "amd64"))
	base := Module{
		Name: "base", Variety: "subscription", CategoryPosition: 10, Priority: 5, Version: "1.0", Repository: "modules/base", Digest: "sha256:aa",
		Images: []Image{
			{Architecture: "amd64", ManifestDigest: "sha256:bb", Seal: fsverity.Digest{1}, Manifest: "name: base"},
			{Architecture: "arm64", ManifestDigest: "sha256:cc", Seal: fsverity.Digest{2}, Manifest: "name: base"},
		},
	}
	got := first(d.Register(ctx, base))
	base.ID, base.RegisteredAt = got.ID, c.now()
	if diff := cmp.Diff(base, got); diff != "" {
		t.Error(diff)
	}
	// Again, with another rank: the same module, the same version.
	base.Priority = 7
	if diff := cmp.Diff(base, first(d.Register(ctx, base))); diff != "" {
		t.Error(diff)
	}
	clash := base
	clash.Digest = "sha256:dd"
	if _, err := d.Register(ctx, clash); !errors.Is(err, ErrVersionTaken) {
		t.Errorf("a version with two contents: %v", err)
	}
	next := base
	next.Version, next.Digest, next.Images = "1.1", "sha256:ee", base.Images[:1]
	if got := first(d.Register(ctx, next)); got.ID != base.ID || got.Version != "1.1" || len(got.Images) != 1 {
		t.Errorf("the next version: %+v", got)
	}
	if got := first(d.Register(ctx, base)); got.Version != "1.0" || len(got.Images) != 2 {
		t.Errorf("back to the version before: %+v", got)
	}

	low := first(d.Register(ctx, Module{Name: "a-low", Variety: "config", CategoryPosition: 10, Priority: 7, Version: "1", Repository: "r", Digest: "x", Images: base.Images[:1]}))
	top := first(d.Register(ctx, Module{Name: "z-top", Variety: "config", CategoryPosition: 20, Version: "1", Repository: "top", Digest: "y", Images: base.Images[:1]}))
	for _, m := range []Module{base, low, top, top} {
		check(t, d.Assign(ctx, node.ID, m, nil))
	}
	var names []string
	for _, m := range first(d.Assigned(ctx, node.ID)) {
		names = append(names, m.Name)
	}
	if diff := cmp.Diff([]string{"z-top", "a-low", "base"}, names); diff != "" {
		t.Errorf("rank order:\n%s", diff)
	}
	if got := first(d.Node(ctx, "n")).Modules; got != 3 {
		t.Errorf("%d assignments", got)
	}
	for repository, want := range map[string]bool{"top": true, "modules/base": true, "modules": false, "TOP": false, "": false} {
		if got := first(d.AssignedRepository(ctx, node.ID, repository)); got != want {
			t.Errorf("may read %q: %v", repository, got)
		}
	}
	check(t, d.Unassign(ctx, node.ID, top, false))
	if err := d.Unassign(ctx, node.ID, top, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("taken twice: %v", err)
	}
	if first(d.AssignedRepository(ctx, node.ID, "top")) {
		t.Error("the repository stays readable after the assignment")
	}
	if list := first(d.Modules(ctx)); len(list) != 3 || list[0].Name != "a-low" || len(list[1].Images) != 2 {
		t.Errorf("%+v", list)
	}
	if _, err := d.Module(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestRoots(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	hash := sha256.Sum256([]byte("inputs"))
	if _, err := d.Root(ctx, hash); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	r := Root{Digest: fsverity.Digest{9}, Conflicts: []Conflict{{Path: "etc/motd", Winner: "a", Losers: []string{"b"}, Reason: "rank"}}}
	check(t, d.PutRoot(ctx, hash, r))
	if diff := cmp.Diff(r, first(d.Root(ctx, hash))); diff != "" {
		t.Error(diff)
	}
	refused := Root{Refusal: "a and b disagree", Conflicts: []Conflict{}}
	check(t, d.PutRoot(ctx, [32]byte{1}, refused))
	if diff := cmp.Diff(refused, first(d.Root(ctx, [32]byte{1}))); diff != "" {
		t.Error(diff)
	}
	// Only the latest are kept.
	check(t, d.update(ctx, func(tx *txn) error {
		for i := range keepRoots - 1 {
			hash := binary.BigEndian.AppendUint64(nil, uint64(i))
			if _, err := tx.Exec(ctx, "INSERT INTO roots (input_hash, root_digest, refusal, conflicts, computed_at) VALUES (?, '', '', '[]', ?)", hash, millis(c.now())+int64(i)+1); err != nil {
				return err
			}
		}
		return nil
	}))
	c.advance(time.Hour)
	check(t, d.PutRoot(ctx, [32]byte{2}, r))
	for _, old := range [][32]byte{hash, {1}} {
		if _, err := d.Root(ctx, old); !errors.Is(err, ErrNotFound) {
			t.Errorf("the oldest is still there: %v", err)
		}
	}
	if _, err := d.Root(ctx, [32]byte{2}); err != nil {
		t.Errorf("one of the latest is gone: %v", err)
	}
}

func TestRegistryIndex(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	check(t, d.LinkBlob(ctx, "r", "sha256:b1", 5))
	check(t, d.LinkBlob(ctx, "r", "sha256:b1", 5))
	if got := first(d.Blob(ctx, "r", "sha256:b1")); got != 5 {
		t.Errorf("size %d", got)
	}
	if _, err := d.Blob(ctx, "other", "sha256:b1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob shows in a repository that doesn't hold it: %v", err)
	}
	m := Manifest{Repository: "r", Digest: "sha256:m1", Size: 2, MediaType: "application/x"}
	check(t, d.PutManifest(ctx, m, "v1"))
	check(t, d.PutManifest(ctx, m, "v2"))
	check(t, d.PutManifest(ctx, Manifest{Repository: "r", Digest: "sha256:m2", MediaType: "y"}, "v1"))
	for ref, want := range map[string]string{"v1": "sha256:m2", "v2": "sha256:m1", "sha256:m1": "sha256:m1"} {
		if got := first(d.Manifest(ctx, "r", ref)); got.Digest != want {
			t.Errorf("%s is %s", ref, got.Digest)
		}
	}
	if _, err := d.Manifest(ctx, "r", "v3"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"v2"}, first(d.Tags(ctx, "r", "v1", 10))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"sha256:b2", "sha256:m3"}, first(d.Missing(ctx, "r", []string{"sha256:b1", "sha256:b2"}, []string{"sha256:m1", "sha256:m3"}))); diff != "" {
		t.Error(diff)
	}
	for i, kind := range []string{"sig", "sbom", "sig"} {
		check(t, d.PutManifest(ctx, Manifest{Repository: "r", Digest: fmt.Sprintf("sha256:r%d", i), Subject: "sha256:m1", ArtifactType: kind, Annotations: "{}"}, ""))
	}
	if got := first(d.Referrers(ctx, "r", "sha256:m1", "sig", "", 10)); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if got := first(d.Referrers(ctx, "r", "sha256:m1", "", "sha256:r0", 1)); len(got) != 1 || got[0].ArtifactType != "sbom" {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff([]string{"r"}, first(d.Repositories(ctx, "", 5))); diff != "" {
		t.Error(diff)
	}
	if first(d.HasRepository(ctx, "q")) || !first(d.HasRepository(ctx, "r")) {
		t.Error("HasRepository is wrong")
	}
}

// TestReadersBesideTheWriter checks that reads go on while a write transaction is open.
func TestReadersBesideTheWriter(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	check(t, d.update(ctx, func(tx *txn) error {
		if _, err := tx.Exec(ctx, "INSERT INTO nodes (id, name, created_at) VALUES ('x', 'x', 0)"); err != nil {
			return err
		}
		if list := first(d.Nodes(ctx)); len(list) != 0 {
			t.Errorf("a reader sees what isn't committed: %+v", list)
		}
		return nil
	}))
	if _, err := d.read.pool.Exec("DELETE FROM nodes"); err == nil {
		t.Error("a reader may write")
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}
