package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
)

// TestWhileOneWaits: while a change waits to be confirmed nobody is kept from the node, and no other change begins but for going back;
// and a terminal that is closed doesn't end the waiting.
func TestWhileOneWaits(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	first := s.status()
	p.Stop()
	s.do("start", "", "detach", boot.AgentPath, "detach", "site", "--confirm", "10m")
	until(t, "the change waits to be confirmed", func() bool {
		list := s.do("list", "", boot.RunDir).Stdout
		return strings.Contains(list, change.ConfirmName) && !strings.Contains(list, change.JournalName)
	})
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"detach", "app"}, 5, "generation 2 isn't confirmed yet, and no other change begins: generation 1 comes back in "},
		{[]string{"rollback", "--confirm", "60s"}, 5, "generation 2 isn't confirmed yet"},
		{[]string{"gc"}, 1, "generation 2 isn't confirmed yet"},
		{[]string{"detach", "app", "--dry-run"}, 0, "generation 2 isn't confirmed yet"},
	} {
		if r := s.agent(c.args...); r.Code != c.code || !strings.Contains(r.Stdout+r.Stderr, c.says) {
			t.Errorf("%q: exit code %d\n%s%s", c.args, r.Code, r.Stdout, r.Stderr)
		}
	}
	pid := s.child("detach")
	if pid == 0 {
		t.Fatal("nobody waits")
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the command says that nobody is there", func() bool {
		return strings.Contains(s.read("/run/detach.log"), "hung up: the change goes on")
	})
	if u, code := s.change("rollback", "1"); code != 0 || u.Outcome != change.WentLive || !s.has("/usr/share/x") {
		t.Errorf("exit code %d, %+v", code, u)
	}
	until(t, "the command ends", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(state), ") Z ") // nobody has waited for it yet
	})
	if log := s.read("/run/detach.log"); !strings.Contains(log, "somebody else went back from it") {
		t.Errorf("who waited says:\n%s", log)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("%+v", now)
	}
	s.exit()
}

// until waits for something that comes about within seconds, and ends the test by its name where it doesn't.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); <-tick() {
		if time.Now().After(end) {
			t.Fatalf("after %s it isn't so yet: %s", patience, what)
		}
	}
}

// child returns the process, by its number on this machine, of a program with this argument that the system's init has started; 0 is none.
func (s *system) child(arg string) int {
	s.t.Helper()
	init := s.process.Cmd.Process.Pid
	// A child is listed with the thread that made it, which may be any.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", init))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, thread := range threads {
		children, err := os.ReadFile(thread)
		if err != nil {
			continue // a thread that has ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			cmdline, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err == nil && slices.Contains(strings.Split(string(cmdline), "\x00"), arg) {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	return 0
}
