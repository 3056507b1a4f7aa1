package agentcli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity"
)

// TestIntrospectSources asks one source and all of them, and shows no secret.
func TestIntrospectSources(t *testing.T) {
	const token = "hXk2-Zz_9QpLm0aBcDeFgHiJkLmNoPqRsTuVwXyZ012"
	dir := t.TempDir()
	cfg := filepath.Join(dir, "identity.cfg")
	text := "SERVER=https://p.example\nKEY=" + token + "\nPROXY=http://u:hunter2@proxy.example:3128\nCLOCK=local\nCA_SHA256=" + strings.Repeat("0", 64) + "\n"
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(format cli.Format, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: format, Getenv: func(string) string { return "" }}
		args = append([]string{"introspect", "--sources", "--state", filepath.Join(dir, "state")}, args...)
		if code := app.Run(t.Context(), New(app), args); code != cli.ExitOK {
			t.Fatalf("code %d: %s", code, &errs)
		}
		if s := out.String() + errs.String(); strings.Contains(s, token) || strings.Contains(s, "hunter2") {
			t.Fatalf("it shows a secret: %s", s)
		}
		return out.String()
	}
	table := run(cli.Table, "--identity-file", cfg)
	for _, want := range []string{
		"found bootstrap_token, platform_url, ca_sha256, proxy, clock (", "https://p.example (from file:" + cfg + ")", "redacted (from ",
		"http://u:redacted@proxy.example:3128 (from ", "local (from ",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	// Sources of this machine, none of which asks another.
	var doc struct {
		Sources []identity.Report `json:"sources"`
	}
	if err := json.Unmarshal([]byte(run(cli.JSON, "--identity-source", "dmi,cmdline,smbios,file", "--output", "json")), &doc); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range doc.Sources {
		names = append(names, r.Source)
		if r.Status == "" || r.Status != identity.StatusFound && r.Reason == "" {
			t.Errorf("%+v", r)
		}
	}
	if got := strings.Join(names, " "); got != "dmi cmdline smbios file:/boot/identity.cfg file:/etc/identity.cfg file:/persist/etc/identity.cfg" {
		t.Error(got)
	}
}
