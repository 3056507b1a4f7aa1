package services

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

func setOf(t testing.TB, manifests ...string) Set {
	t.Helper()
	var modules []Module
	for _, m := range manifests {
		modules = append(modules, moduleOf(t, m))
	}
	set := MakeAll(modules, Node{Agent: agentPath, Privileged: []string{"chrony", "old"}})
	if len(set.Refused) > 0 {
		t.Fatalf("%+v", set.Refused)
	}
	return set
}

const one1 = "schema_version: 1\nname: one\nservices:\n- {name: a, start_command: /bin/a}\n- {name: b, start_command: /bin/b}\n"

// files returns every file below run, with "-> target" for links.
func files(t *testing.T, run string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(run, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(run, p)
		if target, linkErr := os.Readlink(p); linkErr == nil {
			name += " -> " + target
		}
		out = append(out, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPlace(t *testing.T) {
	run := t.TempDir()
	if _, err := Placed(run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	// What isn't ours stays: by its name, by its first line, and what is no file.
	foreign := filepath.Join(run, unitDir)
	if err := os.MkdirAll(filepath.Join(foreign, "powernode-x_y.service"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"powernode-agent.service": marker + "x\n", "powernode-x_z.service": "[Unit]\n", "nginx.service": marker + "x\n"} {
		if err := os.WriteFile(filepath.Join(foreign, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := files(t, run)

	set := setOf(t, one1, legacy)
	want := Changes{
		Added: []string{"powernode-chrony.init.service", "powernode-one_a.service", "powernode-one_b.service"},
		Start: []string{"powernode-one_a.service", "powernode-one_b.service", "powernode-chrony.init.service"},
	}
	plan, err := Diff(run, set)
	if diff := cmp.Diff(want, plan); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff(before, files(t, run)); diff != "" {
		t.Errorf("a plan changes:\n%s", diff)
	}
	got, err := Place(run, set)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
	got, err = Place(run, set)
	if !got.None() || err != nil {
		t.Errorf("the same again: %+v, %v", got, err)
	}
	placed, err := Placed(run)
	if err != nil || len(placed.Modules) != 2 || placed.Modules[0].Services[1].Unit != "powernode-one_b.service" || len(placed.Modules[0].Units) != 0 {
		t.Errorf("%+v, %v", placed, err)
	}

	// One unit changes, one goes, a module goes; what systemd and the helpers left of them goes along.
	left := []string{
		"systemd/system.control/powernode-one_b.service.d/50-IPAddressAllow.conf", "systemd/system.control/powernode-one_a.service.d/50-IPAddressAllow.conf",
		"powernode/health/powernode-one_b.service.json",
	}
	for _, name := range left {
		if err := os.MkdirAll(filepath.Join(run, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(run, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err = Place(run, setOf(t, strings.Replace(one1, "/bin/a}\n- {name: b, start_command: /bin/b", "/bin/a2", 1)))
	gone := []string{"powernode-chrony.init.service", "powernode-one_b.service"}
	want = Changes{Changed: []string{"powernode-one_a.service"}, Removed: gone, Stop: gone, Restart: []string{"powernode-one_a.service"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := Place(run, Set{}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(append([]string{"powernode/services.json"}, before...), files(t, run)); diff != "" {
		t.Errorf("left of all that:\n%s", diff)
	}
}

func TestPlaceReplacesNothingForeign(t *testing.T) {
	run := t.TempDir()
	dir := filepath.Join(run, unitDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(secret, []byte(marker+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, make := range []func(string) error{
		func(p string) error { return os.WriteFile(p, []byte("[Unit]\n"), 0o600) },
		func(p string) error { return os.Symlink(secret, p) },
	} {
		unit := filepath.Join(dir, "powernode-one_b.service")
		if err := make(unit); err != nil {
			t.Fatal(err)
		}
		before := files(t, run)
		// The module in whose way it is gets no unit at all; who comes after it does, and what the record says is so.
		set := setOf(t, one1, legacy)
		planned, err := Diff(run, set)
		if err != nil || len(planned.Refused) != 1 || len(planned.Added) != 1 {
			t.Errorf("%+v, %v", planned, err)
		}
		got, err := Place(run, set)
		if err == nil || fault.AreaOf(err) != fault.Partial || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), unit[len(run):]+" is there, and isn't of the agent's making") {
			t.Errorf("%v", err)
		}
		if diff := cmp.Diff([]string{"powernode-chrony.init.service"}, got.Start); diff != "" || len(got.Refused) != 1 || got.Refused[0].Module != "one" {
			t.Errorf("%+v\n%s", got, diff)
		}
		placed, err := Placed(run)
		if err != nil || len(placed.Modules) != 1 || placed.Modules[0].Module != "chrony" || len(placed.Refused) != 1 || placed.Refused[0].Hint == "" {
			t.Errorf("%+v, %v", placed, err)
		}
		want := append(slices.Clone(before), "powernode/services.json", "systemd/system/powernode-chrony.init.service",
			"systemd/system/multi-user.target.wants/powernode-chrony.init.service -> ../powernode-chrony.init.service")
		slices.Sort(want)
		now := files(t, run)
		slices.Sort(now)
		if diff := cmp.Diff(want, now); diff != "" {
			t.Error(diff)
		}
		// Once it is away, the module gets its units.
		if err := os.Remove(unit); err != nil {
			t.Fatal(err)
		}
		if got, err = Place(run, set); err != nil || len(got.Added) != 2 || len(got.Refused) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if err := os.RemoveAll(run); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != marker+"\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestWhatChangesRestartsOnce: and nothing that goes on as it is.
func TestWhatChangesRestartsOnce(t *testing.T) {
	run := t.TempDir()
	if _, err := Place(run, setOf(t, shop)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, from, to, restart, start, stop string }{
		{"nothing", "", "", "", "", ""},
		{"a program", "/usr/bin/statsd", "/usr/bin/statsd2", "powernode-shop_stats.service", "", ""},
		{"an interval", "interval_seconds: 10", "interval_seconds: 11", "powernode-shop_web.health.timer", "", ""},
		{"a neighbour", ", {service: stats, kind: softdep}", "", "", "", ""},
		{"a new check", "start_command: /usr/bin/statsd", "start_command: /usr/bin/statsd\n    health: {endpoint: \"1/x\"}", "", "powernode-shop_stats.health.timer", ""},
		{"a check that goes", "    health: {method: EXEC, endpoint: \"/usr/bin/cachectl ping\"}\n", "", "", "", "powernode-shop_cache.health.service powernode-shop_cache.health.timer"},
		{
			"a new service with a check", "  - name: stats\n", "  - {name: x, start_command: /bin/x, health: {endpoint: \"1/x\"}}\n  - name: stats\n", "",
			"powernode-shop_x.service", "",
		},
		{"a name", "payments.example.org", "pay.example.org", "powernode-shop_db.egress.service powernode-shop_cache.egress.service powernode-shop_stats.egress.service powernode-shop_web.egress.service", "", ""},
	} {
		changes, err := Diff(run, setOf(t, strings.Replace(shop, test.from, test.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		for _, is := range []struct {
			got  []string
			want string
		}{{changes.Restart, test.restart}, {changes.Start, test.start}, {changes.Stop, test.stop}} {
			if diff := cmp.Diff(strings.Fields(is.want), append([]string{}, is.got...)); diff != "" {
				t.Errorf("%s:\n%s", test.name, diff)
			}
		}
	}
}
