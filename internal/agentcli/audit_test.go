package agentcli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// recordsOf returns the audit records that wait for the platform in a directory of record.
func recordsOf(t *testing.T, stateDir string) []nodeapi.Event {
	t.Helper()
	if _, err := os.Stat(filepath.Join(stateDir, eventsDir)); err != nil {
		return nil
	}
	q, err := event.Open(filepath.Join(stateDir, eventsDir), event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	b, err := q.Next(100)
	if err != nil {
		t.Fatal(err)
	}
	return b.Events
}

// runWhole runs the whole program.
func runWhole(ctx context.Context, t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &out, Format: cli.Table, Getenv: func(name string) string {
		return map[string]string{"SUDO_USER": "alice"}[name]
	}}
	return app.Run(ctx, New(app), args), out.String()
}

// TestAuditByHand: what a person does on the machine is recorded, with what came of it, in the queue that the service has open as well;
// what a task does is recorded by the service, and what only looks isn't.
func TestAuditByHand(t *testing.T) {
	dir := pastOf(t, 6)
	service, err := event.Open(filepath.Join(dir, eventsDir), event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	if code, text := runWhole(t.Context(), t, "gc", "--state="+dir, "--keep=2", "--quiet"); code != 0 {
		t.Fatal(code, text)
	}
	if code, text := runWhole(t.Context(), t, "detach", "--state="+dir, "--trust-policy="+dir+"/secret", "--stage", "nginx"); code == 0 {
		t.Fatal(text)
	}
	for _, args := range [][]string{{"gc", "--state=" + dir, "--dry-run"}, {"generations", "--state=" + dir}, {"status", "--state=" + dir}} {
		_, _ = runWhole(t.Context(), t, args...)
	}
	if code, text := runWhole(forTask(t.Context()), t, "gc", "--state="+dir); code != 0 {
		t.Fatal(code, text)
	}
	b, err := service.Next(100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range b.Events {
		if e.Kind != event.AuditKind || !strings.HasPrefix(e.Fields["who"], "user ") {
			t.Errorf("%+v", e)
		}
		got = append(got, e.Fields["command"]+": "+e.Fields["result"])
	}
	want := []string{"gc --keep=2: begun", "gc --keep=2: complete", "detach --stage nginx: begun"}
	if len(got) != 4 || !slices.Equal(got[:3], want) || !strings.HasPrefix(got[3], "detach --stage nginx: failed: ") || strings.Contains(strings.Join(got[:3], ""), "secret") {
		t.Errorf("%q", got)
	}
	// Where there is no node there is nothing to be kept, and none is made.
	none := filepath.Join(t.TempDir(), "none")
	if _, text := runWhole(t.Context(), t, "gc", "--state="+none); strings.Contains(text, "audit") {
		t.Error(text)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a directory of record was made for a record")
	}
}

// TestAuditIsNoHurdle: a queue that can't be written is said once, and the command does what it is there for.
func TestAuditIsNoHurdle(t *testing.T) {
	dir := pastOf(t, 2)
	if err := os.WriteFile(filepath.Join(dir, eventsDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, text := runWhole(t.Context(), t, "gc", "--state="+dir)
	if code != 0 || strings.Count(text, "warning: no audit record") != 1 {
		t.Errorf("%d: %s", code, text)
	}
}

// TestAuditedCommands: all that changes something is audited.
func TestAuditedCommands(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"attach", "detach", "update", "rollback", "sync", "gc", "enroll"} {
		args := []string{name, "--state=" + dir}
		switch name {
		case "attach", "detach":
			args = append(args, "nginx")
		case "enroll":
			args = append(args, "--tries=1", "--token=geheim", "--identity-file=/none")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, _ = runWhole(ctx, t, args...)
		cancel()
		records := recordsOf(t, dir)
		if !slices.ContainsFunc(records, func(e nodeapi.Event) bool { return strings.HasPrefix(e.Fields["command"], name) }) {
			t.Errorf("%s leaves no record", name)
		}
		for _, e := range records {
			if strings.Contains(e.Text, "geheim") {
				t.Errorf("a secret in a record: %s", e.Text)
			}
		}
	}
	for _, c := range []struct {
		args  []string
		looks bool
	}{{[]string{"nginx", "status"}, true}, {[]string{"nginx", "restart"}, false}} {
		cmd := &cobra.Command{Use: "init"}
		if got := onlyLooks(cmd, c.args); got != c.looks {
			t.Errorf("%v: %t", c.args, got)
		}
	}
}

// aCertificate is replaced as it is told to.
type aCertificate struct {
	*enroll.Keeper
	err error
}

func (c aCertificate) Rotate(context.Context) error   { return c.err }
func (c aCertificate) Renew(context.Context) error    { return c.err }
func (c aCertificate) Status() (enroll.Status, error) { return enroll.Status{Serial: "77"}, nil }

// TestAuditOfTheService: what the service does by itself is recorded when it is done.
func TestAuditOfTheService(t *testing.T) {
	var got []string
	record := func(command, result string, _ bool) { got = append(got, command+": "+result) }
	failing := auditedCertificate{aCertificate{err: errors.New("no")}, record}
	serving := auditedCertificate{aCertificate{}, record}
	if failing.Rotate(t.Context()) == nil || failing.Renew(t.Context()) == nil || len(got) > 0 {
		t.Errorf("%q", got)
	}
	if err := errors.Join(serving.Rotate(t.Context()), serving.Renew(t.Context())); err != nil {
		t.Error(err)
	}
	if want := []string{"rotate the node's certificate: complete: 77", "renew the node's certificate: complete: 77"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}

	dir := t.TempDir()
	q, err := event.Open(filepath.Join(dir, eventsDir), event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w := &platformWork{queue: q, log: slog.New(slog.DiscardHandler)}
	w.record("restart the machine", "begun: generation 7 isn't good in this boot", true)
	if a := finished(finishDoc{}, nil); a.Result != "" {
		t.Errorf("nothing was done: %+v", a)
	}
	a := finished(finishDoc{Done: []string{"generation 4 wasn't confirmed in time; generation 3 runs again"}}, errors.New("a unit"))
	(&trail{stateDir: dir, log: w.log}).put(a)
	records := recordsOf(t, dir)
	if len(records) != 2 || records[0].Severity != nodeapi.SeverityWarning || !strings.Contains(records[1].Text, "generation 3 runs again; failed: a unit") {
		t.Errorf("%+v", records)
	}
}
