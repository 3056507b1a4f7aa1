package vm

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
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
	return s.awaitTask(id, "it ends", func(d operatorapi.TaskDetail) bool { return d.Task.EndedAt != nil })
}

// awaitTask waits until that can be said of a task.
func (s *system) awaitTask(id, what string, until func(operatorapi.TaskDetail) bool) operatorapi.TaskDetail {
	s.n.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		var d operatorapi.TaskDetail
		s.n.p.Operator("task", "show", id, "--output", "json").Into(s.n.t, &d)
		if until(d) {
			return d
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("waited in vain until %s: %+v\n%s\n%s", what, d.Task, d.Output, s.Console())
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
// user space runs, a reboot when another kernel does; the services of a module are started and stopped, and what is cancelled ends.
func TestTasks(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	debianModule(t, p)
	p.Publish(app("1"))
	n := p.node("tasks", "debian", "app")
	// After a soft-reboot a layer in memory is out of reach, and no change is live.
	n.machine.Initramfs = agentInitramfs(t, p, "integrity: enforced\n", "schema_version: 1\nupper: persist\n")
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

	p.Publish(site("1"))
	p.assign(n.name, "site")
	s.done("attach", "site")
	s.holds("/usr/share/site/page", liveText("the site", "1"))
	s.taskServices()
	s.taskCancelled()
	s.taskWaysBack()
	s.taskReboots()
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// siteUnit is the unit of the site's service.
const siteUnit = "powernode-site_serve.service"

// mainPID is the process of the site's service.
func (s *system) mainPID() string {
	s.n.t.Helper()
	return strings.TrimSpace(s.Run("systemctl", "show", "-P", "MainPID", siteUnit).OK(s.n.t))
}

// taskServices has the services of a module started, stopped and restarted by tasks, those of the older platform, too; no other unit is touched.
func (s *system) taskServices() {
	t := s.n.t
	t.Helper()
	s.active(siteUnit, true)
	first := s.mainPID()
	s.done("init", "site", "--action", "restart")
	s.active(siteUnit, true)
	second := s.mainPID()
	s.done("stop", "site")
	s.active(siteUnit, false)
	s.done("start", "site")
	s.active(siteUnit, true)
	third := s.mainPID()

	s.done("restart", "site")
	s.active(siteUnit, true)
	if fourth := s.mainPID(); first == second || second == third || third == fourth || fourth == "0" {
		t.Errorf("the processes of the service: %s, %s, %s, %s", first, second, third, fourth)
	}
	agent := s.Run("systemctl", "show", "-P", "MainPID", "powernode-agent.service").OK(t)
	if d := s.task("restart", "app"); d.Task.State != "failed" || d.Task.Code != "REFUSED" {
		t.Errorf("restart of a module without services: %+v", d.Task)
	}
	if now := s.Run("systemctl", "show", "-P", "MainPID", "powernode-agent.service").OK(t); now != agent {
		t.Errorf("the service of the agent is another process: %s, not %s", now, agent)
	}
	if d := s.done("init", "site", "--action", "status"); !strings.Contains(string(d.Result), siteUnit) {
		t.Errorf("the status of the services: %s", d.Result)
	}
}

// taskCancelled: the command of a task that is cancelled is told to end, and does; what it was to do isn't done.
func (s *system) taskCancelled() {
	t := s.n.t
	t.Helper()
	lock := filepath.Join(boot.StateDir(boot.PersistInRoot), reconcile.LockName)
	if a := s.Do(qemu.Request{Op: "start", Args: []string{"holder", "/usr/bin/flock", "--no-fork", lock, "/usr/bin/sleep", "infinity"}}); a.Error != "" {
		t.Fatal(a.Error)
	}
	for deadline := time.Now().Add(qemu.Patience); s.Run("/usr/bin/flock", "-n", lock, "/usr/bin/true").Code == 0; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("nobody gets the lock of those who change the node")
		}
	}
	var made operatorapi.Task
	s.n.p.Operator("task", "create", "--output", "json", s.n.name, "detach", "site").Into(t, &made)
	s.awaitTask(made.ID, "its command waits", func(d operatorapi.TaskDetail) bool {
		return strings.Contains(d.Output, "waits for somebody else") || d.Task.EndedAt != nil
	})
	s.n.p.Operator("task", "cancel", made.ID).OK(t)
	if d := s.ended(made.ID); d.Task.State != "cancelled" {
		t.Errorf("cancel: %+v", d.Task)
	}
	s.active("powernode-agent-task.service", false)
	if a := s.Do(qemu.Request{Op: "stop", Args: []string{"holder"}}); a.Error != "" {
		t.Fatal(a.Error)
	}
	s.active(siteUnit, true)
}

// taskWaysBack takes the site away by a rollback and by a detach, and brings it back by an update and by an attach.
func (s *system) taskWaysBack() {
	s.n.t.Helper()
	there := func(what string, want bool) {
		s.n.t.Helper()
		s.active(siteUnit, want)
		if got := s.ReadError("/usr/share/site/page") == ""; got != want {
			s.n.t.Errorf("after %s, that the site's page is there is %t", what, got)
		}
	}
	s.done("rollback")
	there("rollback", false)
	s.runs(s.journal().Generation, "3")
	s.done("update", "--retry")
	there("update", true)
	s.done("detach", "site")
	there("detach", false)
	s.done("attach", "site")
	there("attach", true)
}

// taskReboots: a reboot of all of the machine is complete when another kernel runs, with what ran before.
func (s *system) taskReboots() {
	t := s.n.t
	t.Helper()
	const kernel = "/proc/sys/kernel/random/boot_id"
	before, generation := s.Read(kernel), s.journal().Generation
	var made operatorapi.Task
	s.n.p.Operator("task", "create", "--output", "json", s.n.name, "reboot").Into(t, &made)
	s.WaitInit()
	if after := s.Read(kernel); after == before {
		t.Error("the same kernel runs")
	}
	s.settled(generation)
	s.runs(generation, "3")
	s.active(siteUnit, true)
	if d := s.ended(made.ID); d.Task.State != "complete" || d.Task.Attempt != 1 {
		t.Errorf("reboot: %+v", d.Task)
	}
}
