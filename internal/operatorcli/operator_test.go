package operatorcli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestOperatorCommands makes operators' tokens, uses one, sees it in the audit log, and revokes it.
func TestOperatorCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	file := filepath.Join(t.TempDir(), "ci.json")
	if got := o.ok("token", "operator", "create", "ci", "--role", "read", "--file", file); !strings.Contains(got, file) || strings.Contains(got, "token ") {
		t.Error(got)
	}
	config, err := operatorclient.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.ok("token", "operator", "create", "alice", "--role", "admin"); !strings.Contains(got, "alice") || !strings.Contains(got, "token") {
		t.Error(got)
	}
	for name, args := range map[string][]string{
		"a file that is there": {"create", "bob", "--role", "read", "--file", file}, "no role": {"create", "bob"}, "another role": {"create", "bob", "--role", "boss"},
		"a name that is taken": {"create", "ci", "--role", "read", "--file", file + "2"}, "one that isn't there": {"revoke", "bob"}, "the first": {"revoke", "operator"},
	} {
		code, out, errs := o.run(append([]string{"token", "operator"}, args...)...)
		if code == 0 || out != "" || !strings.Contains(errs, "; ") {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
	}
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("a file without a token stays")
	}
	if got, err := operatorclient.LoadConfig(file); err != nil || got.Token.Reveal() != config.Token.Reveal() {
		t.Errorf("the file that was there: %v", err)
	}
	code, out, errs := o.run("node", "create", "web", "--config", file)
	if code == 0 || out != "" || !strings.Contains(errs, "needs admin") || !strings.Contains(errs, "powernode token operator create") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if got := o.ok("node", "list", "--config", file); !strings.Contains(got, "STATE") {
		t.Error(got)
	}
	var list operatorapi.OperatorList
	o.into(&list, "token", "operator", "list")
	if list.Count != 3 {
		t.Errorf("%+v", list)
	}
	if got := o.ok("audit", "list"); !strings.Contains(got, "operator.create") || !strings.Contains(got, "FORBIDDEN") || !strings.Contains(got, "127.0.0.1") {
		t.Error(got)
	}
	var log operatorapi.AuditList
	o.into(&log, "audit", "list", "--by", "ci")
	if log.Count != 1 || log.Entries[0].Action != "node.create" || log.Entries[0].Role != operatorapi.RoleRead || log.Entries[0].Result != "FORBIDDEN" {
		t.Errorf("%+v", log)
	}
	if got := o.ok("token", "operator", "revoke", "ci"); strings.Contains(got, "ci ") {
		t.Error(got)
	}
	if code, _, errs := o.run("node", "list", "--config", file); code == 0 || !strings.Contains(errs, "refuses the operator token") {
		t.Errorf("%d %q", code, errs)
	}
	if code, _, errs := o.run("node", "list", "--state", "lost"); code == 0 || !strings.Contains(errs, "in-step") {
		t.Errorf("%d %q", code, errs)
	}
	o.ok("node", "create", "web")
	if got := o.ok("node", "list", "--state", "unknown"); !strings.Contains(got, "web") {
		t.Error(got)
	}
	if got := o.ok("node", "list", "--state", "drifted"); strings.Contains(got, "web") {
		t.Error(got)
	}
	if got := o.ok("node", "show", "web"); !strings.Contains(got, "unknown: it hasn't been heard of yet") {
		t.Error(got)
	}
}
