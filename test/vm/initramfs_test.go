package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// builders are the programs that make a distribution's initramfs, with what this repository gives
// them: files by where they go, and how they are called.
var builders = []struct {
	name  string
	files map[string]string
	build func(release string) []string
	// append is what the kernel command line needs.
	append string
}{
	{
		name: "dracut",
		files: map[string]string{
			"dracut/90powernode/module-setup.sh":        "usr/lib/dracut/modules.d/90powernode/module-setup.sh",
			"dracut/90powernode/parse-powernode.sh":     "usr/lib/dracut/modules.d/90powernode/parse-powernode.sh",
			"dracut/90powernode/powernode-boot.service": "usr/lib/dracut/modules.d/90powernode/powernode-boot.service",
		},
		build: func(release string) []string {
			return []string{"dracut", "--force", "--no-hostonly", "--add", "powernode", "--omit", "btrfs crypt lvm mdraid multipath nvdimm", "--compress", "zstd -3 -q", "--kver", release, "/initramfs"}
		},
	},
	{
		name: "initramfs-tools",
		files: map[string]string{
			"initramfs-tools/hooks/powernode":   "etc/initramfs-tools/hooks/powernode",
			"initramfs-tools/scripts/powernode": "etc/initramfs-tools/scripts/powernode",
		},
		build:  func(release string) []string { return []string{"mkinitramfs", "-o", "/initramfs", release} },
		append: "boot=powernode",
	},
}

// TestInitramfs boots a node by the initramfs that each of a distribution's programs builds. What is assigned
// first has no init: the machine waits in the recovery environment there too, and needs nobody to get out of it.
func TestInitramfs(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	for _, b := range builders {
		t.Run(b.name, func(t *testing.T) {
			c := *p.Platform
			c.T = t
			p := &platform{&c}
			n := p.node(b.name, "app")
			n.machine.Append = b.append
			n.machine.Initramfs = distributionInitramfs(t, p, b.files, b.build)
			info, err := os.Stat(n.machine.Initramfs)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("initramfs of %s: %d bytes", b.name, info.Size())
			s := n.start()
			s.WaitLine(`This machine can't boot: .*/sbin/init`)
			s.WaitLine(`Type help for what can be done here`)
			p.assign(b.name, "base", "app")
			s.WaitLine(`the platform assigns something else now`)
			s.WaitInit()
			s.good()
			enforced(t, s)
			if f := s.journal(); f.InstanceID != n.token.NodeID {
				t.Errorf("booted as %s, not %s", f.InstanceID, n.token.NodeID)
			}
			s.PowerOff()
		})
	}
}

// distributionInitramfs builds an initramfs in a copy of the guests' Debian, as an administrator of
// such a system does, and returns its path.
func distributionInitramfs(t *testing.T, p *platform, files map[string]string, build func(release string) []string) string {
	t.Helper()
	root := filepath.Join(lab.TempDir(t), "root")
	qemu.Host(t, "cp", "-a", qemu.Debian(t), root)
	release := filepath.Base(qemu.KernelDir(t))
	place := func(from, to string) {
		to = filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		qemu.Host(t, "cp", "-a", from, to)
	}
	ours := filepath.Join(oracle.Root(t), "initramfs")
	for from, to := range files {
		place(filepath.Join(ours, from), to)
	}
	place(filepath.Join(ours, "modules"), "usr/share/powernode/initramfs-modules")
	place(lab.Program("powernode-agent"), "usr/bin/powernode-agent")
	place("/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt")
	place(qemu.KernelDir(t), "usr/lib/modules/"+release)
	place(filepath.Join(qemu.KernelDir(t), "../../../boot/config-"+release), "boot/config-"+release)
	trust := filepath.Join(root, "etc/powernode")
	if err := os.Mkdir(trust, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Trust(t, trust, `"`+hostAddress+`:*/modules/*"`, "integrity: enforced\n")
	for _, m := range []struct {
		source, fsType, at string
		flags              uintptr
	}{
		{"proc", "proc", "proc", 0},
		{"sysfs", "sysfs", "sys", unix.MS_RDONLY},
		// Devices can be used, but not removed with the directory.
		{"/dev", "", "dev", unix.MS_BIND},
		{"", "", "dev", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	} {
		at := filepath.Join(root, m.at)
		if err := unix.Mount(m.source, at, m.fsType, m.flags, ""); err != nil {
			t.Fatalf("mount %s: %v", at, err)
		}
		if m.flags&unix.MS_REMOUNT != 0 {
			continue
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", at, err)
			}
		})
	}
	out := qemu.Host(t, "chroot", append([]string{root}, build(release)...)...)
	if strings.TrimSpace(out) != "" {
		t.Log(out)
	}
	return filepath.Join(root, "initramfs")
}
