package change

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// sandboxed is a process in a mount namespace of its own that hides part of /usr, until the test ends.
func (m *mounted) sandboxed() (pid int) {
	m.Helper()
	c := exec.Command("sh", "-c", `mount --make-rslave / && mount -t tmpfs none "$1" && echo ready && exec cat`, "sh", m.in("usr/secret"))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	m.must(err)
	out, err := c.StdoutPipe()
	m.must(err)
	m.must(c.Start())
	m.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			m.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		m.Fatalf("%q, %v", line, err)
	}
	return c.Process.Pid
}

// cutOffNode is a node with a sandbox that a change of /usr cuts off.
func cutOffNode(t *testing.T) (m *mounted, old, next store.Generation, pid int) {
	t.Helper()
	m = newMounted(t)
	old = m.generation(map[string]string{"usr/app": long("1"), "usr/secret/key": "1"}, nil)
	next = m.generation(map[string]string{"usr/app": long("2"), "usr/secret/key": "2"}, nil)
	m.boot(old, rootfs.Ephemeral)
	return m, old, next, m.sandboxed()
}

// saysCutOff checks that what a person is told names a process as cut off, once.
func (m *mounted) saysCutOff(pid int, remarks []string) {
	m.Helper()
	n := 0
	for _, r := range remarks {
		if strings.HasPrefix(r, fmt.Sprintf("process %d cat is to be restarted: ", pid)) {
			n++
		}
	}
	if n != 1 {
		m.Errorf("it is said %d times: %q", n, remarks)
	}
}

// TestAFailedSwapTellsWhomItCutOff: sandboxes stay cut off where a swap fails, and whoever is to restart them is told.
func TestAFailedSwapTellsWhomItCutOff(t *testing.T) {
	m, old, next, pid := cutOffNode(t)
	machine, fails := m.machine(), errors.New("it fails")
	machine.Place.Hook = func(label string) error {
		if label == "live-usr:attach" {
			return fails
		}
		return nil
	}
	remarks, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
	if !errors.Is(err, fails) {
		t.Fatal(err)
	}
	m.saysCutOff(pid, remarks)
	m.reads("usr/app", long("1"))
}

// TestRecoverTellsWhomAKilledSwapCutOff: the command that knew of them is gone.
func TestRecoverTellsWhomAKilledSwapCutOff(t *testing.T) {
	m, old, next, pid := cutOffNode(t)
	m.killedAt("live-usr:attach", m.step(old, next), func(string) {})
	m.saysCutOff(pid, cutOff(m.recovers(old).CutOff, nil))
	m.reads("usr/app", long("1"))
}

func TestCutOff(t *testing.T) {
	unit := func(names ...string) live.Namespace {
		return live.Namespace{Units: names, PIDs: []int{1}, Keeps: []string{"usr"}}
	}
	step := func(name string) []aftercare.UnitStep { return []aftercare.UnitStep{{Unit: name}} }
	// Who is restarted on the way back, or was stopped, is as it was; who is left to a person is not.
	f := Findings{Aftercare: &aftercare.Plan{Restart: step("a.service"), Stop: step("b.service"), Later: step("c.service")}}
	r := live.Result{Kept: []live.Namespace{unit("a.service"), unit("b.service"), unit("c.service", "d.service")}, Late: []live.Namespace{{PIDs: []int{7}, Commands: []string{"bwrap"}}, {}}}
	got := f.cutOff(r)
	if len(got) != 3 || !strings.HasPrefix(got[0], "c.service is to be restarted") || !strings.HasPrefix(got[1], "d.service") || !strings.HasPrefix(got[2], "process 7 bwrap") {
		t.Errorf("%q", got)
	}
	if got := cutOff(r.Kept, f.Aftercare); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := (&Findings{}).cutOff(r); len(got) != 5 {
		t.Errorf("%q", got)
	}
}
