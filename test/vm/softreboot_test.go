package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// debianModule publishes the guests' Debian as a module: its first process is a systemd that knows soft-reboots.
func debianModule(t *testing.T, p *platform) {
	t.Helper()
	dir := lab.TempDir(t)
	tree, manifest, layout := filepath.Join(dir, "root"), filepath.Join(dir, "manifest.yaml"), filepath.Join(dir, "layout")
	qemu.Host(t, "cp", "-a", "-x", qemu.Debian(t), tree)
	// What nobody needs there, and a machine that is emulated takes long to fetch.
	for _, spare := range []string{
		"usr/share/*", "usr/bin/*perl*", "usr/bin/sqv", "usr/bin/*zstd*", "usr/bin/erofs*", "usr/lib/dracut", "usr/lib/initramfs-tools", "usr/lib/klibc", "usr/lib/apt",
		"usr/lib/udev/hwdb*", "usr/lib/x86_64-linux-gnu/perl*", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/libapt-*", "usr/lib/x86_64-linux-gnu/libdb-*",
		"usr/lib/x86_64-linux-gnu/libsqlite3*", "usr/lib/x86_64-linux-gnu/libmvec*", "usr/lib/x86_64-linux-gnu/libstdc++*", "var/lib/dpkg", "var/lib/apt", "var/cache/*",
		"usr/lib/systemd/system/timers.target.wants", "etc/systemd/system/timers.target.wants",
	} {
		found, err := filepath.Glob(filepath.Join(tree, spare))
		if err != nil || len(found) == 0 && strings.HasPrefix(spare, "usr/share") {
			t.Fatalf("%s: %v", spare, err)
		}
		for _, path := range found {
			if filepath.Base(path) == "dbus-1" {
				continue // the rules of the system's bus
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, at := range []string{"dev", "proc", "sys", "run", "tmp", "persist"} {
		path := filepath.Join(tree, at)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The tests' init is a service of it.
	wants := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants")
	for _, at := range []string{filepath.Join(tree, "tests"), wants} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	qemu.Host(t, "cp", lab.Program("init"), filepath.Join(tree, "tests/init"))
	lab.Write(t, filepath.Join(tree, "etc/systemd/system/test-control.service"), []byte(controlUnit), 0o644)
	lab.Write(t, filepath.Join(tree, "etc/fstab"), nil, 0o644)
	if err := os.Symlink("../test-control.service", filepath.Join(wants, "test-control.service")); err != nil {
		t.Fatal(err)
	}
	lab.Write(t, manifest, []byte("schema_version: 1\nname: debian\n"), 0o644)
	p.Operator("-q", "module", "build", "--manifest", manifest, "--version", "1.0.0", "--from-dir", tree, "--layout", layout).OK(t)
	p.PublishLayout(layout)
}

// failing is an app with a unit that fails.
func failing(version string) lab.Module {
	m := app(version)
	const units = "usr/lib/systemd/system/"
	m.Files[units+"fails.service"] = "[Unit]\nDescription=Fails\n[Service]\nExecStart=/bin/false\n"
	m.Files[units+"multi-user.target.wants/fails.service"] = "-> ../fails.service"
	return m
}

// settled waits until the system's own service has found a generation good.
func (s *system) settled(generation uint64) {
	s.n.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		doc := s.status()
		if doc.Generation == generation && doc.InStep {
			return
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("generation %d runs, and isn't found good: %q\n%s", doc.Generation, doc.Reasons, s.Shell("systemctl --failed; systemctl list-jobs; journalctl -b -n 40").Stdout)
		}
	}
}

// softReboot updates the node and goes on with what was staged, on the same kernel.
func (s *system) softReboot() {
	s.n.t.Helper()
	const kernel = "/proc/sys/kernel/random/boot_id"
	before := s.Read(kernel)
	// It ends together with the system around it.
	if a := s.Do(qemu.Request{Op: "start", Args: []string{"update", boot.AgentPath, "update", "--reboot", "soft"}}); a.Error != "" {
		s.n.t.Fatal(a.Error)
	}
	s.WaitInit()
	if after := s.Read(kernel); after != before {
		s.n.t.Errorf("another kernel runs: %s, not %s", after, before)
	}
}

// TestSoftReboot: a system with a real systemd goes on in a new generation without a restart of the machine, and
// out of a bad one by a restart that nobody orders.
func TestSoftReboot(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	debianModule(t, p)
	p.Publish(app("1"))
	n := p.node("soft", "debian", "app")
	n.machine.Append = "powernode.tries=1 systemd.show_status=0 systemd.getty_auto=no"
	s := n.start()
	s.WaitLine(`7/10 fetch: `)
	s.WaitLine(`starting /sbin/init`)
	s.WaitInit()
	s.settled(1)

	p.Publish(app("2"))
	s.softReboot()
	s.settled(2)
	doc := s.runs(2, "2")
	if words := s.Do(qemu.Request{Op: "list", Args: []string{"/run/powernode"}}).Stdout; !strings.Contains(words, "good-2") {
		t.Errorf("the guard wasn't told: %s", words)
	}

	p.Publish(failing("3"))
	s.softReboot()
	s.WaitInit() // of the kernel that comes next
	back := s.runs(2, "2")
	if back.RootDigest != doc.RootDigest || back.LastFailed.Generation != 3 || !strings.Contains(back.LastFailed.Reason, "fails.service") {
		t.Errorf("root %s, last failed %+v", back.RootDigest, back.LastFailed)
	}
	s.PowerOff()
	qemu.Check(t, n.disk)
}
