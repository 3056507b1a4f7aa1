package persist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// attachDisk gives an image file a loop device for as long as the returned file is open or mounted.
func attachDisk(image string, readOnly bool) (*os.File, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(image, mode, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mount.LoopDevice(f, readOnly)
}

// testDisk is a sparse image with a loop device.
func testDisk(t *testing.T, size int64) (image, node string) {
	t.Helper()
	mounttest.NeedMounts(t)
	image = newImage(t, t.TempDir(), size)
	return image, attach(t, image, false)
}

func newImage(t testing.TB, dir string, size int64) string {
	t.Helper()
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return image
}

func attach(t testing.TB, image string, readOnly bool) string {
	t.Helper()
	loop, err := attachDisk(image, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loop.Close() })
	return loop.Name()
}

func named(t testing.TB, node string) device.Spec {
	t.Helper()
	s, err := device.ParseSpec(node)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mountAt mounts, and unmounts at the test's end or by the returned function.
func mountAt(t testing.TB, o Options) (p Persist, unmount func()) {
	t.Helper()
	o.At = filepath.Join(t.TempDir(), "persist")
	p, err := Mount(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		if err := unix.Unmount(o.At, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	t.Cleanup(unmount)
	return p, unmount
}

func remarks(p Persist) string { return fmt.Sprint(p.Remarks) }

func fsck(t testing.TB, node string) {
	t.Helper()
	if out, err := exec.Command("e2fsck", "-fn", node).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// field returns a line of dumpe2fs.
func field(t testing.TB, node, name string) string {
	t.Helper()
	out, err := exec.Command("dumpe2fs", "-h", node).Output()
	if err != nil {
		t.Fatalf("dumpe2fs: %v", err)
	}
	m := regexp.MustCompile(`(?m)^` + name + `:\s*(.*)$`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("dumpe2fs has no %q:\n%s", name, out)
	}
	return string(m[1])
}

// mayGrow reports whether this process has CAP_SYS_RESOURCE, without which the kernel lets no ext4
// grow; containers lack it.
func mayGrow(t testing.TB) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func TestPrepareAndMount(t *testing.T) {
	const size = 3 << 30
	_, node := testDisk(t, size)
	var said []string
	o := Options{Spec: named(t, node), Prepare: Empty, Console: func(line string) { said = append(said, line) }}
	p, unmount := mountAt(t, o)
	if !p.Prepared || p.Kind != Disk || p.FSType != "ext4" || p.ReadOnly || !p.Verity || p.Device != node || p.UUID == "" {
		t.Fatalf("%+v", p)
	}
	if len(said) == 0 || !strings.Contains(said[0], "preparing "+node) {
		t.Errorf("the console says %q", said)
	}
	if mayGrow(t) {
		if p.Size != size || len(p.Remarks) > 0 {
			t.Errorf("%+v", p)
		}
	} else if p.Size != MinSize || !strings.Contains(remarks(p), "couldn't grow from 256 MiB") {
		t.Errorf("%+v", p)
	}
	e, err := mount.At(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"rw", "nosuid", "nodev", "noatime"} {
		if !slices.Contains(e.Options, want) {
			t.Errorf("%s isn't among %v", want, e.Options)
		}
	}
	if err := os.WriteFile(filepath.Join(p.Path, "kept"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := Mount(t.Context(), Options{At: p.Path}); err != nil || again.Kind != Disk || again.Device != node || again.Prepared ||
		again.UUID != p.UUID || again.Size != p.Size || !again.Verity {
		t.Errorf("mounted already: %+v, %v", again, err)
	}
	if other, _ := mountAt(t, o); other.Kind != Disk || other.Prepared {
		t.Errorf("mounted elsewhere: %+v", other)
	} else if err := unix.Unmount(other.Path, 0); err != nil {
		t.Fatal(err)
	} else if err := unix.Mount("none", other.Path, "tmpfs", 0, ""); err != nil { // for the cleanup
		t.Fatal(err)
	}
	unmount()
	fsck(t, node)
	if got := field(t, node, "Filesystem features"); !strings.Contains(got, "verity") || !strings.Contains(got, "metadata_csum_seed") {
		t.Error(got)
	}
	if got := field(t, node, "Filesystem volume name"); got != Label {
		t.Error(got)
	}
	if got := field(t, node, "Filesystem UUID"); got != p.UUID {
		t.Errorf("%s, not %s", got, p.UUID)
	}
	if got := field(t, node, "Errors behavior"); got != "Remount read-only" {
		t.Error(got)
	}
	// The next boot finds it as it was left, and by its UUID.
	p, _ = mountAt(t, Options{Spec: named(t, "UUID="+p.UUID)})
	if data, err := os.ReadFile(filepath.Join(p.Path, "kept")); err != nil || string(data) != "data" || p.Prepared || p.Kind != Disk {
		t.Errorf("%q, %v, %+v", data, err, p)
	}
}

func TestGrowAtAnotherBoot(t *testing.T) {
	mounttest.NeedMounts(t)
	if !mayGrow(t) {
		t.Skip("growing a mounted ext4 needs CAP_SYS_RESOURCE, which this container lacks; the virtual machine's tests have it")
	}
	const size = 100 << 30
	image, node := testDisk(t, 1<<30)
	_, unmount := mountAt(t, Options{Spec: named(t, node), Prepare: Empty})
	unmount()
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	node = attach(t, image, false)
	p, unmount := mountAt(t, Options{Spec: named(t, node), Prepare: Empty})
	if p.Prepared || p.Size != size || len(p.Remarks) > 0 {
		t.Errorf("%+v", p)
	}
	unmount()
	fsck(t, node)
}

// TestGrowOfSmallBlocks: the kernel counts in blocks of the file system, which a person may have made.
func TestGrowOfSmallBlocks(t *testing.T) {
	mounttest.NeedMounts(t)
	if !mayGrow(t) {
		t.Skip("growing a mounted ext4 needs CAP_SYS_RESOURCE, which this container lacks; the virtual machine's tests have it")
	}
	const size = 512 << 20
	_, node := testDisk(t, size)
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "1024", "-E", "nodiscard", "-L", Label, node, "262144").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p, unmount := mountAt(t, Options{Spec: named(t, node), Prepare: Empty})
	if p.Prepared || size-p.Size > growSlack || strings.Contains(remarks(p), "grow") {
		t.Errorf("%+v", p)
	}
	unmount()
	fsck(t, node)
}

func TestNothingIsWrittenWithoutLeave(t *testing.T) {
	for name, c := range map[string]struct {
		size    int64
		fill    func(f *os.File) error
		prepare Prepare
		remark  string
	}{
		"not allowed": {1 << 30, nil, No, "is empty"},
		"too small":   {64 << 20, nil, Empty, "too small"},
		"a byte":      {1 << 30, func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 1<<20-1); return err }, Empty, "something on it"},
		"LVM or so":   {1 << 30, func(f *os.File) error { _, err := f.WriteAt([]byte("LABELONE"), 512); return err }, Empty, "something on it"},
		"a backup":    {1 << 30, func(f *os.File) error { _, err := f.WriteAt([]byte("EFI PART"), 1<<30-512); return err }, Empty, "something on it"},
	} {
		t.Run(name, func(t *testing.T) {
			image, node := testDisk(t, c.size)
			if c.fill != nil {
				f, err := os.OpenFile(image, os.O_WRONLY, 0)
				if err == nil {
					err = errors.Join(c.fill(f), f.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
				node = attach(t, image, false)
			}
			before := written(t, image, node)
			p, _ := mountAt(t, Options{Spec: named(t, node), Prepare: c.prepare})
			if p.Kind != Memory || p.Prepared || !strings.Contains(remarks(p), c.remark) || !strings.Contains(remarks(p), "works from memory") {
				t.Errorf("%+v", p)
			}
			if err := os.WriteFile(filepath.Join(p.Path, "x"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if after := written(t, image, node); after != before {
				t.Errorf("the device was written to: %s, %s", before, after)
			}
		})
	}
}

// flush has what was written to a device reach its image. A sync of the whole machine would spoil the power cuts of other packages' tests.
func flush(t *testing.T, node string) {
	t.Helper()
	f, err := os.Open(node)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// written says when an image was written to last, and how much of it has blocks.
func written(t *testing.T, image, node string) string {
	t.Helper()
	flush(t, node)
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := errors.Join(f.Sync(), unix.Fstat(int(f.Fd()), &st)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Mtim, st.Blocks)
}

func TestNoDevice(t *testing.T) {
	mounttest.NeedMounts(t)
	o := Options{Spec: named(t, "LABEL=nobody has this"), Wait: 1, Devices: device.Options{Sysfs: t.TempDir()}}
	p, _ := mountAt(t, o)
	if p.Kind != Memory || p.Device != "" || p.ReadOnly || !strings.Contains(remarks(p), "LABEL=nobody has this") || !strings.Contains(remarks(p), "works from memory") {
		t.Errorf("%+v", p)
	}
	if p, _ = mountAt(t, Options{Memory: true}); p.Kind != Memory || len(p.Remarks) != 1 {
		t.Errorf("%+v", p)
	}
	if again, err := Mount(t.Context(), Options{At: p.Path}); err != nil || again.Kind != Memory {
		t.Errorf("mounted already: %+v, %v", again, err)
	}
}

func TestReadOnlyDisks(t *testing.T) {
	image, node := testDisk(t, 1<<30)
	_, unmount := mountAt(t, Options{Spec: named(t, node), Prepare: Empty})
	unmount()
	dirty := filepath.Join(t.TempDir(), "dirty")
	// The image of a mounted file system has a journal to replay.
	p, unmount := mountAt(t, Options{Spec: named(t, node)})
	root, err := os.Open(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(root.Fd())), root.Close()); err != nil {
		t.Fatal(err)
	}
	flush(t, node)
	copyFile(t, image, dirty)
	unmount()
	damaged := filepath.Join(t.TempDir(), "damaged")
	copyFile(t, image, damaged)
	if out, err := exec.Command("debugfs", "-w", "-R", "ssv state 3", damaged).CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v: %s", err, out)
	}
	for name, c := range map[string]struct {
		image    string
		protect  bool
		readOnly bool
		remark   string
	}{
		"clean, write-protected": {image, true, true, "the disk is write-protected"},
		"dirty, write-protected": {dirty, true, true, "its journal isn't replayed"},
		"dirty":                  {dirty, false, false, ""},
		"damaged":                {damaged, false, false, "noted errors in itself"},
	} {
		t.Run(name, func(t *testing.T) {
			// A mount that replays the journal leaves a clean image: each case has its own.
			own := filepath.Join(t.TempDir(), "image")
			copyFile(t, c.image, own)
			p, _ := mountAt(t, Options{Spec: named(t, attach(t, own, c.protect))})
			if p.Kind != Disk || p.ReadOnly != c.readOnly || !strings.Contains(remarks(p), c.remark) {
				t.Errorf("%+v", p)
			}
			if ro, err := isReadOnly(p.Path); err != nil || ro != c.readOnly {
				t.Errorf("%v, %v", ro, err)
			}
		})
	}
	// What the kernel does when it finds an error.
	p, _ = mountAt(t, Options{Spec: named(t, node)})
	if err := unix.Mount("", p.Path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if again, err := Mount(t.Context(), Options{At: p.Path}); err != nil || !again.ReadOnly || len(again.Remarks) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestUnknownFileSystem(t *testing.T) {
	image, _ := testDisk(t, 1<<30)
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// An ext4 superblock and nothing behind it.
	_, err = f.WriteAt(newSeed(t).extents[0].data[superOffset:][:superSize], superOffset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	// It may be the node's own, damaged.
	p, err := Mount(t.Context(), Options{Spec: named(t, attach(t, image, false)), Prepare: Empty, At: filepath.Join(t.TempDir(), "persist")})
	if fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "isn't used: mount it") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestNoMemoryInstead: a disk that was named has to be there and of use.
func TestNoMemoryInstead(t *testing.T) {
	_, node := testDisk(t, 1<<30)
	for name, o := range map[string]Options{
		"it didn't come": {Spec: named(t, "LABEL=nobody has this"), Wait: 1, Devices: device.Options{Sysfs: t.TempDir()}},
		"it is empty":    {Spec: named(t, node)},
	} {
		o.Must, o.At = true, filepath.Join(t.TempDir(), "persist")
		p, err := Mount(t.Context(), o)
		if fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// scenario mounts the image in a directory, made empty by Setup, at a place beside it.
func scenario() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) { newImage(t, dir, 1<<30) },
		Run: func(dir string, hook durable.Hook) error {
			loop, err := attachDisk(filepath.Join(dir, "image"), false)
			if err != nil {
				return err
			}
			defer loop.Close()
			return prepareDevice(context.Background(), loop.Name(), 1<<30, hook)
		},
		Check: func(t testing.TB, dir, op string, err error) {
			node := attach(t, filepath.Join(dir, "image"), false)
			p, unmount := mountAt(t, Options{Spec: named(t, node), Prepare: Empty})
			defer unmount()
			if p.Kind != Disk || p.ReadOnly || p.UUID == "" {
				t.Errorf("fault at %q: %+v", op, p)
			}
			// Once the superblock is written, what is there counts.
			kept := op == "persist:superblock-sync" || op == "persist:unmark" || op == "persist:unmark-sync" || op == ""
			if p.Prepared == kept {
				t.Errorf("fault at %q: prepared again: %v", op, p.Prepared)
			}
			unmount()
			fsck(t, node)
		},
	}
}

func TestKilledWhilePreparing(t *testing.T) {
	mounttest.NeedMounts(t)
	if _, err := exec.LookPath("e2fsck"); err != nil {
		oracle.Missing(t, "e2fsck is missing; install e2fsprogs")
	}
	scenario().KillEach(t)
}

func TestFailuresWhilePreparing(t *testing.T) {
	mounttest.NeedMounts(t)
	scenario().FailEach(t, unix.EIO)
}
