package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// newTask makes a task of a kind for a node.
func newTask(t *testing.T, d *DB, nodeID string, kind nodeapi.TaskKind) Task {
	t.Helper()
	task, err := d.CreateTask(t.Context(), taskOf(nodeID, kind))
	check(t, err)
	return task
}

func taskOf(nodeID string, kind nodeapi.TaskKind) Task {
	in := Task{ID: NewID(), NodeID: nodeID, Options: "{}", RequestedBy: "ops", Deadline: time.Minute}
	in.Kind = kind
	return in
}

// take leases tasks and returns them.
func take(t *testing.T, d *DB, nodeID string, holding []string, most int) []Task {
	t.Helper()
	out, err := d.LeaseTasks(t.Context(), nodeID, holding, most)
	check(t, err)
	return out.Tasks
}

func eventKinds(t *testing.T, d *DB, nodeID string) string {
	t.Helper()
	var kinds []string
	for _, e := range first(d.Events(t.Context(), nodeID, 20)) {
		kinds = append(kinds, e.Kind)
	}
	return strings.Join(kinds, " ")
}

func TestTaskLife(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", ""))
	in := taskOf(n.ID, nodeapi.TaskSync)
	in.Options = `{"stage":true}`
	made := first(d.CreateTask(ctx, in))
	want := Task{
		Task: lease.Task{Kind: nodeapi.TaskSync, State: nodeapi.TaskPending, Attempt: 1}, ID: in.ID, NodeID: n.ID, NodeName: "n", Options: in.Options,
		RequestedBy: "ops", CreatedAt: c.now(), Deadline: time.Minute,
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(made, first(d.CreateTask(ctx, in))); diff != "" {
		t.Error(diff)
	}
	in.Options = "{}"
	if _, err := d.CreateTask(ctx, in); !errors.Is(err, ErrExists) {
		t.Errorf("the ID of another: %v", err)
	}
	if _, err := d.CreateTask(ctx, taskOf("nobody", nodeapi.TaskSync)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a task for nobody: %v", err)
	}

	got := take(t, d, n.ID, nil, 1)
	if len(got) != 1 || len(got[0].Lease) != 32 || got[0].State != nodeapi.TaskLeased {
		t.Fatalf("%+v", got)
	}
	id := got[0].Lease
	c.advance(30 * time.Second)
	check(t, second(d.ProgressTask(ctx, n.ID, made.ID, nodeapi.TaskProgress{LeaseID: id, Percent: 40, Message: "half", Output: "abc"})))
	c.advance(45 * time.Second) // beyond the first lease, not beyond the renewed one
	progress := first(d.ProgressTask(ctx, n.ID, made.ID, nodeapi.TaskProgress{LeaseID: id, Percent: 50, Output: "bcd", OutputOffset: 1}))
	if progress.Percent != 50 || progress.Message != "half" || !progress.Begun {
		t.Errorf("%+v", progress)
	}
	for range 2 {
		done := first(d.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: id, Result: `{"generation":4}`}))
		if done.State != nodeapi.TaskComplete || done.Percent != 100 || done.Result != `{"generation":4}` || !done.EndedAt.Equal(c.now()) {
			t.Errorf("%+v", done)
		}
	}
	kept, output, err := d.Task(ctx, made.ID)
	check(t, err)
	if kept.State != nodeapi.TaskComplete || output != (lease.Output{Text: "abcd", End: 4}) || kept.BegunAt.IsZero() {
		t.Errorf("%+v %+v", kept, output)
	}
	for _, err := range []error{
		second(d.RenewTask(ctx, n.ID, made.ID, id)),
		second(d.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: id, Failed: true, Code: nodeapi.FailFailed})),
		second(d.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: "other"})),
	} {
		if !errors.Is(err, lease.ErrLost) {
			t.Error(err)
		}
	}
	if kinds := eventKinds(t, d, n.ID); kinds != EventTaskComplete+" "+EventTaskCreated {
		t.Error(kinds)
	}
}

