package vm

import (
	"testing"

	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// TestLiveKept: with a writable layer on the disk, what was changed by hand goes along with what goes live: into the boot after a
// power cut, and back where the new generation doesn't boot.
func TestLiveKept(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(liveApp("1"))
	p.Publish(lab.Module{Name: "tools", Version: "1", Programs: map[string][]byte{"usr/bin/busybox": lab.Read(t, "/bin/busybox")}})
	n := p.node("livekept", "base", "app", "tools")
	n.machine.Initramfs = agentInitramfs(t, p, "integrity: enforced\n", "schema_version: 1\nupper: persist\n")
	n.machine.Append = "powernode.tries=1"
	s := n.boot()
	s.good()
	shell := func(script string) { s.Run("/usr/bin/busybox", "sh", "-ec", script).OK(t) }
	const bb = "/usr/bin/busybox "
	local := func(generation uint64, version string) {
		t.Helper()
		s.runs(generation, version)
		s.holds("/usr/share/app/changed", "mine\n")
		s.holds("/usr/share/app/mode", liveText("what gets another mode", "1"))
		s.holds("/usr/share/app/renamed/inner", liveText("what gets another place", "1"))
		s.holds("/opt/load/page", liveText("the page", "2")) // changed over version 2
	}
	shell("echo mine >/usr/share/app/changed; " + bb + "chmod 0640 /usr/share/app/mode; " + bb + "mv /usr/share/app/dir /usr/share/app/renamed")
	p.Publish(liveApp("2"))
	s.goesLive(2, "update")
	shell(bb + "chmod 0640 /opt/load/page; " + bb + "sync")
	local(2, "2")

	s.Kill()
	s = n.boot()
	local(2, "2")
	s.good()
	p.Publish(lab.Base("2", dies))
	p.Publish(liveApp("3"))
	s.goesLive(3, "update")
	local(3, "3")
	s.Reboot()
	s.WaitLine(`mount: generation 3, .*attempt 1 of 1`)
	s.WaitInit()
	local(2, "2")
	if f := s.journal(); f.Root.Upper != "persist" || len(f.Remarks) > 1 {
		t.Errorf("the writable layer is of kind %s, remarks %q", f.Root.Upper, f.Remarks)
	}
	s.PowerOff()
	qemu.Check(t, n.disk)
}
