package kmod

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// machine is a modules directory, a /proc, a /sys and a kernel that takes modules.
type machine struct {
	Loader
	sysfs    string
	inserted []string         // "content flags"
	answer   map[string]error // by content
	devices  map[string][]string
}

func newMachine(t *testing.T, files map[string]string) *machine {
	t.Helper()
	m := &machine{sysfs: t.TempDir(), answer: map[string]error{}, devices: map[string][]string{}}
	m.Dir, m.Proc = t.TempDir(), t.TempDir()
	write(t, filepath.Join(m.Proc, "modules"), "already_there 16384 0 - Live 0x0\n")
	for name, content := range files {
		write(t, filepath.Join(m.Dir, name), content)
	}
	m.Insert = func(f *os.File, flags int) error {
		content, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		what := string(content)
		if flags == unix.MODULE_INIT_COMPRESSED_FILE {
			what += " compressed"
		}
		m.inserted = append(m.inserted, what)
		for _, d := range m.devices[what] {
			m.device(t, d)
		}
		return m.answer[what]
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// device gives the machine a device with a modalias.
func (m *machine) device(t *testing.T, modalias string) {
	t.Helper()
	write(t, filepath.Join(m.sysfs, "bus/any/devices", strings.ReplaceAll(modalias, "/", "_"), "modalias"), modalias+"\n")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree is a small distribution.
func tree() map[string]string {
	return map[string]string{
		"modules.dep": "kernel/net/net-failover.ko: kernel/failover.ko\n" +
			"kernel/failover.ko:\n" +
			"kernel/virtio_net.ko: kernel/net/net-failover.ko kernel/failover.ko\n" +
			"kernel/erofs.ko: kernel/libcrc32c.ko\n" +
			"kernel/libcrc32c.ko:\n" +
			"kernel/crc32c_intel.ko:\n" +
			"kernel/already-there.ko:\n" +
			"kernel/gone.ko:\n" +
			"kernel/needs_gone.ko: kernel/gone.ko\n",
		"modules.builtin":            "kernel/fs/ext4/ext4.ko\n",
		"modules.softdep":            "# comment\nsoftdep libcrc32c pre: crc32c\n",
		"modules.alias":              "alias fs-erofs erofs\nalias crc32c crc32c_intel\nalias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias pci:v*d*gone* gone\n",
		"kernel/net/net-failover.ko": "net_failover",
		"kernel/failover.ko":         "failover",
		"kernel/virtio_net.ko":       "virtio_net",
		"kernel/erofs.ko":            "erofs",
		"kernel/libcrc32c.ko":        "libcrc32c",
		"kernel/crc32c_intel.ko":     "crc32c_intel",
		"kernel/already-there.ko":    "already_there",
		"kernel/needs_gone.ko":       "needs_gone",
	}
}

func TestLoadInOrderOfDependencies(t *testing.T) {
	m := newMachine(t, tree())
	m.answer["crc32c_intel"] = unix.ENODEV
	m.answer["failover"] = unix.EEXIST
	done, err := m.Load(t.Context(), "virtio-net", "fs-erofs", "already-there", "ext4", "fs-ext4", "erofs")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"failover", "net_failover", "virtio_net", "crc32c_intel", "libcrc32c", "erofs"}, m.inserted); diff != "" {
		t.Errorf("inserted (-want +got):\n%s", diff)
	}
	want := Loaded{Modules: []string{"net_failover", "virtio_net", "libcrc32c", "erofs"}, NoHW: []string{"crc32c_intel"}}
	if diff := cmp.Diff(want, done); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLoadSaysWhatIsMissing(t *testing.T) {
	m := newMachine(t, tree())
	m.answer["virtio_net"] = unix.ENOEXEC
	done, err := m.Load(t.Context(), "nosuch", "needs_gone", "virtio_net", "erofs")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"load kernel module nosuch", "load kernel module needs_gone: it needs gone", "load kernel module virtio_net: the kernel refused it"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q isn't in %q", want, err)
		}
	}
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
	if got := done.Modules[len(done.Modules)-1]; got != "erofs" {
		t.Errorf("erofs wasn't loaded after the others failed: %v", done.Modules)
	}
}

