package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/persist"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// fill takes all room on a disk with one file, and drain gives it back.
func fill(t testing.TB, disk string) {
	t.Helper()
	qemu.Edit(t, disk, func(dir string) {
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var at int64
		for step := int64(256 << 20); step >= 4096; {
			switch err := unix.Fallocate(int(f.Fd()), 0, at, step); {
			case err == nil:
				at += step
			case errors.Is(err, syscall.ENOSPC):
				step /= 2
			default:
				t.Fatal(err)
			}
		}
	})
}

func drain(t testing.TB, disk string) {
	t.Helper()
	qemu.Edit(t, disk, func(dir string) {
		if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
			t.Error(err)
		}
	})
}

// TestFullDisk: a disk without room doesn't keep a node from running what it ran, nor a new assignment for
// longer than the room is missing.
func TestFullDisk(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("full", "base", "app")
	fill(t, n.disk)
	s := n.start()
	s.WaitLine(`This machine can't boot: .*no space left on device`)
	s.WaitLine(`What to do: `)
	s.Kill()
	drain(t, n.disk)

	s = n.boot()
	s.good()
	s.PowerOff()
	fill(t, n.disk)
	s = n.boot()
	if doc := s.runs(1, "1"); !doc.InStep {
		t.Errorf("out of step: %q", doc.Reasons)
	}
	s.PowerOff()

	p.Publish(app("2"))
	s = n.boot()
	s.says("no space left on device", "staying with generation 1")
	if doc := s.runs(1, "1"); doc.InStep {
		t.Error("status says that the node is in step")
	}
	s.PowerOff()
	drain(t, n.disk)
	s = n.boot()
	s.good()
	if doc := s.runs(2, "2"); !doc.InStep {
		t.Errorf("out of step: %q", doc.Reasons)
	}
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// TestReadOnlyDisk: a disk that can't be written to any more is booted from, and says so.
func TestReadOnlyDisk(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("protected", "base", "app")
	n.machine.Disks[0].ReadOnly = true
	s := n.start()
	s.WaitLine(`This machine can't boot: `)
	s.WaitLine(`What to do: `)
	s.Kill()

	n.machine.Disks[0].ReadOnly = false
	s = n.boot()
	s.good()
	s.PowerOff()
	p.Publish(app("2"))
	n.machine.Disks[0].ReadOnly = true
	s = n.boot()
	s.says("can only be read", "staying with generation 1")
	s.runs(1, "1")
	if f := s.journal(); !f.Persist.ReadOnly {
		t.Errorf("persist is %+v", f.Persist)
	}
	if got := s.Write("/persist/x", "x"); !strings.Contains(got, "read-only file system") {
		t.Errorf("writing to the disk: %q", got)
	}
	if got := s.Write("/var/lib/x", "x"); got != "" {
		t.Errorf("writing to /var: %s", got)
	}
	s.PowerOff()
	n.machine.Disks[0].ReadOnly = false
	s = n.boot()
	s.good()
	s.runs(2, "2")
	s.PowerOff()
}

// TestNoDisk: a machine without a disk works from memory, as well protected, and says so; but not as long as a
// disk may come, nor in place of one that was named.
func TestNoDisk(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("diskless", "base", "app")
	disks := n.machine.Disks
	n.machine.Disks = nil
	n.machine.Append = "powernode.persist_timeout=2s powernode.persist=SERIAL=late"
	s := n.start()
	s.WaitLine(`This machine can't boot: .*SERIAL=late`)
	s.Kill()

	n.machine.Append = "powernode.persist_timeout=2s"
	s = n.start()
	for i := range 3 { // by itself that takes two minutes
		s.WaitLine(fmt.Sprintf(`(?s:(?:This machine can't boot: [^\n]*there is no persist disk.*?recovery> .*?){%d})`, i+1))
		s.Type("retry\n")
	}
	s.WaitInit()
	s.says("there is no persist disk", "works from memory")
	s.good()
	if doc := s.runs(1, "1"); !doc.InStep || !strings.Contains(strings.Join(doc.Remarks, "\n"), "works from memory") {
		t.Errorf("in step %t because of %q, remarks %q", doc.InStep, doc.Reasons, doc.Remarks)
	}
	if f := s.journal(); f.Persist.Kind != persist.Memory {
		t.Errorf("persist is %+v", f.Persist)
	}
	s.PowerOff()

	// The token that enrolled it counts once; with a new one it is the same node with a disk.
	n.machine.Disks = disks
	n.newToken()
	s = n.boot()
	s.good()
	s.runs(1, "1")
	s.PowerOff()
}