func second[T any](_ T, err error) error { return err }

func TestTaskOfAnother(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	n, other := first(d.CreateNode(ctx, "n", "")), first(d.CreateNode(ctx, "other", ""))
	made := newTask(t, d, n.ID, nodeapi.TaskSync)
	if got := take(t, d, other.ID, nil, 9); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	id := take(t, d, n.ID, nil, 9)[0].Lease
	for _, err := range []error{
		second(d.RenewTask(ctx, other.ID, made.ID, id)),
		second(d.ProgressTask(ctx, other.ID, made.ID, nodeapi.TaskProgress{LeaseID: id})),
		second(d.EndTask(ctx, other.ID, made.ID, TaskOutcome{Lease: id})),
		second(d.RenewTask(ctx, n.ID, "none", id)),
		second(d.CancelTask(ctx, "none", "ops")),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
}

// TestTaskTurns: one of those that change the root at a time, in order; the others beside; a lost one again, a cancelled one not.
func TestTaskTurns(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", ""))
	a, look, b := newTask(t, d, n.ID, nodeapi.TaskUpdate), newTask(t, d, n.ID, nodeapi.TaskIntrospect), newTask(t, d, n.ID, nodeapi.TaskReboot)
	last := newTask(t, d, n.ID, nodeapi.TaskGC)
	ids := func(list []Task) (out []string) {
		for _, x := range list {
			out = append(out, x.ID)
		}
		return out
	}
	got := take(t, d, n.ID, nil, 9)
	if diff := cmp.Diff([]string{a.ID, look.ID}, ids(got)); diff != "" {
		t.Fatal(diff)
	}
	if again := take(t, d, n.ID, []string{got[0].Lease, got[1].Lease}, 9); len(again) != 0 {
		t.Errorf("%+v", again)
	}
	// The answer was lost, or the node's memory.
	again := take(t, d, n.ID, []string{got[1].Lease}, 9)
	if len(again) != 1 || again[0].ID != a.ID || again[0].Lease == got[0].Lease || again[0].Attempt != 1 {
		t.Fatalf("%+v", again)
	}
	if err := second(d.RenewTask(ctx, n.ID, a.ID, got[0].Lease)); !errors.Is(err, lease.ErrLost) {
		t.Error(err)
	}
	check(t, second(d.ProgressTask(ctx, n.ID, a.ID, nodeapi.TaskProgress{LeaseID: again[0].Lease, Output: "x"})))
	c.advance(2 * lease.Life)
	third := take(t, d, n.ID, nil, 1)
	if len(third) != 1 || third[0].ID != a.ID || third[0].Attempt != 2 {
		t.Fatalf("%+v", third)
	}
	if _, output, err := d.Task(ctx, a.ID); err != nil || output.Text != "x\n[attempt 2]\n" || output.End != 0 {
		t.Errorf("%+v, %v", output, err)
	}
	if got := first(d.CancelTask(ctx, a.ID, "ops")); got.State != nodeapi.TaskCancelling || got.CancelledBy != "ops" {
		t.Errorf("%+v", got)
	}
	if got := first(d.CancelTask(ctx, b.ID, "ops")); got.State != nodeapi.TaskCancelled {
		t.Errorf("%+v", got)
	}
	if renewed := first(d.RenewTask(ctx, n.ID, a.ID, third[0].Lease)); renewed.State != nodeapi.TaskCancelling {
		t.Errorf("%+v", renewed)
	}
	check(t, second(d.EndTask(ctx, n.ID, a.ID, TaskOutcome{Lease: third[0].Lease, Failed: true, Code: nodeapi.FailCancelled, Error: "stopped"})))
	if diff := cmp.Diff([]string{look.ID, last.ID}, ids(take(t, d, n.ID, []string{}, 9))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{last.ID, look.ID}, ids(first(d.Tasks(ctx, Tasks{NodeID: n.ID, Open: true, Limit: 9})))); diff != "" {
		t.Error(diff)
	}
	if list := first(d.Tasks(ctx, Tasks{Limit: 3})); len(list) != 3 || list[0].ID != last.ID {
		t.Errorf("%v", ids(list))
	}
	want := strings.Join([]string{EventTaskCancelled, EventTaskCancelled, EventTaskCancel}, " ")
	if kinds := eventKinds(t, d, n.ID); !strings.HasPrefix(kinds, want) {
		t.Errorf("%s", kinds)
	}
}

func TestTaskBounds(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", ""))
	for range MaxOpenTasks {
		newTask(t, d, n.ID, nodeapi.TaskIntrospect)
	}
	if _, err := d.CreateTask(ctx, taskOf(n.ID, nodeapi.TaskIntrospect)); !errors.Is(err, ErrTooManyTasks) {
		t.Fatal(err)
	}
	end := func(list []Task) {
		for _, x := range list {
			c.advance(time.Millisecond)
			check(t, second(d.EndTask(ctx, n.ID, x.ID, TaskOutcome{Lease: x.Lease})))
		}
	}
	all := take(t, d, n.ID, nil, MaxOpenTasks)
	end(all[1:])
	oldest := all[0]
	newTask(t, d, n.ID, nodeapi.TaskIntrospect)
	end(take(t, d, n.ID, nil, 1))
	end([]Task{oldest})
	// What ended last is kept, although it was created first; what ended first is gone.
	check(t, second3(d.Task(ctx, oldest.ID)))
	if err := second3(d.Task(ctx, all[1].ID)); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if got := len(first(d.Tasks(ctx, Tasks{NodeID: n.ID, Limit: 1000}))); got != KeptTasks {
		t.Errorf("%d are kept", got)
	}
}

// TestTaskExpiry: a task that its node doesn't come for is given up, by whoever looks first; one that the node has isn't.
func TestTaskExpiry(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n, gone := first(d.CreateNode(ctx, "n", "")), first(d.CreateNode(ctx, "gone", ""))
	in := taskOf(n.ID, nodeapi.TaskSync)
	in.Until = c.now().Add(time.Hour)
	held := first(d.CreateTask(ctx, in))
	if !held.Until.Equal(in.Until) {
		t.Errorf("%+v", held)
	}
	in.ID = NewID()
	behind := first(d.CreateTask(ctx, in))
	endless := newTask(t, d, n.ID, nodeapi.TaskGC)
	for range MaxOpenTasks {
		in = taskOf(gone.ID, nodeapi.TaskIntrospect)
		in.Until = c.now().Add(2 * time.Hour)
		first(d.CreateTask(ctx, in))
	}
	if nodes := first(d.ExpireTasks(ctx)); nodes != 0 {
		t.Errorf("%d nodes", nodes)
	}
	c.advance(time.Hour - time.Second)
	got := take(t, d, n.ID, nil, 1)
	check(t, second(d.RenewTask(ctx, n.ID, held.ID, got[0].Lease)))
	c.advance(2 * time.Second)
	if nodes := first(d.ExpireTasks(ctx)); nodes != 1 {
		t.Errorf("%d nodes", nodes)
	}
	state := func(id string, state nodeapi.TaskState, code nodeapi.FailCode) {
		t.Helper()
		task, _, err := d.Task(ctx, id)
		if check(t, err); task.State != state || task.Code != code || task.State.Ended() != !task.EndedAt.IsZero() {
			t.Errorf("%+v", task)
		}
	}
	state(held.ID, nodeapi.TaskLeased, "")
	state(behind.ID, nodeapi.TaskFailed, nodeapi.FailExpired)
	if kinds := eventKinds(t, d, n.ID); !strings.HasPrefix(kinds, EventTaskExpired+" ") || strings.Count(kinds, EventTaskExpired) != 1 {
		t.Error(kinds)
	}
	// Its node goes on with it until it isn't heard of any more.
	c.advance(30 * time.Second)
	check(t, second(d.RenewTask(ctx, n.ID, held.ID, got[0].Lease)))
	if nodes := first(d.ExpireTasks(ctx)); nodes != 0 {
		t.Errorf("%d nodes", nodes)
	}
	c.advance(lease.Life)
	if nodes := first(d.ExpireTasks(ctx)); nodes != 1 {
		t.Errorf("%d nodes", nodes)
	}
	state(held.ID, nodeapi.TaskFailed, nodeapi.FailExpired)
	if err := second(d.EndTask(ctx, n.ID, held.ID, TaskOutcome{Lease: got[0].Lease})); !errors.Is(err, lease.ErrLost) {
		t.Error(err)
	}
	// A node that comes too late is given none of them, and one that asks for more than there is room for has room again.
	c.advance(time.Hour)
	check(t, second(d.CreateTask(ctx, taskOf(gone.ID, nodeapi.TaskSync))))
	if got := take(t, d, gone.ID, nil, 9); len(got) != 1 || got[0].Kind != nodeapi.TaskSync {
		t.Errorf("%+v", got)
	}
	if nodes := first(d.ExpireTasks(ctx)); nodes != 0 {
		t.Errorf("%d nodes", nodes)
	}
	state(endless.ID, nodeapi.TaskPending, "")
	// Without anyone's looking before, too.
	in = taskOf(n.ID, nodeapi.TaskIntrospect)
	in.Until = c.now().Add(time.Second)
	late := first(d.CreateTask(ctx, in))
	c.advance(time.Second)
	if got := take(t, d, n.ID, nil, 9); len(got) != 1 || got[0].ID != endless.ID {
		t.Errorf("%+v", got)
	}
	state(late.ID, nodeapi.TaskFailed, nodeapi.FailExpired)
}

func second3[A, B any](_ A, _ B, err error) error { return err }

// TestTaskAtOnce: many calls at the same moment, and each task goes to one of them.
func TestTaskAtOnce(t *testing.T) {
	d, _ := newDB(t)
	n := first(d.CreateNode(t.Context(), "n", ""))
	for range 20 {
		newTask(t, d, n.ID, nodeapi.TaskIntrospect)
	}
	newTask(t, d, n.ID, nodeapi.TaskSync)
	newTask(t, d, n.ID, nodeapi.TaskSync)
	var mu sync.Mutex
	seen := map[string]int{}
	syncs := 0
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			out, err := d.LeaseTasks(context.Background(), n.ID, nil, 3)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, x := range out.Tasks {
				seen[x.ID]++
				if x.Kind == nodeapi.TaskSync {
					syncs++
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != 21 || syncs != 1 {
		t.Errorf("%d tasks, %d that change the root", len(seen), syncs)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("task %s was given %d times", id, times)
		}
	}
}

// TestTaskWatch: who waits is woken by a new task, and by the end of one that others wait for.
func TestTaskWatch(t *testing.T) {
	d, _ := newDB(t)
	n := first(d.CreateNode(t.Context(), "n", ""))
	woken := d.Watch(t.Context(), TaskTopic(n.ID))
	newTask(t, d, n.ID, nodeapi.TaskSync)
	<-woken
	got := take(t, d, n.ID, nil, 1)
	check(t, second(d.RenewTask(t.Context(), n.ID, got[0].ID, got[0].Lease)))
	select {
	case <-woken:
		t.Error("a renewal wakes nobody")
	default:
	}
	check(t, second(d.EndTask(t.Context(), n.ID, got[0].ID, TaskOutcome{Lease: got[0].Lease})))
	<-woken
}

func TestNodeEvents(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n, other := first(d.CreateNode(ctx, "n", "")), first(d.CreateNode(ctx, "other", ""))
	event := func(i int) nodeapi.Event {
		return nodeapi.Event{ID: fmt.Sprint(i), At: c.now(), Kind: "task.done", Severity: nodeapi.SeverityInfo, Text: "done", Fields: map[string]string{"task": "x"}}
	}
	check(t, d.AddNodeEvents(ctx, n.ID, []nodeapi.Event{event(1), event(2)}))
	check(t, d.AddNodeEvents(ctx, n.ID, []nodeapi.Event{event(2), event(3), event(3)}))
	check(t, d.AddNodeEvents(ctx, other.ID, []nodeapi.Event{event(2)}))
	check(t, d.AddNodeEvents(ctx, n.ID, nil))
	list := first(d.NodeEvents(ctx, n.ID, 10))
	if len(list) != 3 || list[0].ID != "3" || len(first(d.NodeEvents(ctx, "", 10))) != 4 {
		t.Errorf("%+v", list)
	}
	if diff := cmp.Diff(NodeEvent{Event: event(1), NodeID: n.ID, NodeName: "n", ReceivedAt: c.now()}, list[2]); diff != "" {
		t.Error(diff)
	}
	if err := d.AddNodeEvents(ctx, "nobody", []nodeapi.Event{event(1)}); err == nil {
		t.Error("an event of nobody was kept")
	}
	c.advance(nodeEventLife)
	check(t, d.AddNodeEvents(ctx, n.ID, []nodeapi.Event{event(4)}))
	c.advance(time.Second)
	for i := range KeptNodeEvents / 100 {
		var batch []nodeapi.Event
		for j := range 100 {
			batch = append(batch, event(1000+100*i+j))
		}
		check(t, d.AddNodeEvents(ctx, n.ID, batch))
	}
	if list = first(d.NodeEvents(ctx, n.ID, 2*KeptNodeEvents)); len(list) != KeptNodeEvents || list[len(list)-1].ID != "1000" {
		t.Errorf("%d are kept", len(list))
	}
}

// TestPulse: a pulse counts for the state and the boot that are on file, and for no others.
func TestPulse(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "n", "amd64"))
	hb := nodeapi.Heartbeat{BootID: "boot", AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: "hash", ConfigDigest: "c", UptimeSeconds: 1}
	if first(d.Pulse(ctx, n.ID, hb.Pulse())) {
		t.Error("a state that was never told is known")
	}
	check(t, d.Heartbeat(ctx, Sender{NodeID: n.ID}, hb))
	c.advance(time.Minute)
	pulse := nodeapi.Pulse{BootID: "boot", UptimeSeconds: 61, LoadAverage: "1 2 3", MemoryFreeKB: 9, StateHash: "hash"}
	if !first(d.Pulse(ctx, n.ID, pulse)) {
		t.Error("the state isn't known")
	}
	report := first(d.Node(ctx, "n")).Report
	if !report.ReceivedAt.Equal(c.now()) || report.UptimeSeconds != 61 || report.MemoryFreeKB != 9 || report.AgentVersion != "1" {
		t.Errorf("%+v", report)
	}
	for _, alter := range []func(*nodeapi.Pulse){
		func(p *nodeapi.Pulse) { p.BootID = "another" },
		func(p *nodeapi.Pulse) { p.StateHash = "another" },
	} {
		c.advance(time.Minute)
		p := pulse
		p.UptimeSeconds = 5
		if alter(&p); first(d.Pulse(ctx, n.ID, p)) {
			t.Errorf("%+v is known", p)
		}
		if report = first(d.Node(ctx, "n")).Report; !report.ReceivedAt.Equal(c.now()) || report.UptimeSeconds != 61 {
			t.Errorf("%+v", report)
		}
	}
	// An agent that says no hash is asked for nothing, and known by none.
	hb.StateHash = ""
	check(t, d.Heartbeat(ctx, Sender{NodeID: n.ID}, hb))
	if first(d.Pulse(ctx, n.ID, pulse)) {
		t.Error("the state of before is known")
	}
}

