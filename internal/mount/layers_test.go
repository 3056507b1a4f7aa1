package mount

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// TestLayersAreIndependent is what a kept upper relies on: nothing that a person can do to the
// overlay leaves a pointer into a lower layer behind.
func TestLayersAreIndependent(t *testing.T) {
	mounttest.NeedMounts(t)
	lower, other, disk := tmpfs(t), tmpfs(t), t.TempDir()
	for _, dir := range []string{lower, other} {
		must(t, os.MkdirAll(filepath.Join(dir, "dir/below"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "mode"), []byte("of "+dir), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "gone"), []byte("x"), 0o644))
	}
	layers := func(work string, lowers ...string) string {
		must(t, errors.Join(os.MkdirAll(filepath.Join(disk, "upper"), 0o755), os.Mkdir(filepath.Join(disk, work), 0o700)))
		spec := LayersSpec{Source: "test", Upper: open(t, filepath.Join(disk, "upper")), Work: open(t, filepath.Join(disk, work))}
		for _, l := range lowers {
			spec.Lowers = append(spec.Lowers, open(t, l))
		}
		m, err := Layers(spec)
		must(t, err)
		return attached(t, m)
	}
	at := layers("work1", lower)
	must(t, errors.Join(os.Chmod(filepath.Join(at, "mode"), 0o600), os.Remove(filepath.Join(at, "gone"))))
	if err := os.Rename(filepath.Join(at, "dir"), filepath.Join(at, "renamed")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("renaming a directory of the lower layer: %v, want EXDEV", err)
	}
	again := layers("work2", other) // the first is still mounted, as before a soft reboot
	if got := read(t, again, "mode"); got != "of "+lower {
		t.Errorf("a file whose mode was changed over another lower layer reads %q", got)
	}
	if _, err := os.Lstat(filepath.Join(again, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was removed is back: %v", err)
	}
	two := layers("work3", lower, other)
	must(t, os.Remove(filepath.Join(two, "mode")))
	if _, err := Layers(LayersSpec{}); err == nil {
		t.Error("an overlay of nothing was mounted")
	}
}
