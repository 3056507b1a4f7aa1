package fsverity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		errno   unix.Errno
		support support
		want    error
	}{
		{unix.EOPNOTSUPP, absent, ErrNotBuiltIn},
		{unix.EOPNOTSUPP, present, ErrNotSupported},
		{unix.EOPNOTSUPP, unknown, ErrNotSupported},
		{unix.ENOTTY, absent, ErrNotSupported},
		{unix.ENOTTY, present, ErrNotSupported},
		{unix.EEXIST, present, ErrAlreadyEnabled},
		{unix.ENODATA, present, ErrNotEnabled},
		{unix.ETXTBSY, present, ErrBusy},
		{unix.EACCES, present, nil},
		{unix.EIO, present, nil},
	} {
		if got := classify(c.errno, func() support { return c.support }); !errors.Is(got, c.want) {
			t.Errorf("classify(%v, support %d) = %v, want %v", c.errno, c.support, got, c.want)
		}
	}
}

func TestSupport(t *testing.T) {
	files := func(names ...string) fs.FS {
		m := fstest.MapFS{}
		for _, n := range names {
			m[n] = &fstest.MapFile{}
		}
		return m
	}
	for _, c := range []struct {
		name string
		root fs.FS
		want support
	}{
		{"nothing mounted", files(), unknown},
		{"ext4 with verity", files("sys/fs/ext4/features/encryption", "sys/fs/ext4/features/verity"), present},
		{"ext4 without", files("sys/fs/ext4/features/encryption"), absent},
		{"f2fs with, ext4 a module without", files("sys/fs/ext4/features/casefold", "sys/fs/f2fs/features/verity"), present},
		{"builtin signatures", files("proc/sys/fs/verity/require_signatures"), present},
		{"btrfs alone", files("sys/fs/btrfs/features/raid56"), unknown},
	} {
		if got := supportIn(c.root); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestKernel goes through the life of a file on whatever the test directory lies on.
func TestKernel(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	data := pattern(1_000_000)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	_, err = Measure(f)
	if Unavailable(err) {
		if second := Enable(f); !Unavailable(second) {
			t.Errorf("Measure: %v, but Enable: %v", err, second)
		}
		t.Skipf("no fs-verity here: %v", err)
	}
	if !errors.Is(err, ErrNotEnabled) {
		t.Errorf("Measure before Enable: %v", err)
	}

	writer, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Enable(f); !errors.Is(err, ErrBusy) {
		t.Errorf("Enable with a writer: %v", err)
	}
	writer.Close()

	if err := Enable(f); err != nil {
		t.Fatal(err)
	}
	if err := Enable(f); !errors.Is(err, ErrAlreadyEnabled) {
		t.Errorf("second Enable: %v", err)
	}
	if got, err := Measure(f); err != nil || got != SumBytes(data) {
		t.Errorf("Measure: %s, %v, want %s", got, err, SumBytes(data))
	}
	if _, err := os.OpenFile(name, os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("open for writing: %v", err)
	}
}

// TestFilesystemWithout: a filesystem that never has fs-verity is told apart from the kernel.
func TestFilesystemWithout(t *testing.T) {
	fd, err := unix.MemfdCreate("verity", unix.MFD_CLOEXEC) // lies on the kernel's own tmpfs
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if _, err := Measure(f); !errors.Is(err, ErrNotSupported) {
		t.Errorf("Measure on tmpfs: %v", err)
	}
	if err := Enable(f); !errors.Is(err, ErrNotSupported) {
		t.Errorf("Enable on tmpfs: %v", err)
	}
	f.Close()
	if _, err := Measure(f); err == nil || Unavailable(err) {
		t.Errorf("Measure of a closed file: %v", err)
	}
}
