package boot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/kmod"
)

// arrivals are devices that a test has appear.
type arrivals chan string

func (a arrivals) Modaliases(ctx context.Context) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for {
			select {
			case alias := <-a:
				out <- alias
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (a arrivals) Close() error { return nil }

// fakeKernel is a loader of these modules (alias to name), and what it loaded.
func fakeKernel(t *testing.T, modules map[string]string) (loader *kmod.Loader, sysfs string, loaded func() string) {
	t.Helper()
	dir, proc, sysfs := t.TempDir(), t.TempDir(), t.TempDir()
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var dep, alias strings.Builder
	for pattern, name := range modules {
		dep.WriteString(name + ".ko:\n")
		alias.WriteString("alias " + pattern + " " + name + "\n")
		put(filepath.Join(dir, name+".ko"), name)
	}
	put(filepath.Join(dir, "modules.dep"), dep.String())
	put(filepath.Join(dir, "modules.alias"), alias.String())
	put(filepath.Join(proc, "modules"), "overlay 1 0 - Live 0x0\nerofs 1 0 - Live 0x0\nloop 1 0 - Live 0x0\next4 1 0 - Live 0x0\nqemu_fw_cfg 1 0 - Live 0x0\naf_packet 1 0 - Live 0x0\n")
	put(filepath.Join(sysfs, "bus/pci/devices/0000:00:01.0/modalias"), "pci:hba\n")
	var mu sync.Mutex
	var names []string
	loader = &kmod.Loader{Dir: dir, Proc: proc, Insert: func(f *os.File, _ int) error {
		name, err := io.ReadAll(f)
		mu.Lock()
		defer mu.Unlock()
		names = append(names, string(name))
		return err
	}}
	return loader, sysfs, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(slices.Sorted(slices.Values(names)), " ")
	}
}

// TestDisksThatAppear: a controller's disks are found after its driver was loaded, some of them much later.
func TestDisksThatAppear(t *testing.T) {
	loader, sysfs, loaded := fakeKernel(t, map[string]string{"pci:hba": "virtio_scsi", "scsi:t-0x00*": "sd_mod", "usb:disk*": "usb_storage"})
	synctest.Test(t, func(t *testing.T) {
		b := newBoot(Config{Now: time.Now, Console: io.Discard})
		devices := make(arrivals)
		said, err := b.drive(t.Context(), loader, sysfs, func() (newcomers, error) { return devices, nil })
		if err != nil || !strings.HasPrefix(said, "2 loaded, 1 of them") {
			t.Errorf("%s, %v", said, err)
		}
		if got := loaded(); got != "sd_mod virtio_scsi" {
			t.Errorf("loaded at first: %s", got)
		}
		devices <- "scsi:t-0x00"
		devices <- "usb:disk1"
		synctest.Wait()
		if got := loaded(); got != "sd_mod usb_storage virtio_scsi" {
			t.Errorf("loaded in the end: %s", got)
		}
		b.stopDrivers()
		b.stopDrivers()
	})
}

// TestNobodyTellsOfDevices: a kernel that tells nothing is no reason to give up.
func TestNobodyTellsOfDevices(t *testing.T) {
	loader, sysfs, loaded := fakeKernel(t, map[string]string{"pci:hba": "ahci"})
	b := newBoot(Config{Now: time.Now, Console: io.Discard})
	if _, err := b.drive(t.Context(), loader, sysfs, func() (newcomers, error) { return nil, errors.New("no socket") }); err != nil || loaded() != "ahci" {
		t.Errorf("%s, %v", loaded(), err)
	}
	if len(b.facts.Remarks) == 0 {
		t.Error("no remark")
	}
	b.close()
}
