package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// smallDisk mounts a tmpfs with no room for objects, or skips the test.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("can't mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)))
		}
	})
	return dir
}

// TestErrorInTheBackground: an object whose file can't be made after its Commit has returned
// makes Sync fail, and the module that needs it.
func TestErrorInTheBackground(t *testing.T) {
	s, err := Open(smallDisk(t, "size=64k"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.NewObject(0)
	if err != nil {
		t.Fatal(err)
	}
	data := content("too large", 100_000)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	d, fresh, err := w.Commit()
	if d != fsverity.SumBytes(data) || !fresh || err != nil {
		t.Fatalf("commit: %s, %v, %v", d, fresh, err)
	}
	if s.HasObject(d) {
		t.Error("it is there")
	}
	x := makeSample("nginx", 0)
	x.module.Objects = []fsverity.Digest{d}
	if err := s.PutModule(x.module, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("module: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, unix.ENOSPC) || fault.KindOf(err) != fault.Retry {
		t.Errorf("sync: %v", err)
	}
	if err := s.Sync(); err != nil {
		t.Errorf("the error comes twice: %v", err)
	}
	checkWhole(t, s)
}

// TestCloseWaits: Close doesn't pull the directory away under an object in the making.
func TestCloseWaits(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var digests []fsverity.Digest
	for i := range 50 {
		digests = append(digests, put(t, s, content(fmt.Sprint(i), 20_000)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, dir)
	if again.Recovered().Checked != 50 {
		t.Errorf("recovered %+v", again.Recovered())
	}
	for _, d := range digests {
		if err := again.VerifyObject(d); err != nil {
			t.Error(err)
		}
	}
}
