package services

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

// node is a /run with placed services and a service manager.
func node(t *testing.T, f *systemdtest.Fake, manifests ...string) Control {
	t.Helper()
	run := t.TempDir()
	if _, err := Place(run, setOf(t, manifests...)); err != nil {
		t.Fatal(err)
	}
	f.Start(t, run)
	return Control{Systemd: systemd.Manager{Run: run}, Run: run, Within: 10 * time.Second, Logs: func(_ context.Context, unit string) ([]string, error) {
		return []string{"last words of " + unit}, nil
	}}
}

func running(units ...string) map[string]map[string]any {
	out := make(map[string]map[string]any)
	for _, u := range units {
		out[u] = map[string]any{"ActiveState": "active", "SubState": "running", "Result": "success", "MainPID": uint32(7), "InvocationID": []byte{1}}
	}
	return out
}

func TestActionsInOrder(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-shop_db.service", "powernode-shop_cache.service", "powernode-shop_stats.service", "powernode-shop_web.service")}
	c := node(t, f, shop)
	if err := writeRecord(c.Run, healthDir, "powernode-shop_web.service", Health{State: HealthGood}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Do(t.Context(), "shop", ActionStart)
	if err != nil || !r.OK || len(r.Services) != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	web := r.Services[3]
	if web.Service != "web" || web.Result != "done" || web.Active != "active" || web.MainPID != 7 || len(web.Ports) != 2 || web.Health.State != HealthGood || web.Log != nil {
		t.Errorf("%+v", web)
	}
	if _, err := c.Do(t.Context(), "shop", ActionReload); err != nil {
		t.Error(err)
	}
	want := []string{
		"StartUnit powernode-shop_db.service", "StartUnit powernode-shop_cache.service", "StartUnit powernode-shop_stats.service", "StartUnit powernode-shop_web.service",
		"ReloadOrTryRestartUnit powernode-shop_db.service", "ReloadOrTryRestartUnit powernode-shop_cache.service",
		"ReloadOrTryRestartUnit powernode-shop_stats.service", "ReloadOrTryRestartUnit powernode-shop_web.service",
	}
	if diff := cmp.Diff(want, f.Asked()); diff != "" {
		t.Error(diff)
	}
	// What was told to stop and runs is wrong.
	r, err = c.Do(t.Context(), "shop", ActionStop)
	if err != nil || r.OK || f.Asked()[8] != "StopUnit powernode-shop_web.service" {
		t.Errorf("%+v, %v, %q", r, err, f.Asked()[8:])
	}
}

func TestWhatFailsIsExplained(t *testing.T) {
	f := &systemdtest.Fake{
		Properties: running("powernode-one_b.service"),
		Results:    map[string]string{"powernode-one_a.service": "failed"},
	}
	f.Properties["powernode-one_a.service"] = map[string]any{"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": int32(1)}
	c := node(t, f, one1)
	r, err := c.Do(t.Context(), "one", ActionRestart)
	if err != nil || r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	a, b := r.Services[0], r.Services[1]
	if a.Result != "failed" || a.Why != "exit-code" || len(a.Log) != 1 || b.Result != "done" || b.Log != nil {
		t.Errorf("%+v\n%+v", a, b)
	}
	r, err = c.Do(t.Context(), "one", ActionStatus)
	if err != nil || r.OK || r.Services[0].Result != "" || r.Services[0].Log == nil {
		t.Errorf("%+v, %v", r, err)
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "Unit is masked.\x1b[31m" })
	r, err = c.Do(t.Context(), "one", ActionStart)
	if err != nil || r.OK || r.Services[1].Result != "refused" || !strings.Contains(r.Services[1].Error, "masked") || strings.Contains(r.Services[1].Error, "\x1b") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUnhealthyIsWrong(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-shop_db.service", "powernode-shop_cache.service", "powernode-shop_stats.service", "powernode-shop_web.service")}
	c := node(t, f, shop)
	if err := writeRecord(c.Run, healthDir, "powernode-shop_db.service", Health{State: HealthBad, Detail: "connection refused"}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Do(t.Context(), "shop", ActionStatus)
	if err != nil || r.OK || r.Services[0].Health.Detail == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInitRestartsByItsOwnLine(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-chrony.init.service")}
	c := node(t, f, legacy)
	if r, err := c.Do(t.Context(), "chrony", ActionRestart); err != nil || !r.OK {
		t.Errorf("%+v, %v", r, err)
	}
	if diff := cmp.Diff([]string{"ReloadOrRestartUnit powernode-chrony.init.service"}, f.Asked()); diff != "" {
		t.Error(diff)
	}
}

// TestOnlyOneService: of a module's services one can be meant, and none that isn't one of them.
func TestOnlyOneService(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-shop_db.service", "powernode-shop_cache.service", "powernode-shop_stats.service", "powernode-shop_web.service")}
	c := node(t, f, shop)
	c.Only = "powernode-shop_cache.service"
	r, err := c.Do(t.Context(), "shop", ActionRestart)
	if err != nil || !r.OK || len(r.Services) != 1 || r.Services[0].Service != "cache" {
		t.Errorf("%+v, %v", r, err)
	}
	c.Only = "powernode-shop_nobody.service"
	if _, err := c.Do(t.Context(), "shop", ActionStop); fault.KindOf(err) != fault.Refuse {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"RestartUnit powernode-shop_cache.service"}, f.Asked()); diff != "" {
		t.Error(diff)
	}
}

func TestNoActionWithout(t *testing.T) {
	f := &systemdtest.Fake{}
	c := node(t, f, one1)
	for _, test := range []struct{ name, want string }{{"other", "no services"}, {"../../x", "not valid"}, {"", "not valid"}} {
		if _, err := c.Do(t.Context(), test.name, ActionStart); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.name, err)
		}
	}
	set := MakeAll([]Module{moduleOf(t, "schema_version: 1\nname: bad\nservices:\n- {name: a, start_command: a|b}\n")}, Node{Agent: agentPath})
	if _, err := Place(c.Run, set); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), "bad", ActionStart); fault.AreaOf(err) != fault.Service || !strings.Contains(err.Error(), "shell") {
		t.Errorf("%v", err)
	}
	if len(f.Asked()) > 0 {
		t.Errorf("%q", f.Asked())
	}
	run := t.TempDir()
	if _, err := Place(run, setOf(t, one1)); err != nil {
		t.Fatal(err)
	}
	_, err := Control{Systemd: systemd.Manager{Run: run}, Run: run}.Do(t.Context(), "one", ActionStatus)
	if !errors.Is(err, systemd.ErrNone) || fault.AreaOf(err) != fault.Service {
		t.Errorf("%v", err)
	}
}
