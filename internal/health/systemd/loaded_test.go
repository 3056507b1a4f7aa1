package systemd_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

func TestLoaded(t *testing.T) {
	f := &systemdtest.Fake{Properties: map[string]map[string]any{
		"web.service": {
			"ActiveState": "active", "SubState": "running", "FragmentPath": "/usr/lib/systemd/system/web.service",
			"DropInPaths": []string{"/etc/systemd/system/web.service.d/a.conf"}, "CanReload": true, "RefuseManualStop": false, "Type": "notify",
			"ExecStart":        []systemdtest.Exec{{Path: "/usr/sbin/web", Argv: []string{"web", "-f"}}},
			"EnvironmentFiles": []systemdtest.File{{Path: "/etc/default/web", Ignore: true}},
		},
		"web.socket":  {"ActiveState": "active", "SubState": "listening", "FragmentPath": "/usr/lib/systemd/system/web.socket"},
		"off.service": {"ActiveState": "inactive", "SubState": "dead", "FragmentPath": "/usr/lib/systemd/system/off.service"},
		"-.slice":     {"ActiveState": "active", "SubState": "active"},
	}}
	m := start(t, f)
	got, err := m.Loaded(t.Context())
	want := []systemd.LoadedUnit{
		{Name: "-.slice", Load: "loaded", Active: "active", Sub: "active"},
		{Name: "off.service", Load: "loaded", Active: "inactive", Sub: "dead"},
		{
			Name: "web.service", Load: "loaded", Active: "active", Sub: "running", Fragment: "/usr/lib/systemd/system/web.service",
			DropIns: []string{"/etc/systemd/system/web.service.d/a.conf"}, CanReload: true, Type: "notify",
			Programs: []string{"/usr/sbin/web"}, Arguments: []string{"web", "-f"}, EnvironmentFiles: []string{"/etc/default/web"},
		},
		{Name: "web.socket", Load: "loaded", Active: "active", Sub: "listening", Fragment: "/usr/lib/systemd/system/web.socket"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got[1].Runs() || !got[2].Runs() {
		t.Error("what runs isn't told from what doesn't")
	}
}

func TestLoadedOfMany(t *testing.T) {
	f := &systemdtest.Fake{Properties: make(map[string]map[string]any)}
	for i := range 200 {
		f.Properties[fmt.Sprintf("s%03d.service", i)] = map[string]any{"ActiveState": "active", "FragmentPath": fmt.Sprint(i)}
	}
	m := start(t, f)
	got, err := m.Loaded(t.Context())
	if err != nil || len(got) != 200 {
		t.Fatalf("%d, %v", len(got), err)
	}
	for i, u := range got {
		if u.Name != fmt.Sprintf("s%03d.service", i) || u.Fragment != fmt.Sprint(i) {
			t.Errorf("%d: %+v", i, u)
		}
	}
}