// TestPulsesAtOnce: pulses that are written together are each one's own.
func TestPulsesAtOnce(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	hb := nodeapi.Heartbeat{BootID: "boot", AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: "hash"}
	const nodes = 40
	ids := make([]string, nodes)
	for i := range ids {
		n := first(d.CreateNode(ctx, fmt.Sprintf("n-%d", i), "amd64"))
		check(t, d.Heartbeat(ctx, Sender{NodeID: n.ID}, hb))
		ids[i] = n.ID
	}
	c.advance(time.Minute)
	var wg sync.WaitGroup
	for i, id := range ids {
		for range 3 {
			wg.Go(func() {
				p := hb.Pulse()
				if p.UptimeSeconds = int64(i); i%4 == 3 {
					p.StateHash = "another"
				}
				if known, err := d.Pulse(context.Background(), id, p); err != nil || known != (i%4 != 3) {
					t.Errorf("node %d: %v, %v", i, known, err)
				}
			})
		}
	}
	wg.Wait()
	for i, id := range ids {
		want := int64(i)
		if i%4 == 3 {
			want = 0
		}
		if report := first(d.Node(ctx, id)).Report; report.UptimeSeconds != want || !report.ReceivedAt.Equal(c.now()) {
			t.Errorf("node %d: %+v", i, report)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.Pulse(cancelled, ids[0], hb.Pulse()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestCalls: a node is called while its list has changed since it read it, and while tasks wait.
func TestCalls(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	n, other := first(d.CreateNode(ctx, "n", "amd64")), first(d.CreateNode(ctx, "other", "amd64"))
	expect := func(what string, want Calls) {
		t.Helper()
		if got := first(d.Calls(ctx, n.ID)); got != want {
			t.Errorf("%s: %+v", what, got)
		}
	}
	read := func() {
		t.Helper()
		now, _, err := d.ListNumber(ctx, n.ID)
		check(t, err)
		check(t, d.ListRead(ctx, n.ID, now))
	}
	expect("at first", Calls{})
	check(t, d.update(ctx, func(tx *txn) error {
		_, err := tx.Exec(ctx, "INSERT INTO modules (id, name, variety, category_position, priority, version_id, created_at) VALUES ('m', 'm', 'config', 1, 1, 'v', 0)")
		if err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO versions (id, module_id, version, repository, digest, reboot_required, created_at) VALUES ('v', 'm', '1', 'r', 'd', ?, 0)", false)
		}
		return err
	}))
	execute(t, d, "INSERT INTO assignments (node_id, module_id, created_at) VALUES (?, 'm', 0)", other.ID)
	expect("another's", Calls{})
	execute(t, d, "INSERT INTO assignments (node_id, module_id, created_at) VALUES (?, 'm', 0)", n.ID)
	expect("assigned", Calls{Reconcile: true})
	now, isRead, err := d.ListNumber(ctx, n.ID)
	check(t, err)
	execute(t, d, "UPDATE modules SET priority = 2")
	check(t, d.ListRead(ctx, n.ID, now))
	expect("changed while it was read", Calls{Reconcile: true})
	if isRead {
		t.Error("a list that wasn't read is read")
	}
	read()
	expect("read", Calls{})
	// What was read before doesn't count after it.
	check(t, d.ListRead(ctx, n.ID, now))
	expect("read", Calls{})
	execute(t, d, "UPDATE assignments SET downgrade_to = '1'")
	expect("changed", Calls{Reconcile: true})
	read()
	execute(t, d, "DELETE FROM assignments")
	expect("unassigned", Calls{Reconcile: true})
	read()
	newTask(t, d, n.ID, nodeapi.TaskSync)
	expect("a task", Calls{Tasks: true})
	take(t, d, n.ID, nil, 1)
	expect("leased", Calls{})
}
