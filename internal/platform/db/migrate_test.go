package db

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// seeds fill the tables that each version of the schema has added, so that every later migration finds something in all of them. What
// a table has added to it later has a default, or its own migration's seed here. One of a new version is added with the migration.
var seeds = map[int64][]string{
	1: {
		"INSERT INTO operator (one, token_hash, created_at) VALUES (1, $h, 1)",
		"INSERT INTO nodes (id, name, architecture, state, created_at) VALUES ('n', 'web-1', 'amd64', 'active', 1), ('m', 'web-2', '', 'terminated', 2)",
		`INSERT INTO reports (node_id, received_at, boot_id, agent_version, architecture, uptime_seconds, module_digests, mount_state, load_average,
			memory_free_kb, root_digest, integrity_level, generation) VALUES ('n', 5, 'boot-1', '1', 'amd64', 1, '{"b":"sha256:0"}', 'mounted', '0.1', 7, '', 'checked', 3)`,
		`INSERT INTO certificates (id, node_id, serial, fingerprint, key_hash, pem, not_before, not_after, created_at, revoked_at)
			VALUES ('r', 'n', 'AA', $g, $g, 'pem', 1, 2, 1, 2), ('g', 'n', 'BB', $h, $h, 'pem', 1, 4000000000000, 2, NULL)`,
		`INSERT INTO tokens (id, node_id, hash, created_at, expires_at, used_at, certificate_id)
			VALUES ('t', 'n', $h, 1, 2, 2, 'g'), ('u', 'm', $g, 1, 4000000000000, NULL, NULL)`,
		"$both",
		"INSERT INTO images (version_id, architecture, manifest_digest, seal, manifest) VALUES ('v', 'amd64', 'sha256:1', '" + strings.Repeat("a", 64) + "', 'name: base')",
		"INSERT INTO assignments (node_id, module_id, created_at) VALUES ('n', 'b', 1)",
		"INSERT INTO roots (input_hash, root_digest, refusal, conflicts, computed_at) VALUES ($h, '', 'no', '[]', 1)",
		"INSERT INTO events (at, kind, node_id, text) VALUES (1, 'node.enrolled', 'n', 'enrolled'), (2, 'module.registered', '', 'base')",
		"INSERT INTO registry_blobs (repository, digest, size) VALUES ('modules/base', 'sha256:2', 10)",
		"INSERT INTO registry_manifests (repository, digest, size, media_type) VALUES ('modules/base', 'sha256:1', 10, 'm')",
		"INSERT INTO registry_tags (repository, tag, digest) VALUES ('modules/base', 'v1', 'sha256:1')",
	},
	2: {"INSERT INTO boots (node_id, boot_id, received_at, report) VALUES ('n', 'boot-1', 1, '{}')"},
	4: {
		`INSERT INTO renewals (id, node_id, certificate_id, key_hash, reason, asked_at, last_asked_at, asked_from, dmi_uuid, agent_version)
			VALUES ('w', 'n', 'g', $g, 'expired', 1, 2, '192.0.2.1', '', '1')`,
		"INSERT INTO boot_ids (node_id, boot_id, seen_at) VALUES ('n', 'boot-0', 1)",
		"INSERT INTO attention (node_id, kind, at, text) VALUES ('n', 'boot_id', 1, 'two machines')",
	},
	6: {
		`INSERT INTO claims (id, code, mac, key_hash, dmi_uuid, hostname, agent_version, architecture, platform_hint, heard_from, created_at, polled_at,
			expires_at, state, node_id) VALUES ('c', 'CODE', '52:54:00:00:00:01', $h, '', 'h', '1', 'amd64', '', '192.0.2.1', 1, 2, 4000000000000, 'accepted', 'n')`,
	},
	9: {`INSERT INTO node_configs (node_id, config, digest, changed_at) VALUES ('n', '{}', 'd', 1)`},
	11: {
		"INSERT INTO tasks (id, node_id, kind, options, requested_by, created_at, deadline_seconds) VALUES ('k', 'n', 'sync', '{}', 'operator', 1, 60)",
		"INSERT INTO task_outputs (task_id, text, known_to, dropped) VALUES ('k', 'out', 3, 0)",
		"INSERT INTO node_events (node_id, event_id, received_at, at, kind, severity, text, fields) VALUES ('n', 'e', 1, 1, 'k', 'info', 'text', '{}')",
	},
	12: {"INSERT INTO authorities (one, version, origin, sealed) VALUES (1, 1, 'o', NULL)"},
	13: {
		"INSERT INTO operator_tokens (name, role, token_hash, created_at, created_by) VALUES ('ci', 'deploy', $g, 1, 'operator')",
		`INSERT INTO audit (at, actor, role, address, action, target, request, result, error, request_id)
			VALUES (1, 'ci', 'deploy', '192.0.2.1', 'module.assign', 'web-1', '{}', 'ok', '', 'r')`,
		"INSERT INTO node_roots (node_id, root_digest, expected_at) VALUES ('n', 'sha256:3', 1)",
	},
}

