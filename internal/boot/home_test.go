package boot

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// TestHome: the mount of the boot is known again, and no other one of the same files, until a soft-reboot has put that in its place.
func TestHome(t *testing.T) {
	mounttest.NeedMounts(t)
	root := t.TempDir()
	bind := func() {
		if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	is := func(f Facts, want bool, when string) {
		t.Helper()
		if home, err := f.Home(root); home != want || err != nil {
			t.Errorf("%s: %t, %v", when, home, err)
		}
	}
	is(Facts{}, false, "nothing is mounted")
	bind()
	at, err := mount.At(root)
	if err != nil {
		t.Fatal(err)
	}
	f := Facts{Mount: at.ID, Generation: 7}
	is(f, true, "the mount of the boot")
	is(Facts{}, false, "facts that name no mount")
	bind()
	is(f, false, "another mount of the same files")
	if err := os.MkdirAll(filepath.Join(root, RunDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.write(filepath.Join(root, RunDir)); err != nil {
		t.Fatal(err)
	}
	if err := switched(root); err != nil {
		t.Fatal(err)
	}
	now, err := ReadFacts(root)
	if err != nil || now.Generation != 7 {
		t.Fatalf("%+v, %v", now, err)
	}
	is(now, true, "after a soft-reboot")
}
