package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/cli"
)

const (
	aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINW/Sj/M5xewOIvMJ0nrwUitmWmyP0XuG2Bf1Yd4V2rE alice"
	bobKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOzBtYcn8/ErMZSIGp7LneCyjOeyByMNjpMP4bznXiVs bob"
)

// users returns a module with accounts, toor from version 2 on.
func users(version string) mod {
	m := mod{Name: "users", Version: version, Files: map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\ndeploy:x:1000:1000::/home/deploy:/bin/sh\n",
		"etc/hosts":  "127.0.0.1 localhost\n",
		"root/":      "", "home/deploy/": "",
	}}
	if version != "1" {
		m.Files["etc/passwd"] += "toor:x:0:0::/srv/toor:/bin/sh\n"
		m.Files["srv/toor/"] = ""
	}
	return m
}

// syncDoc is the part of `sync --output json` that tests look at.
type syncDoc struct {
	ConfigDigest string `json:"config_digest"`
	Parts        []struct {
		Part, User, Result, Error string
	} `json:"parts"`
	Modules struct {
		Outcome string `json:"outcome"`
	} `json:"modules"`
}

// results are "part user: result".
func (d syncDoc) results() []string {
	var list []string
	for _, p := range d.Parts {
		list = append(list, strings.TrimSpace(p.Part+" "+p.User)+": "+p.Result)
	}
	return list
}

// TestSync: a running node comes to what its operator has set, part by part, and the other node's is its own.
func TestSync(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), users("1"))
	n := p.node("web", "base", "users")
	s := n.boot()
	if r := s.agent("sync"); r.Code != cli.ExitOK || !strings.Contains(r.Stdout, "not set") {
		t.Fatalf("nothing is set: %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	dir := tempDir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(text), 0o600)
		return path
	}
	keys := file("keys", "# admins\n"+aliceKey+"\n"+bobKey+"\n")
	set := func(args ...string) string {
		t.Helper()
		return p.Operator(append([]string{"node", "config", "set", "web", "--output", "json"}, args...)...).OK(t)
	}
	checkShape(t, "node-config", set("--hostname", "web-1.example.org", "--hosts", file("hosts", "10.0.0.5 db.internal db\n"), "--keys", "root="+keys, "--keys", "deploy="+keys))

	before := s.read("/etc/hosts")
	// What the platform says the time is would be written down by anything that isn't a dry run.
	if err := os.Remove(filepath.Join(n.state(), "clock.json")); err != nil {
		t.Fatal(err)
	}
	all := s.everything()
	if r := s.agent("sync", "--dry-run"); r.Code != cli.ExitOK || !strings.Contains(r.Stdout, "+ "+aliceKey) || !strings.Contains(r.Stdout, "would change") {
		t.Errorf("dry run: %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if s.has("/root/.ssh/authorized_keys") || s.has("/etc/hostname") || s.read("/etc/hosts") != before {
		t.Error("a dry run changed something")
	}
	if now := s.everything(); now != all {
		t.Errorf("a dry run changed something: %s", cmp.Diff(strings.Split(all, "\n"), strings.Split(now, "\n")))
	}

	// deploy's home is root's: there the agent may do what deploy may, which is nothing.
	r := s.agent("sync", "--output", "json")
	checkShape(t, "sync", r.Stdout)
	doc := decode[syncDoc](t, []byte(r.Stdout))
	want := []string{"modules: in step", "authorized keys deploy: failed", "authorized keys root: changed", "host name: changed", "hosts: changed"}
	if r.Code != cli.ExitPartial || !slices.Equal(doc.results(), want) || len(doc.ConfigDigest) != 64 {
		t.Errorf("%d: %q\n%s%s", r.Code, doc.results(), r.Stdout, r.Stderr)
	}
	if got := s.read("/root/.ssh/authorized_keys"); !strings.Contains(got, "\n"+aliceKey+"\n"+bobKey+"\n") {
		t.Errorf("keys: %q", got)
	}
	if got := s.read("/etc/hosts"); !strings.HasPrefix(got, before) || !strings.Contains(got, "\n10.0.0.5 db.internal db\n") {
		t.Errorf("hosts: %q", got)
	}
	if file, kernel := s.read("/etc/hostname"), s.read("/proc/sys/kernel/hostname"); file != "web-1.example.org\n" || kernel != file {
		t.Errorf("host name: %q, %q", file, kernel)
	}

	// One key is taken away; a user comes with the modules.
	p.Publish(users("2"))
	set("--keys", "root="+file("bob", bobKey+"\n"), "--keys", "toor="+keys, "--forget-keys", "deploy")
	r = s.agent("sync", "--output", "json")
	doc = decode[syncDoc](t, []byte(r.Stdout))
	toor, code := "changed", cli.ExitOK
	if doc.Modules.Outcome != "live" {
		toor, code = "failed", cli.ExitPartial // it comes with the next boot
	}
	want = []string{"modules: changed", "authorized keys root: changed", "authorized keys toor: " + toor, "host name: in step", "hosts: in step"}
	if r.Code != code || !slices.Equal(doc.results(), want) {
		t.Errorf("%d, %s: %q\n%s%s", r.Code, doc.Modules.Outcome, doc.results(), r.Stdout, r.Stderr)
	}
	t.Logf("modules: %s", doc.Modules.Outcome)
	if got := s.read("/root/.ssh/authorized_keys"); strings.Contains(got, "alice") || !strings.Contains(got, bobKey) {
		t.Errorf("keys: %q", got)
	}
	if code == cli.ExitOK {
		if r := s.agent("sync"); r.Code != cli.ExitOK || strings.Contains(r.Stdout, "changed") {
			t.Errorf("again: %d\n%s", r.Code, r.Stdout)
		}
	}

	p.Stop()
	if r := s.agent("sync"); r.Code != cli.ExitPlatform || r.Stdout != "" || !strings.Contains(r.Stderr, p.Listen) {
		t.Errorf("without the platform: %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if got := s.read("/root/.ssh/authorized_keys"); !strings.Contains(got, bobKey) {
		t.Errorf("keys: %q", got)
	}
	s.exit()
}
