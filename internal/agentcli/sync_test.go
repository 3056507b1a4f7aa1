package agentcli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeconfig/apply"
)

const (
	aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINW/Sj/M5xewOIvMJ0nrwUitmWmyP0XuG2Bf1Yd4V2rE alice"
	bobKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOzBtYcn8/ErMZSIGp7LneCyjOeyByMNjpMP4bznXiVs bob"
)

// syncNode is a machine in a directory, with modules that a test chooses.
type syncNode struct {
	t       *testing.T
	root    string
	config  *nodeapi.NodeConfig
	modules syncPart
	// modulesErr, configErr and lockErr are what fails.
	modulesErr, configErr, lockErr error
	locked                         int
}

func newSyncNode(t *testing.T) *syncNode {
	t.Helper()
	n := &syncNode{t: t, root: t.TempDir(), modules: syncPart{Result: syncInStep, What: "nothing to do"}, config: &nodeapi.NodeConfig{
		Digest: strings.Repeat("ab", 32), Hostname: "web-1", Hosts: []nodeapi.HostEntry{{Address: "10.0.0.5", Names: []string{"db"}}},
		Users: []nodeapi.UserKeys{{Name: "me", AuthorizedKeys: []string{aliceKey, bobKey}}},
	}}
	n.write("etc/passwd", fmt.Sprintf("me:x:%d:%d::/home/me:\n", os.Geteuid(), os.Getegid()))
	n.write("home/me/.ssh/authorized_keys", "ssh-ed25519 AAAA local\n")
	n.write("etc/hosts", "127.0.0.1 localhost\n")
	return n
}

func (n *syncNode) write(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *syncNode) read(name string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

func (n *syncNode) run(dryRun bool) (*syncDoc, string, error) {
	n.t.Helper()
	doc, err := syncer{
		dryRun:  dryRun,
		modules: func(context.Context) (*changeDoc, syncPart, error) { return nil, n.modules, n.modulesErr },
		config:  func(context.Context) (*nodeapi.NodeConfig, error) { return n.config, n.configErr },
		machine: func() (configured, func(), error) {
			if n.lockErr != nil {
				return nil, nil, n.lockErr
			}
			n.locked++
			return openMachine(n.root, apply.Options{DryRun: dryRun}, func() { n.locked-- })
		},
	}.run(n.t.Context())
	if n.locked != 0 {
		n.t.Error("the lock is held")
	}
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	if err := doc.table(&out); err != nil {
		n.t.Fatal(err)
	}
	return doc, out.String(), nil
}

// results are those of the parts in order.
func results(doc *syncDoc) string {
	var list []string
	for _, p := range doc.Parts {
		list = append(list, string(p.Result))
	}
	return strings.Join(list, ", ")
}

func TestSync(t *testing.T) {
	n := newSyncNode(t)
	before := n.read("etc/hosts")
	doc, table, err := n.run(true)
	if err != nil || results(doc) != "in step, would change, would change, would change" || doc.exit() != nil {
		t.Fatalf("dry run: %+v, %v", doc, err)
	}
	for _, line := range []string{
		"PART                   RESULT        WHAT\n", "modules                in step       nothing to do\n",
		"authorized keys of me  would change  /home/me/.ssh/authorized_keys: 2 added, 0 removed\n",
		"\nauthorized keys of me, /home/me/.ssh/authorized_keys:\n+ " + aliceKey + "\n+ " + bobKey + "\n",
		"\nhost name, /etc/hostname:\n+ web-1\n", "\nhosts, /etc/hosts:\n+ 10.0.0.5 db\n",
	} {
		if !strings.Contains(table, line) {
			t.Errorf("the table lacks %q:\n%s", line, table)
		}
	}
	if n.read("etc/hosts") != before || strings.Contains(n.read("home/me/.ssh/authorized_keys"), "alice") {
		t.Error("a dry run changed something")
	}
	if doc, _, err = n.run(false); err != nil || results(doc) != "in step, changed, changed, changed" || doc.exit() != nil {
		t.Fatalf("%+v, %v", doc, err)
	}
	if got := n.read("home/me/.ssh/authorized_keys"); !strings.HasPrefix(got, "ssh-ed25519 AAAA local\n# BEGIN") || !strings.Contains(got, aliceKey+"\n"+bobKey+"\n") {
		t.Errorf("%q", got)
	}
	if !strings.Contains(n.read("etc/hosts"), "10.0.0.5 db") || n.read("etc/hostname") != "web-1\n" {
		t.Error("hosts or host name")
	}
	n.config.Users[0] = nodeapi.UserKeys{Name: "me", AuthorizedKeys: []string{bobKey}}
	if _, table, err = n.run(false); err != nil || !strings.Contains(table, "- "+aliceKey+"\n") || strings.Contains(n.read("home/me/.ssh/authorized_keys"), "alice") {
		t.Errorf("%s, %v", table, err)
	}
}

// TestSyncInStep: what is right keeps its times and its inode.
func TestSyncInStep(t *testing.T) {
	n := newSyncNode(t)
	if _, _, err := n.run(false); err != nil {
		t.Fatal(err)
	}
	files := []string{"etc", "etc/hosts", "etc/hostname", "home/me", "home/me/.ssh", "home/me/.ssh/authorized_keys"}
	var before []os.FileInfo
	for _, name := range files {
		info, err := os.Lstat(filepath.Join(n.root, name))
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, info)
	}
	doc, _, err := n.run(false)
	if err != nil || results(doc) != "in step, in step, in step, in step" {
		t.Fatalf("%+v, %v", doc, err)
	}
	for i, name := range files {
		info, err := os.Lstat(filepath.Join(n.root, name))
		if err != nil || !os.SameFile(info, before[i]) || !info.ModTime().Equal(before[i].ModTime()) {
			t.Errorf("%s was touched: %v, %v, %v", name, before[i], info, err)
		}
	}
}

