package operatorcli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

const (
	aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINW/Sj/M5xewOIvMJ0nrwUitmWmyP0XuG2Bf1Yd4V2rE alice"
	bobKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOzBtYcn8/ErMZSIGp7LneCyjOeyByMNjpMP4bznXiVs bob"
)

func TestNodeConfigCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	o.ok("node", "create", "web-1")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := file("keys", "# admins\n\n"+aliceKey+"\nfrom=\"10.0.0.0/8\" "+bobKey+"\n")
	hosts := file("hosts", "10.0.0.5 db.internal db # the database\n")

	if out := o.ok("node", "config", "show", "web-1"); !strings.Contains(out, "never") {
		t.Error(out)
	}
	out := o.ok("node", "config", "set", "web-1", "--hostname", "Web-1.example.org", "--hosts", hosts, "--keys", "root="+keys, "--no-keys", "old")
	for _, word := range []string{"web-1.example.org", "10.0.0.5", "db.internal db", "root", `from="10.0.0.0/8"`, "alice", "SHA256:", "none", "1 line"} {
		if !strings.Contains(out, word) {
			t.Errorf("lacks %q:\n%s", word, out)
		}
	}
	var c operatorapi.NodeConfig
	o.into(&c, "node", "config", "set", "web-1", "--no-hostname", "--no-hosts", "--forget-keys", "old")
	if c.Hostname != "" || c.Hosts == nil || len(c.Hosts) != 0 || len(c.Users) != 1 || len(c.Users[0].AuthorizedKeys) != 2 {
		t.Errorf("%+v", c)
	}
	if out := o.ok("node", "show", "web-1"); !strings.Contains(out, "node.configured") {
		t.Error(out)
	}
	for want, args := range map[string][]string{
		"at least one of the flags": {},
		"--hostname":                {"--hostname", "a_b"},
		"if any flags in the group": {"--hosts", hosts, "--no-hosts"},
		"isn't the address":         {"--hosts", keys},
		"holds no entries":          {"--hosts", file("none", "# nothing\n")},
		"list of keys is empty":     {"--keys", "root=" + file("empty", "# nothing\n")},
		"key 2 of 2":                {"--keys", "root=" + file("bad", aliceKey+"\nssh-rsa x\n")},
		"USER=FILE":                 {"--keys", keys},
		"no such file":              {"--keys", "root=" + filepath.Join(dir, "missing")},
		"more than 1.0 MiB":         {"--keys", "root=" + file("long", strings.Repeat("#", operatorapi.MaxConfigChange+1))},
		"nothing is set of user":    {"--forget-keys", "nobody"},
	} {
		if code, out, errs := o.run(append([]string{"node", "config", "set", "web-1"}, args...)...); code == 0 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d, %s%s", args, code, out, errs)
		}
	}
}
