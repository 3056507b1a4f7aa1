package reconcile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// mountUnion mounts a generation at the level "checked", read-only, and returns where.
func (w *world) mountUnion(g store.Generation) string {
	w.t.Helper()
	image, err := w.store.OpenRootImage(g.RootDigest)
	if err != nil {
		w.t.Fatal(err)
	}
	defer image.Close()
	union, err := mount.Union(mount.UnionSpec{Image: image, Digest: g.RootDigest, Objects: w.store.ObjectsDir(), Level: mount.Checked})
	if err != nil {
		w.t.Fatal(err)
	}
	defer union.Close()
	at := w.t.TempDir()
	if err := union.Attach(at); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	return at
}

// TestHealBeneathAUnion says what a running union sees of an object that was replaced: a file that
// nobody looked at is good at once, one that was looked at once the kernel has dropped its caches, and
// one that is open or mapped once it was closed, and the caches dropped then.
func TestHealBeneathAUnion(t *testing.T) {
	mounttest.NeedMounts(t)
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/open": long("open"), "usr/known": long("known"), "usr/new": long("new")})
	g := w.boot()
	bad := map[string]string{}
	for _, name := range []string{"open", "known", "new"} {
		// In place, as a disk does it, so that the inode stays.
		text := []byte(long(name))
		text[0] ^= 1
		bad[name] = string(text)
		f, err := os.OpenFile(w.object(long(name)), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(text[:1], 0)
			err = errors.Join(err, f.Close())
		}
		if errors.Is(err, fs.ErrPermission) {
			t.Skip("fs-verity lets nobody change an object; the boots in machines flip bits beneath it")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root := w.mountUnion(g)
	content := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(root, "usr", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	held, err := os.Open(filepath.Join(root, "usr/open"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if content("known") != bad["known"] {
		t.Fatal("the union isn't damaged")
	}
	if mended, err := w.reconciler().Heal(t.Context(), g); err != nil || len(mended) != 1 || mended[0].Objects != 3 {
		t.Fatalf("mended %+v, %v", mended, err)
	}
	if content("new") != long("new") {
		t.Error("what nobody looked at is still damaged")
	}
	t.Logf("before the caches are dropped, what was looked at is good: %t", content("known") == long("known"))
	if err := DropCaches(); err != nil {
		t.Skipf("the kernel's caches can't be dropped here: %v", err)
	}
	if content("known") != long("known") {
		t.Error("what was looked at is still damaged")
	}
	t.Logf("while it is open elsewhere, what is opened anew is good: %t", content("open") == long("open"))
	var first [1]byte
	if _, err := held.ReadAt(first[:], 0); err != nil || first[0] != bad["open"][0] {
		t.Errorf("what is open changed: %q, %v", first, err)
	}
	held.Close()
	if err := DropCaches(); err != nil {
		t.Fatal(err)
	}
	if content("open") != long("open") {
		t.Error("what was open is still damaged")
	}
}
