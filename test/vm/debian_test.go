package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// controlUnit has the tests' init listen in a system whose first process is systemd.
const controlUnit = `[Unit]
Description=What the test asks for
[Service]
ExecStart=/tests/init
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
`

// debianMachine is a machine with the guests' Debian on its first disk, systemd as the first
// process, and the test binaries of these packages in /tests.
func debianMachine(t *testing.T, packages ...string) qemu.Machine {
	t.Helper()
	tree := filepath.Join(lab.TempDir(t), "root")
	qemu.Host(t, "cp", "-a", qemu.Debian(t), tree)
	for _, dir := range []string{"tests", "etc/systemd/system/multi-user.target.wants"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	qemu.Host(t, "cp", lab.Program("init"), filepath.Join(tree, "tests/init"))
	lab.Write(t, filepath.Join(tree, "etc/systemd/system/test-control.service"), []byte(controlUnit), 0o644)
	lab.Write(t, filepath.Join(tree, "etc/fstab"), nil, 0o644)
	for at, to := range map[string]string{
		"multi-user.target.wants/test-control.service": "../test-control.service",
		// The tests may have been compiled below /tmp.
		"tmp.mount": "/dev/null",
	} {
		if err := os.Symlink(to, filepath.Join(tree, "etc/systemd/system", at)); err != nil {
			t.Fatal(err)
		}
	}
	// What needs a module asks udev and modprobe for it, as on any such machine.
	qemu.Host(t, "cp", "-a", qemu.KernelDir(t), filepath.Join(tree, "usr/lib/modules"))
	for _, pkg := range packages {
		if !testBinary(t, tree, pkg) {
			t.Fatalf("%s has no tests", pkg)
		}
	}
	m := plainMachine(t, qemu.NewDisk(t, 1024, "root", tree), qemu.EmptyDisk(t, 256))
	m.Append = "test.init=/sbin/init systemd.show_status=0 systemd.getty_auto=no"
	return m
}

// insideTime is how long a package's tests may take in a guest: emulated, beside another machine, those of internal/live have taken 3.5 minutes.
const insideTime = 15 * time.Minute

// inside runs a package's tests in a guest, all of which have to run. env are further words of its
// environment.
func inside(t *testing.T, g *qemu.Guest, pkg, run string, skips map[string]string, env ...string) {
	t.Helper()
	script := "cd " + filepath.Join(oracle.Root(t), pkg) + " && exec /tests/" + strings.ReplaceAll(pkg, "/", "_") + ".test -test.v -test.timeout " + insideTime.String() + " -test.run '" + run + "'"
	args := append([]string{"/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=/var/tmp", "POWERNODE_REQUIRE_TOOLS=1"}, env...)
	// The tests end themselves when their time is over, and say where they were.
	r := g.On(t).Patient(insideTime + qemu.Patience).Run(append(args, "/bin/sh", "-c", script)...)
	if r.Code != 0 {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, found := range skipped.FindAllStringSubmatch(r.Stdout, -1) {
		if skips[found[1]] == "" {
			t.Errorf("%s was skipped:\n%s", found[1], r.Stdout)
		}
	}
	passed := strings.Count(r.Stdout, "--- PASS: ")
	if passed == 0 {
		t.Errorf("no test of %s ran with -test.run %q:\n%s", pkg, run, r.Stdout)
	}
	t.Logf("%d tests passed", passed)
}

// TestDebian runs what needs a whole system around it: D-Bus with a real systemd; and shows that
// LUKS, partitions and a TPM are there for the tests of what uses them.
func TestDebian(t *testing.T) {
	whole(t)
	t.Parallel()
	need(t)
	m := debianMachine(t, "internal/health/systemd", "internal/health/units", "internal/aftercare")
	m.TPM = lab.TempDir(t)
	g := m.Start(t)
	g.WaitInit()
	t.Run("aftercare", func(t *testing.T) {
		inside(t, g, "internal/aftercare", "^TestRealSystemd$", nil, "POWERNODE_TEST_SYSTEMD=1")
	})
	t.Run("systemd", func(t *testing.T) {
		inside(t, g, "internal/health/systemd", "", nil, "POWERNODE_TEST_SYSTEMD=1")
	})
	t.Run("units", func(t *testing.T) { inside(t, g, "internal/health/units", "", nil) })
	t.Run("partitions", func(t *testing.T) {
		g := g.On(t)
		g.Shell("printf 'label: gpt\nsize=64MiB, name=secret\nname=powernode\n' | sfdisk -q /dev/vdb && udevadm settle").OK(t)
		if got := g.Read("/sys/block/vdb/vdb2/uevent"); !strings.Contains(got, "PARTNAME=powernode") {
			t.Errorf("the second partition is %q", got)
		}
	})
	t.Run("LUKS", func(t *testing.T) {
		g := g.On(t)
		g.Shell(`printf secret | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdb1 - &&
			printf secret | cryptsetup open --key-file - /dev/vdb1 secret && mkfs.ext4 -q /dev/mapper/secret && mount /dev/mapper/secret /mnt &&
			echo "nobody reads this" >/mnt/file && umount /mnt && cryptsetup close secret && sync`).OK(t)
		if g.Shell("grep -q 'nobody reads this' /dev/vdb1").Code == 0 {
			t.Error("what was written is on the disk as it is")
		}
		if g.Shell("printf wrong | cryptsetup open --key-file - /dev/vdb1 secret").Code == 0 {
			t.Error("another passphrase opens it")
		}
	})
	t.Run("TPM", func(t *testing.T) {
		// TPM2_GetRandom of eight bytes (TPM 2.0 Library, part 3, 16.1): header, size, and the answer.
		r := g.On(t).Shell(`exec 3<>/dev/tpm0; printf '\200\001\000\000\000\014\000\000\001\173\000\010' >&3; dd bs=4096 count=1 status=none <&3 | od -An -v -tx1`)
		if f := strings.Fields(r.OK(t)); len(f) != 20 || strings.Join(f[6:10], "") != "00000000" {
			t.Errorf("the TPM answers %q", r.Stdout)
		}
	})
	g.PowerOff()
}