// base is the module and its version, which need each other.
var base = []string{
	"INSERT INTO modules (id, name, variety, category_position, priority, version_id, created_at) VALUES ('b', 'base', 'subscription', 10, 5, 'v', 1)",
	"INSERT INTO versions (id, module_id, version, repository, digest, reboot_required, created_at) VALUES ('v', 'b', '1.0.0', 'modules/base', 'sha256:1', $false, 1)",
}

// old is a database of an old schema.
type old struct {
	t        *testing.T
	pool     *sql.DB
	provider *goose.Provider
	place    Options
}

// newOld makes an empty database.
func newOld(t *testing.T) old {
	t.Helper()
	o := old{t: t, place: Options{Path: filepath.Join(t.TempDir(), "platform.db")}}
	dialect, dir := goose.DialectSQLite3, "sqlite"
	if postgrestest.Wanted() {
		o.place = Options{Postgres: first(ParsePostgres(postgrestest.Empty(t), ""))}
		dialect, dir = goose.DialectPostgres, "postgres"
		o.pool = o.place.Postgres.pool("")
	} else {
		o.pool = first(connectSQLite(o.place.Path, "immediate"))
	}
	t.Cleanup(func() { o.pool.Close() })
	o.provider = first(migrator(o.pool, dialect, dir))
	return o
}

// versions are the numbers of all migrations.
func (o old) versions() []int64 {
	var list []int64
	for _, s := range o.provider.ListSources() {
		list = append(list, s.Version)
	}
	return list
}

// seed fills the tables that came with the schemas up to to.
func (o old) seed(to int64) {
	o.t.Helper()
	words := strings.NewReplacer("$h", "x'68'", "$g", "x'67'", "$false", "0")
	if o.place.Postgres != nil {
		words = strings.NewReplacer("$h", `'\x68'`, "$g", `'\x67'`, "$false", "FALSE")
	}
	tx := first(o.pool.Begin())
	for version := range to + 1 {
		for _, query := range seeds[version] {
			list := []string{query}
			if query == "$both" {
				list = base
			}
			for _, query := range list {
				if _, err := tx.Exec(words.Replace(query)); err != nil {
					o.t.Fatalf("%s: %v", query, err)
				}
			}
		}
	}
	check(o.t, tx.Commit())
}

// columns are those of each table.
func (o old) columns() map[string][]string {
	o.t.Helper()
	query := "SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
	if o.place.Postgres != nil {
		query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
	}
	rows, err := o.pool.Query(query)
	list := first(collect(rows, err, func(rows *sql.Rows, pair *[2]string) error { return rows.Scan(&pair[0], &pair[1]) }))
	tables := map[string][]string{}
	for _, pair := range list {
		if pair[0] != "goose_db_version" {
			tables[pair[0]] = append(tables[pair[0]], pair[1])
		}
	}
	for _, columns := range tables {
		slices.Sort(columns)
	}
	return tables
}

// content is every row of the tables as far as they have these columns.
func (o old) content(tables map[string][]string) map[string][]string {
	o.t.Helper()
	out := map[string][]string{}
	for table, columns := range tables {
		rows, err := o.pool.Query("SELECT " + strings.Join(columns, ", ") + " FROM " + table)
		list := first(collect(rows, err, func(rows *sql.Rows, line *string) error {
			values := make([]any, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			err := rows.Scan(into...)
			*line = fmt.Sprintf("%q", fmt.Sprintln(values...))
			return err
		}))
		slices.Sort(list)
		out[table] = list
	}
	return out
}

// TestMigrations takes each migration on its own, from the version before with something in every table: nothing that was there is lost or
// changed, and the platform of now works over what comes out in the end.
func TestMigrations(t *testing.T) {
	versions := newOld(t).versions()
	for i, version := range versions[1:] {
		before := versions[i]
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			o := newOld(t)
			ctx := t.Context()
			first(o.provider.UpTo(ctx, before))
			o.seed(before)
			tables := o.columns()
			had := o.content(tables)
			for table, rows := range had {
				if len(rows) == 0 {
					t.Errorf("nothing is in %s: add a seed", table)
				}
			}
			first(o.provider.UpTo(ctx, version))
			has := o.content(tables)
			if diff := cmp.Diff(had, has); diff != "" {
				t.Errorf("from %d to %d:\n%s", before, version, diff)
			}
			first(o.provider.Up(ctx))
			works(t, o)
		})
	}
}

