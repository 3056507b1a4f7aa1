package mount

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func TestEROFSRefusesWhatIsNone(t *testing.T) {
	mounttest.NeedMounts(t)
	for place, dir := range somewhere {
		path := filepath.Join(dir(t), "image")
		image := emptyImage()
		image[1024] ^= 0xff
		must(t, os.WriteFile(path, image, 0o644))
		m, err := EROFS(open(t, path), 0)
		if err == nil {
			m.Close()
			t.Fatalf("%s: an image with the wrong magic was mounted", place)
		}
		if !strings.Contains(err.Error(), "kernel says") || !strings.Contains(err.Error(), "superblock") {
			t.Errorf("%s: the kernel's reason is missing: %v", place, err)
		}
	}
}

// TestLoopDevicesAreTakenAndGivenBack has many at once race for free devices.
func TestLoopDevicesAreTakenAndGivenBack(t *testing.T) {
	mounttest.NeedMounts(t)
	path := filepath.Join(tmpfs(t), "powernode-loop-test")
	must(t, os.WriteFile(path, emptyImage(), 0o644))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			f, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			m, err := EROFS(f, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	// The kernel clears a device after the last close, not within it.
	deadline := time.Now().Add(time.Minute)
	for len(loopsOn(t, "powernode-loop-test")) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("loop devices are still bound: %v", loopsOn(t, "powernode-loop-test"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func loopsOn(t *testing.T, name string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	var bound []string
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), name) {
			bound = append(bound, file)
		}
	}
	return bound
}

func TestUnknownFileSystem(t *testing.T) {
	mounttest.NeedMounts(t)
	_, err := New("powernodefs", 0)
	if err == nil || !strings.Contains(err.Error(), "powernodefs") || !strings.Contains(err.Error(), "load its module") {
		t.Errorf("%v", err)
	}
}

func TestOptionOf256Bytes(t *testing.T) {
	mounttest.NeedMounts(t)
	m, err := New("tmpfs", 0, String("source", strings.Repeat("x", stringMax)))
	must(t, err)
	must(t, m.Close())
	if _, err := New("tmpfs", 0, String("source", strings.Repeat("x", stringMax+1))); err == nil || !strings.Contains(err.Error(), "limit of 255") {
		t.Errorf("%v", err)
	}
}
