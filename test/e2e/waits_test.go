package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
)

// TestWhileOneWaits: while a change waits to be confirmed nobody is kept from the node, and no other change begins but for going back;
// and a terminal that is closed doesn't end the waiting.
func TestWhileOneWaits(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	for _, m := range []mod{base("1"), app("1"), site("1")} {
		p.Publish(m)
	}
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	first := s.status()
	p.Stop()
	s.do("start", "", "detach", boot.AgentPath, "detach", "site", "--confirm", "10m")
	for !strings.Contains(s.do("list", "", boot.RunDir).Stdout, change.ConfirmName) || strings.Contains(s.do("list", "", boot.RunDir).Stdout, change.JournalName) {
		<-tick()
	}
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
	for !strings.Contains(s.read("/run/detach.log"), "hung up: the change goes on") {
		<-tick()
	}
	if u, code := s.change("rollback", "1"); code != 0 || u.Outcome != change.WentLive || !s.has("/usr/share/x") {
		t.Errorf("exit code %d, %+v", code, u)
	}
	for {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			break // nobody has waited for it yet
		}
		<-tick()
	}
	if log := s.read("/run/detach.log"); !strings.Contains(log, "somebody else went back from it") {
		t.Errorf("who waited says:\n%s", log)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("%+v", now)
	}
	s.exit()
}

// child returns the process, by its number on this machine, of a program with this argument that the system's init has started; 0 is none.
func (s *system) child(arg string) int {
	s.t.Helper()
	init := s.process.Cmd.Process.Pid
	for child := range strings.FieldsSeq(string(read(s.t, fmt.Sprintf("/proc/%d/task/%d/children", init, init)))) {
		cmdline, err := os.ReadFile("/proc/" + child + "/cmdline")
		if err == nil && slices.Contains(strings.Split(string(cmdline), "\x00"), arg) {
			pid, _ := strconv.Atoi(child)
			return pid
		}
	}
	return 0
}
