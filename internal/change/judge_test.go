package change

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

// TestWhoseUnit: the module of a unit is that of the file that systemd takes, wherever that lies.
func TestWhoseUnit(t *testing.T) {
	owner := func(path string) string {
		return map[string]string{"/lib/systemd/system/web.service": "nginx", "/usr/lib/systemd/system/web.service": "other", "/etc/systemd/system/own.service": "other"}[path]
	}
	report := aftercare.Report{Steps: []aftercare.Step{
		{Action: aftercare.StartUnit, What: "web.service", File: "/lib/systemd/system/web.service", Error: "x"},
		{Action: aftercare.RestartUnit, What: "powernode-site_serve.service", Error: "x"},
		{Action: aftercare.RestartUnit, What: "own.service", Error: "x"},
	}}
	failures, _ := (&Care{}).judge(report, owner)
	for i, want := range []string{"nginx", "site", ""} {
		if len(failures) != 3 || failures[i].Module != want {
			t.Fatalf("%+v", failures)
		}
	}
}

// TestAForeignUnitIsInThePlan: the module whose unit's place is taken, and nothing of it among what is to be started.
func TestAForeignUnitIsInThePlan(t *testing.T) {
	run := t.TempDir()
	if err := os.MkdirAll(filepath.Join(run, "systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "systemd/system/powernode-site_serve.service"), []byte("[Unit]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Care{Root: "/", Run: run, Agent: "/agent"}
	var modules []services.Module
	for _, name := range []string{"site", "other"} {
		modules = append(modules, services.Module{Name: name, Version: "1", Manifest: &module.Manifest{Name: name, Services: []module.Service{{Name: "serve", StartCommand: "/bin/x"}}}})
	}
	units, taken, err := c.generated(c.set(modules))
	if err != nil || len(taken) != 1 || taken[0].Module != "site" || len(units) != 1 || units[0].Name != "powernode-other_serve.service" || !units[0].Start {
		t.Errorf("%+v, %+v, %v", units, taken, err)
	}
}
