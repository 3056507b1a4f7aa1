package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// clockAt is the time that far from now, as a machine's clock has it.
func clockAt(years, days int) string {
	return time.Now().AddDate(years, 0, days).UTC().Format("2006-01-02T15:04:05")
}

// guestTime is what the clock of the running system says, in seconds since 1970: when it was started, by its
// clock of now, and how long ago that is (proc_stat(5), proc_uptime(5)).
func (s *system) guestTime() float64 {
	s.n.t.Helper()
	_, rest, _ := strings.Cut(s.Read("/proc/stat"), "\nbtime ")
	started, err := strconv.ParseFloat(strings.Fields(rest + " -")[0], 64)
	if err != nil {
		s.n.t.Fatalf("when it was started: %v", err)
	}
	running, err := strconv.ParseFloat(strings.Fields(s.Read("/proc/uptime") + " -")[0], 64)
	if err != nil {
		s.n.t.Fatalf("how long it runs: %v", err)
	}
	return started + running
}

// hasTheTime checks that the guest's clock is that of the host, where the platform has its time from.
func (s *system) hasTheTime() {
	s.n.t.Helper()
	// A clock that is five seconds off is let be, and both figures are cut.
	const off = 10
	begun := time.Now()
	got := s.guestTime()
	if earliest, latest := float64(begun.Unix()-off), float64(time.Now().Unix()+off); got < earliest || got > latest {
		s.n.t.Errorf("the machine's clock says %s, not %s", time.Unix(int64(got), 0).UTC(), begun.UTC())
	}
}

// isSet are the words of the remark about a clock that was set by the platform's time.
var isSet = []string{"the clock said 20", "the platform's signed time is", "it was set to"}

// TestClockAtEnrollment: a new machine whose clock is fifteen years ahead, so that every certificate has ended by
// it, enrolls, and has the right time from then on.
func TestClockAtEnrollment(t *testing.T) {
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("ahead", "base", "app")
	n.machine.Clock = clockAt(15, 0)
	s := n.boot()
	s.says(isSet...)
	s.hasTheTime()
	s.runs(1, "1")
	s.PowerOff()
}

// TestWrongClock: a clock that is fifteen years behind, or ahead, or so far ahead that the node's certificate has
// ended, keeps no node from enrolling nor from its platform: it is set to the time that the platform signs. What
// such a clock noted doesn't count once it is right.
func TestWrongClock(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("clock", "base", "app")
	n.machine.Clock = clockAt(-15, 0)
	s := n.boot()
	s.says(isSet...)
	s.hasTheTime()
	s.good()
	s.PowerOff()
	for _, c := range []struct {
		name, clock string
		says        []string
	}{
		// It is set forward to the last boot already before the platform can be asked.
		{"fifteen years behind", clockAt(-15, 0), []string{"the clock said 20", "which is past"}},
		{"fifteen years ahead", clockAt(15, 0), isSet},
		{"after the certificate's end", clockAt(0, 100), isSet},
		{"before the certificate's beginning", clockAt(0, -2), []string{"the clock said 20"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := n.on(t)
			n.machine.Clock = c.clock
			s := n.boot()
			s.says(c.says...)
			s.hasTheTime()
			s.runs(1, "1")
			s.agent("status", "--check").OK(t)
			s.PowerOff()
		})
	}
	t.Run("without a network, fifteen years ahead", func(t *testing.T) {
		n := n.on(t)
		n.machine.Clock, n.machine.Network = clockAt(15, 0), false
		s := n.boot()
		s.says("staying with generation 1")
		s.runs(1, "1")
		s.PowerOff()
	})
	t.Run("right again", func(t *testing.T) {
		n := n.on(t)
		n.machine.Clock = ""
		s := n.boot()
		if doc := s.runs(1, "1"); !doc.InStep || len(doc.Remarks) > 0 {
			t.Errorf("in step %t because of %q, remarks %q", doc.InStep, doc.Reasons, doc.Remarks)
		}
		s.hasTheTime()
		s.PowerOff()
	})
}

// TestExpiredAndLost: all at once, the certificate ended while the machine was off, its clock fell back by fifteen years, what
// said who it is is gone, and it has nothing to run. It says on its console what it waits for, and boots as soon as
// the operator has approved it.
func TestExpiredAndLost(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t, "--certificate-life", "1m", "--renew-expired", "approval")
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("forgotten", "base", "app")
	s := n.boot()
	_, first := s.credentials()
	s.PowerOff()
	qemu.Edit(t, n.disk, func(dir string) {
		if err := os.RemoveAll(filepath.Join(dir, stateDir, "generations")); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(time.Until(first.NotAfter.Add(time.Second)))

	n.machine.FirmwareConfig = map[string]string{}
	n.machine.Clock = clockAt(-15, 0)
	s = n.start()
	s.WaitLine(`powernode node approve ` + n.name)
	p.Operator("node", "approve", n.name).OK(t)
	s.WaitInit()
	s.runs(1, "1")
	s.hasTheTime()
	if _, second := s.credentials(); second.Equal(first) || bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Errorf("the certificate is %v, as before %v", second.SerialNumber, first.SerialNumber)
	}
	s.PowerOff()
}