func TestBlockedModulesStayOut(t *testing.T) {
	m := newMachine(t, tree())
	m.Blocked = []string{"crc32c-intel", "virtio_net"}
	if _, err := m.Load(t.Context(), "virtio_net", "erofs"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"libcrc32c", "erofs"}, m.inserted); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCompressedModules(t *testing.T) {
	packed := func(ext string) string {
		var b bytes.Buffer
		var w io.WriteCloser = gzip.NewWriter(&b)
		if ext == ".zst" {
			z, err := zstd.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			w = z
		}
		_, err := io.WriteString(w, "erofs")
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for ext, content := range map[string]string{".xz": "not looked at", ".gz": packed(".gz"), ".zst": packed(".zst")} {
		for _, able := range []bool{true, false} {
			m := newMachine(t, map[string]string{"modules.dep": "a/erofs.ko" + ext + ":\n", "a/erofs.ko" + ext: content})
			if !able {
				m.answer[content+" compressed"] = unix.EOPNOTSUPP
			}
			done, err := m.Load(t.Context(), "erofs")
			switch {
			case able || ext != ".xz":
				if err != nil || len(done.Modules) != 1 {
					t.Errorf("%s, able %v: %v, %v", ext, able, done, err)
				}
				if !able && m.inserted[len(m.inserted)-1] != "erofs" {
					t.Errorf("%s: inserted %q", ext, m.inserted)
				}
			case !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(fault.HintOf(err), "uncompressed"):
				t.Errorf("%s: %v, hint %q", ext, err, fault.HintOf(err))
			}
		}
	}
}

func TestNothingToLoad(t *testing.T) {
	m := newMachine(t, nil)
	m.Dir = filepath.Join(m.Dir, "nowhere")
	done, err := m.Load(t.Context(), "erofs")
	if err != nil || !strings.Contains(done.Nothing, "nowhere") {
		t.Errorf("no directory: %+v, %v", done, err)
	}
	m = newMachine(t, tree())
	m.Proc = t.TempDir()
	done, err = m.Coldplug(t.Context(), m.sysfs)
	if err != nil || !strings.Contains(done.Nothing, "no loadable modules") {
		t.Errorf("a kernel without modules: %+v, %v", done, err)
	}
}

func TestColdplug(t *testing.T) {
	m := newMachine(t, tree())
	m.device(t, "virtio:d00000001v00001AF4")
	m.device(t, "pci:v1d1gone")
	m.device(t, "acpi:nobody:knows")
	m.devices["virtio_net"] = []string{"fs-erofs"} // the driver finds a device behind the first
	done, err := m.Coldplug(t.Context(), m.sysfs)
	if err != nil {
		t.Fatal(err)
	}
	want := Loaded{Modules: []string{"failover", "net_failover", "virtio_net", "crc32c_intel", "libcrc32c", "erofs"}, Missing: []string{"gone"}}
	if diff := cmp.Diff(want, done); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if again, err := m.Coldplug(t.Context(), m.sysfs); err != nil || len(again.Modules)+len(again.Missing) > 0 {
		t.Errorf("a second time: %+v, %v", again, err)
	}
}

func TestFollow(t *testing.T) {
	m := newMachine(t, tree())
	modaliases := make(chan string, 3)
	modaliases <- "virtio:d00000001v00001AF4"
	modaliases <- "virtio:d00000001v00001AF4"
	modaliases <- "unknown:x"
	close(modaliases)
	var notes []Loaded
	m.Follow(t.Context(), modaliases, func(l Loaded, err error) {
		if err != nil {
			t.Error(err)
		}
		notes = append(notes, l)
	})
	if diff := cmp.Diff([]Loaded{{Modules: []string{"failover", "net_failover", "virtio_net"}}}, notes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestIndexStaysInside(t *testing.T) {
	m := newMachine(t, map[string]string{"modules.dep": "../../x.ko:\n"})
	if _, err := m.Load(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "leads out") {
		t.Error(err)
	}
	m = newMachine(t, map[string]string{"modules.dep": "x.ko:\n"})
	if err := os.Symlink("/etc/passwd", filepath.Join(m.Dir, "x.ko")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Load(t.Context(), "x"); err == nil {
		t.Error("a symlink out of the directory was followed")
	}
}

func TestDirOfRunningKernel(t *testing.T) {
	root := t.TempDir()
	dir, err := Dir(root)
	if err != nil || filepath.Dir(dir) != filepath.Join(root, "lib/modules") {
		t.Errorf("%s, %v", dir, err)
	}
	usr := filepath.Join(root, "usr/lib/modules", filepath.Base(dir))
	if err := os.MkdirAll(usr, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = Dir(root); err != nil || dir != usr {
		t.Errorf("%s, %v", dir, err)
	}
}
