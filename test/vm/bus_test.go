package vm

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/persist"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// TestBuses: the kernel finds the disks of these buses in the background, after the driver of their controller
// was loaded, and asks for the driver of the disk itself only then.
func TestBuses(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	for _, bus := range []qemu.Bus{qemu.SCSI, qemu.SATA} {
		t.Run(string(bus), func(t *testing.T) {
			n := p.node(string(bus), "base", "app").on(t)
			n.machine.Disks[0].Bus = bus
			s := n.boot()
			if f := s.journal(); f.Persist.Kind != persist.Disk || !strings.HasPrefix(f.Persist.Device, "/dev/sd") {
				t.Errorf("persist is %+v, remarks %q", f.Persist, f.Remarks)
			}
			s.runs(1, "1")
			s.PowerOff()
		})
	}
}

// TestLateDisk: a disk that is attached while the machine waits for it is the node's disk.
func TestLateDisk(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("late", "base", "app")
	monitor := filepath.Join(lab.TempDir(t), "monitor")
	n.machine.Disks = nil
	n.machine.Append = "powernode.persist_timeout=10m"
	n.machine.Flags = []string{
		"-monitor", "unix:" + monitor + ",server=on,wait=off", "-device", "virtio-scsi-pci,id=hba",
		"-drive", "file=" + n.disk + ",format=raw,if=none,id=late",
	}
	s := n.start()
	s.WaitLine(`waiting for the device .*there are no disks`)
	conn, err := net.Dial("unix", monitor)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "device_add scsi-hd,bus=hba.0,drive=late\n"); err != nil {
		t.Fatal(err)
	}
	s.WaitInit()
	if f := s.journal(); f.Persist.Kind != persist.Disk || f.Persist.Device != "/dev/sda" {
		t.Errorf("persist is %+v, remarks %q", f.Persist, f.Remarks)
	}
	s.runs(1, "1")
	s.PowerOff()
}
