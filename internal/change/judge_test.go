package change

import (
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
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
