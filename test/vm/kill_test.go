package vm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// TestPowerCuts cuts a machine's power: at labelled writes, and at any time of a first boot, of one that brings
// something new, of one that brings nothing, while the service judges what runs, during an update of the
// running system, and on the way back from a generation that used up its attempts. After one to five cuts
// the machine is left alone: it then runs the modules that it should, as a root digest that is known, nothing
// of what was on the disk is missing, and each file is as it was signed.
//
// POWERNODE_VM_KILLS is how many cuts (and go test wants -timeout for many), POWERNODE_VM_SEED which ones.
//
// What a cut takes is what the guest had in memory. What it had written, flushed or not, the disk keeps.
func TestPowerCuts(t *testing.T) {
	whole(t)
	t.Parallel()
	s := newSiege(t)
	kills := number(t, "POWERNODE_VM_KILLS", 8)
	productsDoNotListen(t)
	defer func() {
		t.Logf("%d power cuts in %d boots of %d machines: %v; labels that weren't reached: %q", s.total(), s.boots, s.nodes, s.killed, s.missed)
	}()

	// One machine lives through all of it; others are there for their first boots.
	v := s.victim(true)
	labels := v.record(kills > 8)
	t.Logf("%d labelled writes in a first boot, %d in another, %d in an update; %s until it is good", len(labels.first), len(labels.another), len(labels.update), s.took)
	cuts := []func(){
		func() { s.firstBoot(labels.some(s, &labels.first, 5)) },
		func() { v.newBoot(nil) },
		func() { v.update(labels.some(s, &labels.update, 1)) },
		func() { v.gate() },
		func() { v.newBoot(labels.some(s, &labels.another, 4)) },
		func() { s.firstBoot(nil) },
		func() { v.rollback() },
		func() { v.nothingNew() },
		func() { v.update(nil) },
	}
	for i := 0; s.total() < kills && !t.Failed(); i++ {
		cuts[i%len(cuts)]()
	}
}

// TestPowerCutAtEachWrite cuts the power once at every labelled write of a first boot, of one that brings something
// new, and of an update, until the test's time is over. It is for campaigns (POWERNODE_VM_KILLS=writes).
func TestPowerCutAtEachWrite(t *testing.T) {
	if os.Getenv("POWERNODE_VM_KILLS") != eachWrite {
		t.Skip("takes an hour; POWERNODE_VM_KILLS=writes runs it")
	}
	s := newSiege(t)
	v := s.victim(true)
	labels := v.record(true)
	all := labels.left()
	defer func() {
		t.Logf("%d labelled writes, %d of them left; %d power cuts in %d boots of %d machines: %v; labels that weren't reached: %q",
			all, labels.left(), s.total(), s.boots, s.nodes, s.killed, s.missed)
	}()
	end, bounded := t.Deadline()
	for labels.left() > 0 && !t.Failed() {
		if bounded && time.Until(end) < 3*qemu.Patience {
			return
		}
		switch {
		case len(labels.first) > 0:
			s.firstBoot(labels.some(s, &labels.first, 8))
		case len(labels.another) > 0:
			v.newBoot(labels.some(s, &labels.another, 8))
		default:
			v.update(labels.some(s, &labels.update, 1))
		}
	}
}

// eachWrite is the number of power cuts that stands for one at each labelled write.
const eachWrite = "writes"

// left is how many points there are.
func (l *labelled) left() int { return len(l.first) + len(l.another) + len(l.update) }

// labelled are the points of labelled writes at which the power is still to be cut.
type labelled struct{ first, another, update []string }

// some takes a few points from a list, in the order of the boot and spread over it.
func (l *labelled) some(s *siege, list *[]string, n int) []string {
	n = min(n, len(*list))
	var out, left []string
	step := max(1, len(*list)/max(1, n))
	at := s.random.IntN(step)
	for i, p := range *list {
		if i%step == at && len(out) < n {
			out = append(out, p)
		} else {
			left = append(left, p)
		}
	}
	*list = left
	return out
}