// TestSyncParts: a part that fails keeps no other back, and changes nothing.
func TestSyncParts(t *testing.T) {
	refused := fault.New(fault.Refuse, fault.Verify, "sign it", "no signature")
	away := fault.New(fault.Retry, fault.Platform, "wait", "the platform doesn't answer")
	for _, c := range []struct {
		name, want string
		change     func(n *syncNode)
		says       string
		exit       int
	}{
		{"modules are refused", "failed, changed, changed, changed", func(n *syncNode) { n.modulesErr = refused }, "no signature; sign it", cli.ExitPartial},
		{"some modules are", "partly, changed, changed, changed", func(n *syncNode) { n.modules.Result = syncPartly }, "", cli.ExitPartial},
		{"the configuration can't be read", "in step, failed", func(n *syncNode) { n.configErr = away }, "the platform doesn't answer; wait", cli.ExitPartial},
		{"somebody else is at it", "in step, failed", func(n *syncNode) { n.lockErr = away }, "doesn't answer", cli.ExitPartial},
		{"an empty list", "in step, failed, changed, changed", func(n *syncNode) { n.config.Users[0].AuthorizedKeys = nil }, "the list of keys is empty; nothing is changed", cli.ExitPartial},
		{"a malformed list", "in step, failed, changed, changed", func(n *syncNode) {
			n.config.Users[0].AuthorizedKeys = []string{aliceKey, "ssh-ed25519 AAAA"}
		}, "key 2 of 2", cli.ExitPartial},
		{"one of two users", "in step, failed, changed, changed, changed", func(n *syncNode) {
			n.config.Users = append([]nodeapi.UserKeys{{Name: "nobody-here", AuthorizedKeys: []string{aliceKey}}}, n.config.Users...)
		}, "there is no user nobody-here", cli.ExitPartial},
		{"a bad host name", "in step, changed, failed, changed", func(n *syncNode) { n.config.Hostname = "a\nb" }, "want letters", cli.ExitPartial},
		{"bad hosts", "in step, changed, changed, failed", func(n *syncNode) { n.config.Hosts[0].Address = "x" }, "isn't the address", cli.ExitPartial},
		{"hosts in a mess", "in step, changed, changed, failed", func(n *syncNode) { n.write("etc/hosts", "# END powernode\n") }, "one pair", cli.ExitPartial},
		{"nothing set", "in step, not set, not set, not set", func(n *syncNode) { n.config = &nodeapi.NodeConfig{Digest: n.config.Digest} }, "the platform says nothing about it", 0},
		{"the existing platform", "in step, changed, not set, not set", func(n *syncNode) { n.config.Digest, n.config.Hostname, n.config.Hosts = "", "", nil }, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newSyncNode(t)
			c.change(n)
			doc, table, err := n.run(false)
			if err != nil || results(doc) != c.want || !strings.Contains(table, c.says) {
				t.Errorf("%v: %s", err, table)
			}
			if got := cli.ExitCode(doc.exit()); doc.exit() == nil && c.exit != 0 || doc.exit() != nil && (!errors.Is(doc.exit(), cli.ExitStatus(c.exit)) || got == 0) {
				t.Errorf("exit: %v, want %d", doc.exit(), c.exit)
			}
		})
	}
	n := newSyncNode(t)
	n.modulesErr, n.configErr = refused, away
	if _, _, err := n.run(false); !errors.Is(err, refused) {
		t.Errorf("both: %v", err)
	}
}
