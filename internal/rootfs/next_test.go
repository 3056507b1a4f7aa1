package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// TestNextRoot makes the next root beside one that runs, and moves it over, as systemd does.
func TestNextRoot(t *testing.T) {
	n := newNode(t)
	one := n.image(map[string]string{"usr/version": "1", "etc/hostname": "image\n"})
	two := n.image(map[string]string{"usr/version": "2", "etc/hostname": "image\n"})
	now := n.boot(one, persistent)
	runDir := now.spec.Scratch
	at := filepath.Join(runDir, "nextroot")
	must(t, os.WriteFile(filepath.Join(runDir, "boot.json"), []byte(`{"now":1}`), 0o444))
	now.write("var/lib-state", "x")
	now.write("etc/changed", "before")
	id := now.read("etc/machine-id")

	spec := now.spec
	spec.RootDigest = two
	for range 2 { // the second takes the place of the first
		r, err := makeNext(t.Context(), places{runDir, at, now.at}, spec, func(r *Root) ([]byte, error) { return []byte(`{"next":2}`), nil })
		must(t, err)
		if f := r.Facts(); f.Upper != InMemory || !strings.HasPrefix(f.UpperDir, runDir+"/next-") {
			t.Errorf("facts: %+v", f)
		}
	}
	now.write("etc/later", "after")
	now.write("var/later", "after")
	next := &running{n: n, at: at}
	for path, want := range map[string]string{
		"usr/version": "2", "var/lib-state": "x", "var/later": "after", "etc/changed": "before", "etc/later": "after", "etc/machine-id": id,
	} {
		if got := next.read(path); got != want {
			t.Errorf("%s of the next root is %q, want %q", path, got, want)
		}
	}
	if now.read("usr/version") != "1" || now.read("etc/changed") != "before" {
		t.Error("the root that runs changed")
	}
	if adopted, err := adopt(runDir, "boot.json", now.at); err != nil || adopted {
		t.Errorf("adopted before the reboot: %t, %v", adopted, err)
	}

	// systemd moves the next root over the old one, which goes.
	now.Unmake()
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	must(t, unix.Mount(at, root, "", unix.MS_MOVE, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	adopted, err := adopt(runDir, "boot.json", root)
	if err != nil || !adopted {
		t.Fatalf("adopted: %t, %v", adopted, err)
	}
	facts, err := os.ReadFile(filepath.Join(runDir, "boot.json"))
	if err != nil || string(facts) != `{"next":2}` {
		t.Errorf("facts: %s, %v", facts, err)
	}
	if adopted, err := adopt(runDir, "boot.json", root); err != nil || adopted {
		t.Errorf("adopted twice: %t, %v", adopted, err)
	}
	must(t, os.WriteFile(filepath.Join(root, "usr/new"), nil, 0o644))

	// Its writable layer stays while another next root is made and dropped.
	n.boots++
	_, err = makeNext(t.Context(), places{runDir, at, root}, spec, func(r *Root) ([]byte, error) { return []byte(`{}`), nil })
	must(t, err)
	must(t, places{runDir, at, root}.drop())
	u, err := mount.UnionAt(root)
	must(t, err)
	if _, err := os.Stat(filepath.Join(u.Upper, "usr/new")); err != nil {
		t.Errorf("the writable layer of the root that runs: %v", err)
	}
	if entries, err := filepath.Glob(filepath.Join(runDir, "next-*")); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	detachAt(filepath.Dir(u.Upper))
}

func TestNextRootFails(t *testing.T) {
	n := newNode(t)
	image := n.image(nil)
	spec := n.spec(image, nil)
	runDir := spec.Scratch
	at := filepath.Join(runDir, "nextroot")
	gone := func() {
		t.Helper()
		if _, err := mount.At(at); !errors.Is(err, mount.ErrNotMounted) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("still mounted: %v", err)
		}
		if _, err := os.Stat(filepath.Join(runDir, nextName)); err == nil {
			t.Error("the record is there")
		}
	}
	cause := errors.New("no facts")
	if _, err := makeNext(t.Context(), places{runDir, at, "/"}, spec, func(*Root) ([]byte, error) { return nil, cause }); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	gone()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	bad := spec
	bad.Init = "/none"
	_, err := makeNext(ctx, places{runDir, at, "/"}, bad, nil)
	if _, unfit := errors.AsType[*Unfit](err); !unfit {
		t.Errorf("got %v", err)
	}
	gone()
	// Somebody else's mount isn't taken away.
	must(t, os.MkdirAll(at, 0o755))
	must(t, unix.Mount("none", at, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(at, 0)) }()
	if _, err := makeNext(t.Context(), places{runDir, at, "/"}, spec, nil); err == nil {
		t.Error("it was made over a mount of somebody else's")
	}
}

func TestAdoptNothing(t *testing.T) {
	mountNothing := t.TempDir()
	if adopted, err := Adopt(filepath.Join(mountNothing, "none"), "boot.json"); adopted || err != nil {
		t.Errorf("%t, %v", adopted, err)
	}
	if adopted, err := Adopt(mountNothing, "boot.json"); adopted || err != nil {
		t.Errorf("%t, %v", adopted, err)
	}
	must(t, os.WriteFile(filepath.Join(mountNothing, nextName), []byte("{"), 0o444))
	if adopted, err := Adopt(mountNothing, "boot.json"); adopted || err == nil {
		t.Error("a damaged record was adopted")
	}
}
