package vm

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/persist"
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
