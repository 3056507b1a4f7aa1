package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// large returns a module with one file of n bytes that doesn't compress.
func large(n int) mod {
	bytes := make([]byte, n)
	source := rand.NewChaCha8([32]byte{7})
	_, _ = source.Read(bytes) // never fails
	return mod{Name: "large", Version: "1", Files: map[string]string{"usr/lib/large": string(bytes)}}
}

const largeSize = 6 << 20

// TestBadNetwork: connections that break are taken up where they broke, within a boot and from one
// boot to the next.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	network := newProxy(t)
	p := newPlatform(t, "--public-url", network.url())
	network.serve(p.Listen)
	p.Publish(base("1"))
	p.Publish(large(largeSize))

	t.Run("every connection breaks", func(t *testing.T) {
		n := p.on(t).node("breaks", "base", "large")
		network.each.Store(2 << 20)
		defer network.each.Store(0)
		s := n.boot()
		if status := s.status(); !status.InStep || len(status.Remarks) != 0 {
			t.Errorf("status: %+v", status)
		}
		s.exit()
	})

	t.Run("the network ends", func(t *testing.T) {
		n := p.on(t).node("ends", "base", "large")
		network.left.Store(5 << 20)
		n.refuses(5, "large 1", network.listener.Addr().String())
		network.left.Store(-1)
		network.brought.Store(0)
		s := n.boot()
		if status := s.status(); !status.InStep || len(status.Remarks) != 0 {
			t.Errorf("status: %+v", status)
		}
		s.exit()
		if brought := network.brought.Load(); brought > largeSize*3/4 {
			t.Errorf("the second boot pulled %d bytes of %d that were missing in part", brought, largeSize)
		}
	})
}

// TestFullDisk: a disk that fills up during a pull is named; nothing is kept that isn't whole; and
// once there is room the node boots.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	mounttest.NeedMounts(t)
	p := platformWith(t, base("1"))
	p.Publish(large(largeSize))
	for _, c := range []struct {
		name  string
		size  int
		wants []string
	}{
		{"full before the enrollment", 4 << 10, []string{"no space left", "free space"}},
		{"full in the first module", 2 << 20, []string{"no space left", "free space"}},
		{"full in the large module", 7 << 20, []string{"large 1", "no space left", "free space"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := p.on(t).node(nodeName(), "base", "large")
			disk := filepath.Join(filepath.Dir(n.persist), "disk")
			mountTmpfs(t, disk, c.size)
			n.persist = disk

			n.refuses(3, c.wants...)
			n.refuses(3, c.wants...)
			resize(t, disk, 64<<20)
			if err := os.Mkdir(filepath.Join(disk, "e2e"), 0o755); err != nil {
				t.Fatal(err)
			}
			s := n.boot()
			if status := s.status(); !status.InStep || status.Generation != 1 {
				t.Errorf("status: %+v", status)
			}
			s.exit()
		})
	}

	t.Run("full with nothing new to keep", func(t *testing.T) {
		n := p.on(t).node(nodeName(), "base")
		disk := filepath.Join(filepath.Dir(n.persist), "disk")
		mountTmpfs(t, disk, 64<<20)
		n.persist = disk
		if err := os.Mkdir(filepath.Join(disk, "e2e"), 0o755); err != nil {
			t.Fatal(err)
		}
		s := n.boot()
		s.exit()
		fill(t, filepath.Join(disk, "filler"))
		s = n.boot()
		if status := s.status(); !status.InStep || status.Generation != 1 {
			t.Errorf("status: %+v", status)
		}
		s.exit()
	})
}

// TestReadOnlyDisk: a disk that can't be written is named, whether the node has run or not.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	mounttest.NeedMounts(t)
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	disk := filepath.Join(filepath.Dir(n.persist), "disk")
	mountTmpfs(t, disk, 64<<20)
	n.persist = disk
	if err := os.Mkdir(filepath.Join(disk, "e2e"), 0o755); err != nil {
		t.Fatal(err)
	}
	readOnly := func(flag uintptr) {
		t.Helper()
		if err := unix.Mount("", disk, "", unix.MS_BIND|unix.MS_REMOUNT|flag, ""); err != nil {
			t.Fatal(err)
		}
	}
	readOnly(unix.MS_RDONLY)
	n.refuses(3, disk, "read-only", "writable")
	readOnly(0)
	s := n.boot()
	s.exit()
	readOnly(unix.MS_RDONLY)
	n.refuses(3, disk, "read-only", "writable")
}

// mountTmpfs mounts a file system of size bytes, for the test's time, in the namespace of the tests.
func mountTmpfs(t testing.TB, path string, size int) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func resize(t testing.TB, path string, size int) {
	t.Helper()
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
}

// fill writes to a file until the disk is full.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := []byte(strings.Repeat("x", 4096))
	for err == nil {
		_, err = f.Write(block)
	}
}
