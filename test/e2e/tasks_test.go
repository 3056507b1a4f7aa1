package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/lease"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// task asks the node for something, as an operator does, and returns the task's ID.
func (n *node) task(args ...string) string {
	n.t.Helper()
	var made operatorapi.Task
	n.p.Operator(append([]string{"task", "create", "--output", "json", n.name}, args...)...).Into(n.t, &made)
	return made.ID
}

// taskNow is what the operator sees of a task.
func (n *node) taskNow(id string) operatorapi.TaskDetail {
	n.t.Helper()
	var d operatorapi.TaskDetail
	n.p.Operator("task", "show", id, "--output", "json").Into(n.t, &d)
	return d
}

// taskEnd waits for the end of a task.
func (s *system) taskEnd(id string) operatorapi.TaskDetail {
	s.t.Helper()
	var d operatorapi.TaskDetail
	s.await("task "+id+" ends", func() bool {
		d = s.taskNow(id)
		return d.Task.State == "complete" || d.Task.State == "failed" || d.Task.State == "cancelled"
	})
	return d
}

// done asks for something and waits until it is done.
func (s *system) done(args ...string) operatorapi.TaskDetail {
	s.t.Helper()
	d := s.taskEnd(s.task(args...))
	if d.Task.State != "complete" {
		s.t.Fatalf("%v: %+v\n%s", args, d.Task, s.said())
	}
	return d
}

// begun waits until the service says that it has begun a task.
func (s *system) begun(id string) {
	s.t.Helper()
	s.await("task "+id+" is begun", func() bool {
		for line := range strings.Lines(s.said()) {
			if strings.Contains(line, "a task is begun") && strings.Contains(line, id) {
				return true
			}
		}
		return false
	})
}

// TestTasks takes a node through what its platform may ask of it, over the operator's command line.
func TestTasks(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	s.serve()
	p.Operator("assign", "web", "site").OK(t)

	d := s.done("attach", "site")
	var result struct {
		Outcome    string `json:"outcome"`
		Generation uint64 `json:"generation"`
	}
	if err := json.Unmarshal(d.Result, &result); err != nil || result.Outcome != "live" || result.Generation != 2 || !s.has("/usr/share/x") {
		t.Errorf("attach: %s, %v", d.Result, err)
	}
	s.done("detach", "site")
	if s.has("/usr/share/x") {
		t.Error("after detach, the module is there")
	}
	p.Publish(app("2"))
	s.done("update")
	if now := s.status(); now.Generation != 3 {
		t.Errorf("after an update: %+v", now)
	}
	s.done("rollback", "--generation", "1")
	s.done("sync", "--retry")
	if d := s.done("introspect"); !strings.Contains(string(d.Result), `"generations"`) {
		t.Errorf("introspect: %.300s", d.Result)
	}
	before := s.credentials().Serial
	s.done("rotate")
	if now := s.credentials().Serial; now == before {
		t.Error("the certificate is the same after rotate")
	}
	s.done("gc", "--keep", "1")
	for _, c := range []struct{ code, text string }{
		{"BAD_OPTIONS", "names no module"},
	} {
		id := s.task("attach", "--", "--stage")
		if d := s.taskEnd(id); d.Task.State != "failed" || d.Task.Code != c.code || !strings.Contains(d.Task.Error, c.text) {
			t.Errorf("attach --stage: %+v", d.Task)
		}
	}
	if d := s.taskEnd(s.task("attach", "nobody")); d.Task.State != "failed" || d.Task.Code != "REFUSED" {
		t.Errorf("attach of what nobody knows: %+v", d.Task)
	}
	if d := s.taskEnd(s.task("soft-reboot")); d.Task.State != "failed" || d.Task.Code != "REFUSED" {
		t.Errorf("soft-reboot without systemd: %+v", d.Task)
	}
	s.served()
	s.exit()
}

// TestTaskOfAKilledService: what a task does goes on when the service is killed, and the next one tells what came of it; it is done once.
func TestTaskOfAKilledService(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Operator("assign", "web", "site").OK(t)
	s.serve()
	// The command waits for somebody who is at work on the node.
	work := n.atWork()
	id := s.task("attach", "site")
	s.await("its command waits, and the platform knows", func() bool { return strings.Contains(s.taskNow(id).Output, "waits for somebody else") })
	if a := s.do("signal", "kill", "service"); a.Error != "" {
		t.Fatal(a.Error)
	}
	s.serve()
	s.begun(id)
	work()
	if d := s.taskEnd(id); d.Task.State != "complete" || d.Task.Attempt != 2 || !strings.Contains(s.said(), "a command has ended while the service was away") {
		t.Errorf("%+v\n%s", d.Task, s.said())
	}
	if now := s.status(); now.Generation != 2 || !now.InStep || !s.has("/usr/share/x") {
		t.Errorf("%+v", now)
	}

	// One that is told to end ends, and the task goes on all the same.
	work = n.atWork()
	id = s.task("detach", "site")
	s.begun(id)
	if said := s.served(); !strings.Contains(said, "the agent ends") {
		t.Errorf("it ends without a word:\n%s", said)
	}
	work()
	s.serve()
	if d := s.taskEnd(id); d.Task.State != "complete" || s.has("/usr/share/x") {
		t.Errorf("%+v\n%s", d.Task, s.said())
	}

	// The platform goes away while a task is done, and hears of it when it is back.
	id = s.task("gc")
	s.begun(id)
	p.Stop()
	s.await("the task is done", func() bool { return strings.Contains(s.said(), "a task is complete") })
	p.Start()
	if d := s.taskEnd(id); d.Task.State != "complete" {
		t.Errorf("%+v\n%s", d.Task, s.said())
	}
	s.served()
	s.exit()
}

