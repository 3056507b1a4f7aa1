package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/initramfs"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// rootOnly are the packages whose tests need more of a kernel than an ordinary machine may have:
// fs-verity, verity=require, loadable modules, partitions. In the guest every one of their tests
// has to run: a skipped test fails, unless it is listed with the reason.
var rootOnly = []struct {
	pkg string
	// run are the tests to run, where the others are slow under emulation and need nothing special.
	run string
	// skips are tests that have no business in the guest.
	skips map[string]string
}{
	{pkg: "internal/fsverity", run: "Support|Kernel|Filesystem"},
	{pkg: "internal/mount", skips: map[string]string{
		"TestUnion/disk/descriptors,_attached_(6.13)":  "Linux 6.12",
		"TestUnion/disk/descriptors,_detached_(6.15)":  "Linux 6.12",
		"TestUnion/tmpfs/descriptors,_attached_(6.13)": "Linux 6.12",
		"TestUnion/tmpfs/descriptors,_detached_(6.15)": "Linux 6.12",
	}},
	{pkg: "internal/store", run: "Verity|TornObject|AddFile|ReadOnly"},
	// The others compile an init of their own; the boots of this package switch a machine's root.
	{pkg: "internal/switchroot", run: "Check|Choose|Look|CopyTree|Persist|Free"},
	{pkg: "internal/assemble", run: "Prove|Keep|Mend|Fresh"},
	{pkg: "internal/rootfs", run: "Make|Upper|Next|Adopt|Etc|Kept|Full|ReadOnly|Filling"},
	{pkg: "internal/delta", run: "Settling$|Origins|RunningProgram|Writers|Attributes|Troubles|Drop$|Tidy|View|Digest|Again|Mend|Older|Hiding", skips: map[string]string{
		"TestMendLosesNoWrite":                                     "nobody can write such a file where digests are enforced",
		"TestMendMeetsOthers/renamed":                              "nor rename it",
		"TestMendMeetsOthers/renamed_itself":                       "nor that",
		"TestMendMeetsOthers/its_directory_goes":                   "nor that",
		"TestMendMeetsOthers/the_file_goes_from_where_it_came_out": "nor write it",
	}},
	// The faults and the stress of the others take too long under emulation; TestLiveChange and TestLiveKills have their share.
	{pkg: "internal/live", run: "Swap$|Submounts|Obstacles|Sandboxes|Attributes|Names|Mixture|GoesAlong|TakenBack|OldImage|SoftReboot|JustMade|LastMoment"},
	{pkg: "internal/change", run: "Moment|RecoverKeeps|OwnWayBack|RightAfter|GoesBack"},
	{pkg: "internal/aftercare", run: "Processes|Scan|AnotherRoot"},
	{pkg: "internal/kmod"},
	{pkg: "internal/device"},
	{pkg: "internal/persist", run: "Mount|Grow|Nothing|NoDevice|ReadOnly|Unknown"},
}

// skipped finds the tests that say in their output that they were skipped.
var skipped = regexp.MustCompile(`(?m)^ *--- SKIP: (\S+)`)

// TestRootOnly runs the tests of packages that work at the kernel's edges inside a machine.
func TestRootOnly(t *testing.T) {
	whole(t)
	t.Parallel()
	need(t)
	tree := filepath.Join(lab.TempDir(t), "root")
	plant(t, tree)
	for _, p := range rootOnly {
		if !testBinary(t, tree, p.pkg) {
			t.Fatalf("%s has no tests", p.pkg)
		}
	}
	disk := qemu.NewDisk(t, 2048, "root", tree)
	// A second disk for the tests that make file systems and partitions.
	g := plainMachine(t, disk, qemu.EmptyDisk(t, 256)).Start(t)
	g.WaitInit()
	for _, p := range rootOnly {
		t.Run(filepath.Base(p.pkg), func(t *testing.T) { inside(t, g, p.pkg, p.run, p.skips) })
	}
	g.PowerOff()
}

// plainMachine is a machine without an agent: its init is that of the tests, on the first disk.
func plainMachine(t testing.TB, disks ...string) qemu.Machine {
	t.Helper()
	m := qemu.Machine{Initramfs: filepath.Join(lab.TempDir(t), "initramfs")}
	for _, d := range disks {
		m.Disks = append(m.Disks, qemu.Disk{Path: d})
	}
	writeInitramfs(t, m.Initramfs, initramfs.Spec{Init: lab.Program("init"), KernelDir: qemu.KernelDir(t)})
	return m
}

func writeInitramfs(t testing.TB, path string, s initramfs.Spec) initramfs.Report {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	report, err := initramfs.Write(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// testBinary compiles a package's tests into the tree, with their test data at the place where they
// were compiled: tests find the repository by that. False says that it has none.
func testBinary(t *testing.T, tree, pkg string) bool {
	t.Helper()
	root := oracle.Root(t)
	if found, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go")); err != nil || len(found) == 0 {
		return false
	}
	cmd := exec.Command("go", "test", "-c", "-o", filepath.Join(tree, "tests", strings.ReplaceAll(pkg, "/", "_")+".test"), "./"+pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	at := filepath.Join(tree, root, pkg)
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, pkg, "testdata")); err == nil {
		qemu.Host(t, "cp", "-a", filepath.Join(root, pkg, "testdata"), at)
	}
	return true
}

// plant fills the tree with what the tests run in and compare with: the guests' Debian, and the
// tools of scripts/setup at the same place as here.
func plant(t *testing.T, tree string) {
	t.Helper()
	qemu.Host(t, "cp", "-a", qemu.Debian(t), tree)
	here := filepath.Join(oracle.Root(t), ".cache/tools")
	tools := filepath.Join(tree, here)
	if err := os.MkdirAll(filepath.Join(tools, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tree, "tests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"mkcomposefs", "composefs-info", "fsck.erofs", "dump.erofs", "mkfs.erofs"} {
		qemu.Host(t, "cp", "-a", oracle.Path(t, tool), filepath.Join(tools, "bin"))
	}
	for _, suite := range []string{"forky", "trixie"} {
		lib := filepath.Join(tools, suite, "usr/lib")
		if err := os.MkdirAll(lib, 0o755); err != nil {
			t.Fatal(err)
		}
		qemu.Host(t, "cp", "-a", filepath.Join(here, suite, "usr/lib/x86_64-linux-gnu"), lib)
		qemu.Host(t, "cp", "-a", filepath.Join(here, suite, "usr/bin"), filepath.Join(tools, suite, "usr"))
		for _, large := range []string{"cosign", "crane", "oras"} {
			if err := os.RemoveAll(filepath.Join(tools, suite, "usr/bin", large)); err != nil {
				t.Fatal(err)
			}
		}
	}
	qemu.Host(t, "cp", "/bin/busybox", filepath.Join(tree, "bin/busybox"))
}