// works opens a migrated database as the platform does, and looks at what the seeds have put into it.
func works(t *testing.T, o old) {
	t.Helper()
	c := newClock()
	d := reopen(t, o.place, c)
	ctx := t.Context()
	if n := first(d.Node(ctx, "web-1")); n.ID != "n" || !n.Active || n.Modules != 1 || n.Report == nil || n.Report.Generation != 3 {
		t.Errorf("%+v", n)
	}
	if list := first(d.Certificates(ctx, "n")); len(list) != 2 || list[0].ID != "g" || list[1].RevokedAt == nil {
		t.Errorf("%+v", list)
	}
	if list := first(d.Assigned(ctx, "n")); len(list) != 1 || list[0].Name != "base" || list[0].RebootRequired {
		t.Errorf("%+v", list)
	}
	if m := first(d.Manifest(ctx, "modules/base", "v1")); m.Digest != "sha256:1" {
		t.Errorf("%+v", m)
	}
	// A task from before there was an end to its waiting waits on.
	first(d.ExpireTasks(ctx))
	for _, task := range first(d.Tasks(ctx, Tasks{Limit: 9})) {
		if task.ID != "k" || task.State != nodeapi.TaskPending || !task.Until.IsZero() {
			t.Errorf("%+v", task)
		}
	}
	check(t, d.Heartbeat(ctx, Sender{"n", "g", ""}, nodeapi.Heartbeat{BootID: "boot-2", AgentVersion: "2", MountState: nodeapi.MountMounted}))
	if list := first(d.Events(ctx, "n", 10)); len(list) != 2 || list[0].Kind != EventBooted {
		t.Errorf("%+v", list)
	}
}

// TestMigrationHint: before a schema changes that has something in it the platform says so; an empty one and one that is as it should be
// aren't worth a word, and one of a newer platform is refused.
func TestMigrationHint(t *testing.T) {
	o := newOld(t)
	ctx := context.Background()
	versions := o.versions()
	first(o.provider.UpTo(ctx, versions[0]))
	var said bytes.Buffer
	o.place.Now, o.place.Logger = newClock().now, slog.New(slog.NewTextHandler(&said, nil))
	check(t, first(Open(ctx, o.place)).Close())
	for _, want := range []string{"level=WARN", "backup", "docs/operations.md", fmt.Sprintf("from=%d to=%d", versions[0], versions[len(versions)-1])} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in %s", want, &said)
		}
	}
	said.Reset()
	check(t, first(Open(ctx, o.place)).Close())
	if said.Len() > 0 {
		t.Errorf("%s", &said)
	}
	newer := "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, " + map[bool]string{false: "1", true: "TRUE"}[o.place.Postgres != nil] + ")"
	first(o.pool.Exec(newer))
	if _, err := Open(ctx, o.place); err == nil || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "newer powernode-platform") {
		t.Errorf("%v", err)
	}
	said.Reset()
	fresh := newOld(t).place
	fresh.Now, fresh.Logger = o.place.Now, o.place.Logger
	check(t, first(Open(ctx, fresh)).Close())
	if said.Len() > 0 {
		t.Errorf("a new one: %s", &said)
	}
}

// TestSameSchema: both databases have the same tables with the same columns, so that what works over one works over the other.
func TestSameSchema(t *testing.T) {
	overPostgres(t)
	server := newOld(t)
	first(server.provider.Up(t.Context()))
	pool := first(connectSQLite(filepath.Join(t.TempDir(), "platform.db"), "immediate"))
	t.Cleanup(func() { pool.Close() })
	file := old{t: t, pool: pool, provider: first(migrator(pool, goose.DialectSQLite3, "sqlite"))}
	first(file.provider.Up(t.Context()))
	has := server.columns()
	// SQLite has it without a word.
	has["certificates"] = slices.DeleteFunc(has["certificates"], func(s string) bool { return s == "rowid" })
	if diff := cmp.Diff(file.columns(), has); diff != "" {
		t.Error(diff)
	}
}
