package vm

import (
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// task asks the node for something, and waits until it has ended.
func (s *system) task(args ...string) operatorapi.TaskDetail {
	s.n.t.Helper()
	var made operatorapi.Task
	s.n.p.Operator(append([]string{"task", "create", "--output", "json", s.n.name}, args...)...).Into(s.n.t, &made)
	return s.ended(made.ID)
}

// ended waits for the end of a task.
func (s *system) ended(id string) operatorapi.TaskDetail {
	s.n.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		var d operatorapi.TaskDetail
		s.n.p.Operator("task", "show", id, "--output", "json").Into(s.n.t, &d)
		if d.Task.EndedAt != nil {
			return d
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("it doesn't end: %+v\n%s", d.Task, s.Console())
		}
	}
}

// done is task, and insists that it was done.
func (s *system) done(args ...string) operatorapi.TaskDetail {
	s.n.t.Helper()
	d := s.task(args...)
	if d.Task.State != "complete" {
		s.n.t.Fatalf("%v: %+v\n%s", args, d.Task, s.Shell("systemctl --failed; journalctl -b -n 60 -u 'powernode*'").Stdout)
	}
	return d
}

// TestTasks: the service in its sandbox does what the platform asks for, by units of a real systemd; a soft-reboot is complete when the next
// user space runs.
func TestTasks(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	debianModule(t, p)
	p.Publish(app("1"))
	n := p.node("tasks", "debian", "app")
	n.machine.Append = "powernode.tries=1 systemd.show_status=0 systemd.getty_auto=no"
	s := n.start()
	s.WaitLine(`7/10 fetch: `)
	s.WaitInit()
	s.settled(1)

	s.done("introspect")
	if d := s.task("soft-reboot"); d.Task.Code != "REFUSED" {
		t.Errorf("with nothing staged: %+v", d.Task)
	}
	p.Publish(app("2"))
	live := s.done("update")
	s.runs(2, "2")
	said := s.Shell("journalctl -b -o cat POWERNODE_TASK=" + live.Task.ID).Stdout
	for _, want := range []string{"a task is begun", "a task is complete", "audit who=operator"} {
		if !strings.Contains(said, want) {
			t.Errorf("the journal lacks %q:\n%s", want, said)
		}
	}
	if text := s.Shell("systemctl status powernode-agent").Stdout; !strings.Contains(text, "Heartbeat acknowledged") {
		t.Errorf("the status of the unit:\n%s", text)
	}
	s.done("rotate")
	s.done("gc")
	if r := s.Shell("systemctl reload powernode-agent && systemctl is-active powernode-agent"); r.Code != 0 {
		t.Errorf("reload: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}

	p.Publish(app("3"))
	s.done("update", "--stage")
	const kernel = "/proc/sys/kernel/random/boot_id"
	before := s.Read(kernel)
	var made operatorapi.Task
	p.Operator("task", "create", "--output", "json", n.name, "soft-reboot").Into(t, &made)
	s.WaitInit()
	if after := s.Read(kernel); after != before {
		t.Errorf("another kernel runs: %s, not %s", after, before)
	}
	s.settled(3)
	s.runs(3, "3")
	if d := s.ended(made.ID); d.Task.State != "complete" || d.Task.Attempt != 1 {
		t.Errorf("soft-reboot: %+v", d.Task)
	}
	t.Log(s.Shell("systemctl show powernode-agent -p MemoryCurrent -p CPUUsageNSec -p NRestarts; grep -E 'VmRSS|Rss' /proc/$(systemctl show powernode-agent -p MainPID --value)/status").Stdout)

	s.PowerOff()
	qemu.Check(t, n.disk)
}
