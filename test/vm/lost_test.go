package vm

import (
	"maps"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// TestLostWrites boots from disks as a power cut may leave them that takes what the disk itself had in memory: all
// that was flushed is there, and of the writes since, some are. The states are of a first boot and of one that
// brings something new, up to the service's verdict.
//
// POWERNODE_VM_KILLS is how many states, POWERNODE_VM_SEED which ones.
func TestLostWrites(t *testing.T) {
	whole(t)
	t.Parallel()
	s := newSiege(t)
	states := number(t, "POWERNODE_VM_KILLS", 2)
	v := s.victim(false)
	for _, kind := range []string{"first boot", "boot with something new"} {
		before, marks := qemu.CopyDisk(t, v.n.disk), maps.Clone(v.marks)
		log, enrolled := v.logged()
		t.Logf("%s: %d writes and flushes, %d by its enrollment", kind, log.Len(), enrolled)
		// From here on there are several machines that were this one.
		after, marksAfter := v.n.disk, v.marks
		for range states / 2 {
			v.plug(qemu.CopyDisk(t, before), maps.Clone(marks))
			n := enrolled + s.random.IntN(log.Len()-enrolled+1)
			kept, lost := log.Apply(t, v.n.disk, n, func() bool { return s.random.IntN(2) == 0 })
			t.Logf("%s: about %d of %d, %d writes kept, %d lost", kind, n, log.Len(), kept, lost)
			qemu.Check(t, qemu.CopyDisk(t, v.n.disk))
			v.comesToBeGood()
		}
		v.plug(after, marksAfter)
		v.publish()
	}
}

// plug gives the machine another disk, with these files on it.
func (v *victim) plug(disk string, marks map[string]string) {
	v.n.disk, v.marks, v.attempts = disk, marks, make(map[string]int)
	v.n.machine.Disks, v.n.machine.Flags = []qemu.Disk{{Path: disk}}, nil
}

// logged boots the machine until its generation is found good, and returns what it wrote, and how much of that by
// the time that it had its certificate.
func (v *victim) logged() (*qemu.WriteLog, int) {
	v.t.Helper()
	flags, log := qemu.LoggedDisk(v.t, v.n.disk)
	m := &v.n.machine
	m.Disks, m.Flags = nil, flags
	begun := time.Now()
	g := v.power("")
	g.WaitLine(" enroll: ")
	enrolled := qemu.ReadLog(v.t, log).Len()
	g.WaitInit()
	v.good(g)
	v.took = time.Since(begun)
	v.whole(g, v.newest())
	v.mark(g)
	v.cut(g, "running system")
	return qemu.ReadLog(v.t, log), enrolled
}
