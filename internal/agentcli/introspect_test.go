package agentcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity"
)

// TestIntrospectSources asks one source and all of them, and shows no secret.
func TestIntrospectSources(t *testing.T) {
	const token = "hXk2-Zz_9QpLm0aBcDeFgHiJkLmNoPqRsTuVwXyZ012"
	dir := t.TempDir()
	cfg := filepath.Join(dir, "identity.cfg")
	text := "SERVER=https://p.example\nKEY=" + token + "\nPROXY=http://u:hunter2@proxy.example:3128\nCLOCK=local\nCA_URL=https://s3.example/ca.pem?X-Amz-Signature=hunter2\nCA_SHA256=" + strings.Repeat("0", 64) + "\n"
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
		"found bootstrap_token, platform_url, ca_url, ca_sha256, proxy, clock (", "https://p.example (from file:" + cfg + ")", "redacted (from ",
		"http://u:redacted@proxy.example:3128 (from ", "https://s3.example/ca.pem?redacted (from ", "local (from ",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	// A claim is shown where it may be: without a token, begun, accepted.
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(cfg, []byte("SERVER=https://p.example\nCA_SHA256="+strings.Repeat("0", 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kept, want string }{
		{"", "no claim was begun"},
		{`"claim_key":"` + strings.Repeat("0b", 32) + `"`, "asks https://p.example to be claimed"},
		{
			`"claim_key":"` + strings.Repeat("0b", 32) + `","bootstrap_token":"` + token + `","instance_id":"5ce38c87-d72e-4d86-ab38-b908377135e8","platform_url":"https://p.example"`,
			"was claimed at https://p.example",
		},
	} {
		if c.kept != "" {
			text := `{"version":1,"asked_url":"https://p.example","mac":"52:54:00:12:34:56",` + c.kept + "}"
			err := errors.Join(os.MkdirAll(boot.ClaimDir(state), 0o700), os.WriteFile(filepath.Join(boot.ClaimDir(state), "claim.json"), []byte(text), 0o600))
			if err != nil {
				t.Fatal(err)
			}
		}
		if out := run(cli.Table, "--identity-file", cfg, "--identity-source", "file,claim"); !strings.Contains(out, "source claim:") || !strings.Contains(out, c.want) || strings.Contains(out, "0b0b") {
			t.Errorf("no %q in\n%s", c.want, out)
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
