package vm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// TestLiveFinish kills commands as by kill -9, in the middle of a change and while one waits for its confirmation, and expects the service, in
// the sandbox that a real systemd holds it in, to have what ran before run again, with nobody typing anything.
func TestLiveFinish(t *testing.T) {
	whole(t)
	t.Parallel()
	agent, err := killable()
	if err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t)
	debianModule(t, p)
	p.Publish(liveApp("1"))
	p.Publish(site("1"))
	n := p.node("finish", "debian", "app", "site")
	n.machine.Initramfs = initramfsOf(t, agent, p, "integrity: enforced\n", "")
	n.machine.Append = "systemd.show_status=0 systemd.getty_auto=no"
	s := n.start()
	s.WaitLine(`starting /sbin/init`)
	s.WaitInit()
	s.settled(1)
	before := s.inStep()
	again := func(what string) {
		t.Helper()
		s.left(what, change.JournalName, live.JournalName, change.ConfirmName)
		s.holds("/usr/share/site/page", liveText("the site", "1"))
		s.holds("/etc/app.conf", liveText("the configuration", "1"))
		s.holds("/opt/load/page", liveText("the page", "1"))
		s.holds(page, pageText("1"))
		s.active("powernode-site_serve.service", true)
		if doc := s.inStep(); doc.RootDigest != before.RootDigest || doc.Generation != before.Generation {
			t.Errorf("%s: generation %d runs, with the root %s", what, doc.Generation, doc.RootDigest)
		}
	}
	// The sandbox is what keeps the service from doing it itself.
	if got := s.Shell(`grep CapEff /proc/$(systemctl show -P MainPID powernode-agent.service)/status`).OK(t); !strings.Contains(got, "CapEff:\t00000004") {
		t.Errorf("the service has other rights than its unit says: %s", got)
	}

	// Some directories are replaced, others aren't, and nobody is there.
	s.killedAt("live-usr:attach", "detach", "app")
	again("killed in the middle")

	// The same while the service isn't there either: its start finishes it.
	s.Shell("systemctl stop powernode-agent.service").OK(t)
	s.killedAt("live-done:rename", "detach", "app")
	s.Shell("systemctl start powernode-agent.service").OK(t)
	if left := s.records(); slices.Contains(left, change.JournalName) || slices.Contains(left, live.JournalName) {
		t.Errorf("the service has started, and there is %q", left)
	}
	again("killed without a service")

	// The network is gone with the change, and with it whoever made it: first the terminal, then the rest.
	p.Stop()
	s.Shell(fmt.Sprintf(`%s detach site --confirm 20s & pid=$!
until [ -e %s/confirm.json ] && ! [ -e %[2]s/change.json ]; do kill -0 $pid || exit 1; sleep 0.2; done
kill -HUP $pid; sleep 2; kill -0 $pid || exit 2
kill -KILL $pid`, boot.AgentPath, boot.RunDir)).OK(t)
	if s.ReadError("/usr/share/site/page") == "" {
		t.Error("what was detached is still there")
	}
	s.left("killed while it waits", change.ConfirmName)
	s.holds("/usr/share/site/page", liveText("the site", "1"))
	p.Start()
	again("killed while it waits")
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// killedAt runs a command that ends at a labelled step as by kill -9.
func (s *system) killedAt(label string, args ...string) {
	s.n.t.Helper()
	if got := s.Write(killFile, "kill "+args[0]+"/"+label+"@1"); got != "" {
		s.n.t.Fatal(got)
	}
	if r := s.agent(args...); r.Code != -1 {
		s.n.t.Fatalf("it isn't killed at %s: exit code %d\n%s%s", label, r.Code, r.Stdout, r.Stderr)
	}
	if r := s.Do(qemu.Request{Op: "remove", Args: []string{killFile}}); r.Error != "" {
		s.n.t.Fatal(r.Error)
	}
}

// records are the files that this boot has now.
func (s *system) records() []string {
	return strings.Fields(s.Do(qemu.Request{Op: "list", Args: []string{boot.RunDir}}).Stdout)
}

// left waits until none of these is among them any more.
func (s *system) left(what string, records ...string) {
	s.n.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		names := s.records()
		if !slices.ContainsFunc(records, func(r string) bool { return slices.Contains(names, r) }) {
			return
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("%s: the service leaves %q\n%s", what, names, s.Shell("journalctl -b -n 60 --no-pager -u 'powernode-agent*'").Stdout)
		}
	}
}