// record lets a machine boot undisturbed for the first time, and where all is wanted again with something new
// and through an update, and returns the labelled writes.
func (v *victim) record(all bool) *labelled {
	v.t.Helper()
	begun := time.Now()
	g := v.power("record")
	g.WaitInit()
	v.good(g)
	v.took = time.Since(begun)
	v.whole(g, v.newest())
	v.mark(g)
	l := &labelled{first: firsts(points(g))}
	v.cut(g, "running system")
	if !all {
		return l
	}
	v.publish()
	g = v.power("record")
	g.WaitInit()
	v.good(g)
	v.whole(g, v.newest())
	l.another = firsts(points(g))
	v.publish()
	g.agent("update", "--stage").OK(v.t)
	l.update = slices.DeleteFunc(firsts(points(g)), func(p string) bool { return !strings.HasPrefix(p, "update/") })
	v.cut(g, "running system")
	v.comesToBeGood()
	return l
}

// comesToBeGood leaves the machine alone until what it should run is found good, and then cuts its power.
func (v *victim) comesToBeGood() {
	v.t.Helper()
	g := v.comesUp(v.newest())
	v.good(g)
	v.mark(g)
	v.cut(g, "running system")
}

// firstBoot cuts the power in the first boots of a new machine.
func (s *siege) firstBoot(points []string) {
	s.t.Helper()
	v := s.victim(len(points) > 0 || s.random.IntN(2) == 0)
	for _, p := range points {
		v.killAt(p)
	}
	if len(points) == 0 {
		for range 1 + s.random.IntN(3) {
			v.killSometime("first boot")
		}
	}
	v.comesToBeGood()
}

// newBoot cuts the power in boots that bring something new.
func (v *victim) newBoot(points []string) {
	v.t.Helper()
	v.publish()
	for _, p := range points {
		v.killAt(p)
	}
	if len(points) == 0 {
		for range 1 + v.random.IntN(4) {
			v.killSometime("boot with something new")
		}
	}
	v.comesToBeGood()
}

// nothingNew cuts the power in boots that bring nothing.
func (v *victim) nothingNew() {
	v.t.Helper()
	for range 1 + v.random.IntN(2) {
		v.killSometime("boot with nothing new")
	}
	v.comesToBeGood()
}

// gate cuts the power while the service judges a new generation.
func (v *victim) gate() {
	v.t.Helper()
	v.publish()
	for range 1 + v.random.IntN(2) {
		v.killGate()
	}
	v.comesToBeGood()
}

// update cuts the power during an update of the running system.
func (v *victim) update(points []string) {
	v.t.Helper()
	if len(points) == 0 {
		points = []string{""}
	}
	for _, p := range points {
		v.killUpdate(p)
	}
	v.comesToBeGood()
}

// rollback cuts the power as often as a new generation has attempts, and then on the way back.
func (v *victim) rollback() {
	v.t.Helper()
	old := v.newest()
	v.publish()
	v.tries = 2
	for range v.tries {
		v.killAfter("trial", " mount:", v.took/15)
	}
	v.killSometime("way back")
	g := v.comesUp(old)
	v.mark(g)
	v.cut(g, "running system")
	v.tries = 100
	v.publish()
	v.comesToBeGood()
}

// TestPowerCutsUseUpTheFirst: a machine whose power was cut in all attempts at its first generation stops and
// says so, and tries it again after some rounds.
func TestPowerCutsUseUpTheFirst(t *testing.T) {
	whole(t)
	t.Parallel()
	s := newSiege(t)
	s.took = 15 * time.Second
	v := s.victim(false)
	v.tries = 2
	for range v.tries {
		v.killAfter("trial", " mount:", time.Second)
	}
	g := v.power("")
	g.WaitLine("This machine can't boot: .*2 boots began with it")
	v.attempts = make(map[string]int)
	for i := range 7 { // by itself that takes a quarter of an hour
		g.WaitLine(fmt.Sprintf("(?s:(?:recovery> .*?){%d})", i+1))
		g.Type("retry\n")
	}
	g.WaitInit()
	v.whole(g, v.newest())
	v.good(g)
	g.PowerOff()
	qemu.Check(t, v.n.disk)
}
