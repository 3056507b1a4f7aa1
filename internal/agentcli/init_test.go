package agentcli

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

// servedNode is a /run with a module's services and a service manager that knows one of them as failed.
func servedNode(t *testing.T) (run string, f *systemdtest.Fake) {
	t.Helper()
	manifest, err := module.ParseManifest([]byte(`
schema_version: 1
name: shop
security: {egress_allow: ["192.0.2.1:443"]}
services:
- {name: web, start_command: /bin/web, exposed_ports: [{port: 80}, {port: 53, protocol: udp}], health: {endpoint: /}, dependencies: [{service: db}]}
- {name: db, start_command: /bin/db}
`))
	if err != nil {
		t.Fatal(err)
	}
	run = t.TempDir()
	set := services.MakeAll([]services.Module{{Name: "shop", Version: "1.0", Manifest: manifest}}, services.Node{Agent: "/agent"})
	if _, err := services.Place(run, set); err != nil {
		t.Fatal(err)
	}
	f = &systemdtest.Fake{Properties: map[string]map[string]any{
		"powernode-shop_web.service": {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"},
		"powernode-shop_db.service":  {"ActiveState": "active", "SubState": "running", "Result": "success", "ActiveEnterTimestamp": uint64(1e15)},
	}}
	f.Start(t, run)
	return run, f
}

func wholeAgent(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	app := &cli.App{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" }, Format: cli.Table}
	return app.Run(t.Context(), New(app), args), stdout.String(), stderr.String()
}

func TestInit(t *testing.T) {
	run, f := servedNode(t)
	code, out, errs := wholeAgent(t, "init", "shop", "status", "--run", run)
	if code != cli.ExitService || errs != "" {
		t.Errorf("%d, %q", code, errs)
	}
	for _, want := range []string{"80/tcp 53/udp", "active (running)", "2001-09-09T01:46:40Z", "failed (failed)", "powernode-shop_web.service: it ended with exit-code", "remark: web of module shop"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	f.Set(func(f *systemdtest.Fake) { f.Properties["powernode-shop_web.service"]["ActiveState"] = "active" })
	code, out, errs = wholeAgent(t, "init", "shop", "start", "--run", run, "-o", "json")
	var report services.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || errs != "" || !report.OK || len(report.Services) != 2 || report.Services[1].Result != "done" {
		t.Errorf("%d, %v, %q\n%s", code, err, errs, out)
	}
	if got := strings.Join(f.Asked(), ","); got != "StartUnit powernode-shop_db.service,StartUnit powernode-shop_web.service" {
		t.Error(got)
	}
}

func TestInitSaysNo(t *testing.T) {
	run, f := servedNode(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"other", "start"}, cli.ExitService, "no services"},
		{[]string{"../shop", "start"}, cli.ExitFailure, "not valid"},
		{[]string{"shop", "enable"}, cli.ExitFailure, "unknown action"},
		{[]string{"shop"}, cli.ExitFailure, "accepts 2 arg"},
	} {
		code, _, errs := wholeAgent(t, append([]string{"init", "--run", run}, test.args...)...)
		if code != test.code || !strings.Contains(errs, test.want) {
			t.Errorf("%q: %d, %q", test.args, code, errs)
		}
	}
	if len(f.Asked()) > 0 {
		t.Errorf("%q", f.Asked())
	}
	code, _, errs := wholeAgent(t, "init", "shop", "start", "--run", filepath.Join(t.TempDir(), "none"))
	if code != cli.ExitService || !strings.Contains(errs, "no systemd runs here") {
		t.Errorf("%d, %q", code, errs)
	}
}

// TestUnitHelperIsForUnits: and for those of modules only.
func TestUnitHelperIsForUnits(t *testing.T) {
	for _, what := range []string{services.HelperHealth, services.HelperRecord, services.HelperWait, services.HelperEgress} {
		code, _, errs := wholeAgent(t, services.HelperCommand, what, "--unit", "sshd.service")
		if code != cli.ExitFailure || !strings.Contains(errs, "isn't the unit") && !strings.Contains(errs, "is not the unit") {
			t.Errorf("%s: %d, %q", what, code, errs)
		}
	}
	code, _, errs := wholeAgent(t, services.HelperCommand, services.HelperHealth, "--unit", "powernode-a_b.service", "--endpoint", "http://169.254.169.254/")
	if code != cli.ExitService || !strings.Contains(errs, "stays on the machine") {
		t.Errorf("%d, %q", code, errs)
	}
	if out := helpOf(t); strings.Contains(out, services.HelperCommand) {
		t.Errorf("people are shown it:\n%s", out)
	}
}

func helpOf(t *testing.T) string {
	t.Helper()
	_, out, _ := wholeAgent(t, "--help")
	return out
}
