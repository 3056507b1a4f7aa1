package operatorcli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// copied is an operator whose credential file is a copy, as on another machine.
func copied(t *testing.T, p *platformtest.Platform) (file string, run func(args ...string) (code int, out, errs string)) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Dir, operatorapi.CredentialName))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	fields["note"] = "of my own"
	if data, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "mine.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, func(args ...string) (int, string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(string) string { return "" }}
		return app.Run(context.Background(), New(app), append([]string{"--config", file}, args...)), out.String(), errs.String()
	}
}

func caOf(t *testing.T, file string) string {
	t.Helper()
	config, err := operatorclient.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return config.CAPEM
}

// TestCACommands rolls the authority by the command line, from the platform's machine, from another one that
// follows, and from one that sleeps through all of it.
func TestCACommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	mine, run := copied(t, p)
	asleep, runAsleep := copied(t, p)
	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(mine, link); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(p.Dir, operatorapi.CredentialName)
	origin := caOf(t, mine)

	if got := o.ok("ca", "list"); !strings.Contains(got, "active") || strings.Count(got, "\n") != 2 {
		t.Error(got)
	}
	p.Enroll("web-1", "amd64")
	if code, out, errs := run("ca", "prepare"); code != 0 || !strings.Contains(out, "prepared") || !strings.Contains(out, "web-1") || !strings.Contains(errs, "mine.json is up to date") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if caOf(t, mine) != caOf(t, own) || caOf(t, mine) == origin {
		t.Error("the credential files don't hold the new bundle")
	}
	if data, err := os.ReadFile(mine); err != nil || !strings.Contains(string(data), "of my own") {
		t.Errorf("%s, %v", data, err)
	}
	if got := o.ok("ca", "activate"); !strings.Contains(got, "trusted") || strings.Count(got, "active") != 1 {
		t.Error(got)
	}
	code, _, errs := run("ca", "retire")
	if code == 0 || !strings.Contains(errs, "web-1 (its certificate") || !strings.Contains(errs, "with --force: 1 node holds a certificate by authority") {
		t.Errorf("%d %s", code, errs)
	}
	var list operatorapi.CAList
	o.into(&list, "ca", "list")
	if len(list.Authorities) != 2 || len(list.Behind) != 1 || list.Authorities[0].Certificates != 1 || list.Authorities[1].CrossSignedBy != list.Authorities[0].ID {
		t.Errorf("%+v", list)
	}
	if got := o.ok("ca", "retire", list.Authorities[0].ID, "--force"); !strings.Contains(got, "retired") || !strings.Contains(got, "attention") || !strings.Contains(got, "under --renew-expired 30d it renews its own") {
		t.Error(got)
	}
	if code, _, errs := run("ca", "prepare", "--take-up", "none"); code != 1 || !strings.Contains(errs, `there is no key of an authority "none"; see powernode ca list`) {
		t.Errorf("%d %s", code, errs)
	}
	// By way of the link, whose target is replaced and not the link.
	if code, out, errs := run("node", "list", "--config", link); code != 0 || !strings.Contains(out, "web-1") || !strings.Contains(errs, "is up to date") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
	// Who slept through it trusts the first authority only, and is led to the last.
	if code, out, errs := runAsleep("node", "list"); code != 0 || !strings.Contains(out, "web-1") || !strings.Contains(errs, "is up to date") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	for _, file := range []string{mine, asleep} {
		if caOf(t, file) != caOf(t, own) || caOf(t, file) == origin {
			t.Errorf("%s doesn't hold the new authority", file)
		}
	}
	if code, _, errs := run("node", "list"); code != 0 || errs != "" {
		t.Errorf("%d %s", code, errs)
	}
}