// atWork has somebody change the node until the end is called: nobody else may meanwhile.
func (n *node) atWork() (end func()) {
	n.t.Helper()
	lock, err := reconcile.Lock(n.state())
	if err != nil {
		n.t.Fatal(err)
	}
	return func() {
		n.t.Helper()
		if err := lock.Unlock(); err != nil {
			n.t.Error(err)
		}
	}
}

// TestTaskIsHeard: what the command of a task says is at the platform while it runs, and what somebody does on the machine is told as well.
func TestTaskIsHeard(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	s.serve()
	p.Operator("assign", "web", "site").OK(t)
	work := n.atWork()
	id := s.task("attach", "site")
	s.await("the operator sees what it waits for", func() bool {
		d := s.taskNow(id)
		return d.Task.State == "leased" && strings.Contains(d.Output, "waits for somebody else who changes this node")
	})
	work()
	if d := s.taskEnd(id); d.Task.State != "complete" || !strings.Contains(d.Output, "powernode-agent attach ") || !strings.Contains(d.Output, "site 1") {
		t.Errorf("%+v\n%s", d.Task, d.Output)
	}
	s.agent("detach", "site").OK(t)
	s.await("the operator sees who has detached it", func() bool {
		out := p.Operator("event", "list", "--output", "json").OK(t)
		return strings.Contains(out, "detach site: complete")
	})
	s.served()
	s.exit()
}

// TestTaskIsCancelled: its command is ended, and the next one isn't kept back.
func TestTaskIsCancelled(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	s.serve()
	work := n.atWork()
	id := s.task("detach", "app")
	s.begun(id)
	p.Operator("task", "cancel", id).OK(t)
	if d := s.taskEnd(id); d.Task.State != "cancelled" {
		t.Errorf("%+v\n%s", d.Task, s.said())
	}
	work()
	s.done("gc")
	if now := s.status(); now.Generation != 1 || !s.has("/etc/app/page") {
		t.Errorf("it was done all the same: %+v", now)
	}
	s.served()
	s.exit()
}

// TestTaskReboots: a reboot is done once, and complete when another boot runs.
func TestTaskReboots(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	s := n.boot()
	s.serve()
	asked := time.Now()
	id := s.task("reboot")
	<-s.process.Done
	if d := n.taskNow(id); d.Task.State != "leased" {
		t.Errorf("while it restarts: %+v", d.Task)
	}
	s = n.boot()
	s.serve()
	// Where all of it takes longer than a lease is good, the platform has given the task once more; it isn't done once more.
	d := s.taskEnd(id)
	if most := 1 + int(time.Since(asked)/lease.Life); d.Task.State != "complete" || d.Task.Attempt > most {
		t.Errorf("%+v\n%s", d.Task, s.said())
	}
	if said := s.said(); strings.Contains(said, "the machine restarts") {
		t.Errorf("it restarts again:\n%s", said)
	}
	s.served()
	s.exit()
}

// TestOneServicePerNode: a second one says who serves.
func TestOneServicePerNode(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	s := p.node("web", "base").boot()
	s.serve()
	s.await("it serves", func() bool { return strings.Contains(s.said(), "the agent serves") })
	r := s.agent("service")
	r.Refused(t, 1, "one agent serves a node", "powernode-agent")
	s.served()
	s.exit()
}

// TestFollowsThePlatform: a service brings its node in step when it begins, when the list of modules changes and when the
// configuration does; it isn't asked to by hand.
func TestFollowsThePlatform(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Operator("assign", "web", "site").OK(t)
	if a := s.do("start", "", "service", boot.AgentPath, "service", "--metrics-textfile=/run/agent.prom"); a.Error != "" {
		t.Fatal(a.Error)
	}
	s.await("it runs what was assigned before", func() bool { return s.has("/usr/share/x") })
	p.Operator("unassign", "web", "site").OK(t)
	if a := s.do("signal", "hangup", "service"); a.Error != "" {
		t.Fatal(a.Error)
	}
	s.await("it runs what is assigned now", func() bool { return !s.has("/usr/share/x") })
	s.await("the operator sees it", func() bool {
		r := s.detail().Node.Report
		return r != nil && r.Generation == s.facts().Generation
	})
	if said := s.served(); !strings.Contains(said, "has read its configuration again") {
		t.Error(said)
	}
	if text := s.read("/run/agent.prom"); !strings.Contains(text, "\npowernode_agent_reconcile_failures_in_a_row 0\n") {
		t.Error(text)
	}
	s.exit()
}

// TestServiceOnce does one round of everything and ends: the tasks that wait, the list as it is, and the last word on both.
func TestServiceOnce(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Operator("assign", "web", "site").OK(t)
	first, second := s.task("gc"), s.task("introspect")
	if r := s.agent("service", "--once"); r.Code != 0 {
		t.Fatalf("%d\n%s", r.Code, r.Stderr)
	}
	for _, id := range []string{first, second} {
		if d := s.taskNow(id); d.Task.State != "complete" {
			t.Errorf("%+v", d.Task)
		}
	}
	if r := s.detail().Node.Report; !s.has("/usr/share/x") || r == nil || r.Generation != 2 {
		t.Errorf("it isn't in step, or nobody knows: %+v", r)
	}
	if out := p.Operator("event", "list", "--output", "json").OK(t); !strings.Contains(out, first) {
		t.Errorf("the audit record of the task isn't among the events: %.500s", out)
	}
	p.Stop()
	if r := s.agent("service", "--once"); r.Code != 5 {
		t.Errorf("without a platform: %d\n%s", r.Code, r.Stderr)
	}
	s.exit()
}
