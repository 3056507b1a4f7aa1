package platform_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// The model of delivery: two agents with the same certificate and a disk each do what docs/protocol.md says of tasks, while they crash, their
// requests and answers are lost, repeated and late, time jumps, and the operator asks and cancels, all of it in an order that
// a seed draws. Whatever happens: a task that may be done at most once has its effect at most once; one that is complete has had it; what
// was acknowledged stays so; a task that changes the root is nobody's while an earlier one hasn't ended; and once the world is kind
// again, every task ends.

// once says which kinds the model's agents do at most once.
func once(kind nodeapi.TaskKind) bool {
	return kind == nodeapi.TaskRollback || kind == nodeapi.TaskIntrospect
}

var modelKinds = []nodeapi.TaskKind{nodeapi.TaskSync, nodeapi.TaskRollback, nodeapi.TaskIntrospect, nodeapi.TaskRotate}

// note is what an agent's disk knows of a task.
type note struct {
	task  nodeapi.LeasedTask
	phase string // accepted, begun or done
	fail  nodeapi.FailCode
}

// modelAgent is one agent: its disk, and what it has in memory.
type modelAgent struct {
	name string
	disk map[string]*note
	// cleared are the tasks that the platform said may be begun, running those that are; a crash forgets both.
	cleared, running map[string]string // by task: the lease
}

func (a *modelAgent) crash() { a.cleared, a.running = map[string]string{}, map[string]string{} }

// world is everything of one schedule.
type world struct {
	t      *testing.T
	p      *platformtest.Platform
	client *http.Client
	rng    *rand.Rand
	node   *platformtest.Node
	agents []*modelAgent
	kind   bool // nothing is lost, repeated or late
	log    []string

	kinds   map[string]nodeapi.TaskKind
	created []string
	effects map[string]int
	acked   map[string]nodeapi.TaskState
	endedBy map[string]string // by task: the lease
	late    []func()
}

func (w *world) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.log {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) chance(n int) bool { return !w.kind && w.rng.IntN(n) == 0 }

// send makes a call, and returns the status and whether the answer arrived; 0 is a request that got lost.
func (w *world) send(path string, in, into any) (status int, heard bool) {
	w.t.Helper()
	if w.chance(8) {
		return 0, false
	}
	if w.chance(20) {
		w.late = append(w.late, func() { w.post(path, in, nil) })
		return 0, false
	}
	if w.chance(10) {
		w.post(path, in, nil)
	}
	status = w.post(path, in, into)
	return status, !w.chance(6)
}

func (w *world) post(path string, in, into any) int {
	w.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := w.client.Post(w.p.URL+path, "application/json", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var env nodeapi.Envelope
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		w.t.Fatal(err)
	}
	if into != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(env.Data, into); err != nil {
			w.t.Fatal(err)
		}
	}
	if resp.StatusCode >= 500 {
		w.fatal("%s: %d %s", path, resp.StatusCode, env.Error)
	}
	return resp.StatusCode
}

// lease asks for tasks and writes them down.
func (w *world) lease(a *modelAgent) {
	in := nodeapi.LeaseRequest{Max: 1 + w.rng.IntN(3), Holding: []string{}}
	for _, id := range w.noted(a) {
		in.Holding = append(in.Holding, a.disk[id].task.LeaseID)
	}
	var out nodeapi.LeaseResponse
	status, heard := w.send(nodeapi.PathTaskLease, in, &out)
	for _, l := range out.Tasks {
		w.say("%s: leased %.4s %s attempt %d by %.4s, heard %v", a.name, l.ID, l.Kind, l.Attempt, l.LeaseID, heard)
		w.inTurn(l)
	}
	if status != http.StatusOK || !heard {
		return
	}
	for _, l := range out.Tasks {
		n := a.disk[l.ID]
		if n == nil {
			a.disk[l.ID] = &note{task: l, phase: "accepted"}
			continue
		}
		// The same task again: what is known of it counts under the new lease.
		n.task = l
		delete(a.cleared, l.ID)
		if n.phase == "begun" && once(l.Kind) {
			// Also if it still runs: its lease was another's meanwhile, as far as anybody knows.
			delete(a.running, l.ID)
			n.phase, n.fail = "done", nodeapi.FailInterrupted
		}
	}
}

// inTurn checks of a leased task of the class root that those which were created before it have ended.
func (w *world) inTurn(l nodeapi.LeasedTask) {
	w.t.Helper()
	traits, _ := l.Kind.Traits()
	if traits.Class != nodeapi.ClassRoot {
		return
	}
	open := w.open()
	for _, id := range w.created {
		if id == l.ID {
			return
		}
		before, _ := w.kinds[id].Traits()
		if open[id] && before.Class == nodeapi.ClassRoot {
			w.fatal("task %s was leased before %s has ended", l.ID, id)
		}
	}
}

// open returns the tasks that haven't ended.
func (w *world) open() map[string]bool {
	w.t.Helper()
	list, err := w.p.Operator.Tasks(w.t.Context(), operatorclient.Listing{Node: w.node.ID, Open: true})
	if err != nil {
		w.t.Fatal(err)
	}
	open := map[string]bool{}
	roots := 0
	for _, t := range list.Tasks {
		open[t.ID] = true
		traits, _ := nodeapi.TaskKind(t.Kind).Traits()
		if traits.Class == nodeapi.ClassRoot && (t.State == string(nodeapi.TaskLeased) || t.State == string(nodeapi.TaskCancelling)) {
			roots++
		}
	}
	if roots > 1 {
		w.fatal("%d tasks that change the root are leased", roots)
	}
	return open
}

// work takes one step of one task.
func (w *world) work(a *modelAgent, id string, n *note) {
	lease := n.task.LeaseID
	switch {
	case n.phase == "done":
		w.report(a, id, n)
	case n.phase == "accepted" && once(n.task.Kind) && n.task.Attempt > 1:
		n.phase, n.fail = "done", nodeapi.FailInterrupted
	case n.phase == "begun" && a.running[id] == "" && once(n.task.Kind):
		n.phase, n.fail = "done", nodeapi.FailInterrupted
	case a.running[id] != "":
		// The effect, and what comes of it, on the disk: a crash may be in between.
		w.effects[id]++
		w.say("%s: effect of %.4s", a.name, id)
		if once(n.task.Kind) && w.effects[id] > 1 {
			w.fatal("task %s, %s, was done %d times", id, n.task.Kind, w.effects[id])
		}
		delete(a.running, id)
		if w.chance(6) {
			w.say("%s: crashed after the effect of %.4s", a.name, id)
			a.crash()
			return
		}
		n.phase, n.fail = "done", ""
	case a.cleared[id] == lease:
		n.phase = "begun"
		a.running[id] = lease
	default:
		var out nodeapi.TaskStanding
		status, heard := w.send(nodeapi.TaskPath(nodeapi.PathTaskRenew, id), nodeapi.RenewTask{LeaseID: lease}, &out)
		switch {
		case !heard:
		case status == http.StatusOK && out.Cancel && n.phase == "accepted":
			n.phase, n.fail = "done", nodeapi.FailCancelled
		case status == http.StatusOK:
			a.cleared[id] = lease
		default:
			// Lost, and nothing was done under it. The task comes again, to this agent or another.
			delete(a.disk, id)
		}
	}
}

// report tells the platform what became of a task, and forgets it once the platform has it or doesn't want it.
func (w *world) report(a *modelAgent, id string, n *note) {
	path, state := nodeapi.PathTaskComplete, nodeapi.TaskComplete
	var in any = nodeapi.CompleteTask{LeaseID: n.task.LeaseID}
	if n.fail != "" {
		path, state = nodeapi.PathTaskFail, nodeapi.TaskFailed
		in = nodeapi.FailTask{LeaseID: n.task.LeaseID, Code: n.fail, Error: "no"}
	}
	var out nodeapi.TaskEnd
	status, heard := w.send(nodeapi.TaskPath(path, id), in, &out)
	w.say("%s: %.4s is %s %s by %.4s: %d %s, heard %v", a.name, id, state, n.fail, n.task.LeaseID, status, out.State, heard)
	if status == http.StatusOK {
		if out.State != state && (state != nodeapi.TaskFailed || out.State != nodeapi.TaskCancelled) {
			w.fatal("task %s is %s, and was acknowledged as %s", id, state, out.State)
		}
		w.acked[id], w.endedBy[id] = out.State, n.task.LeaseID
	}
	if status != 0 && status != http.StatusOK && w.endedBy[id] == n.task.LeaseID {
		w.fatal("the end of task %s was acknowledged, and the same end isn't: %d", id, status)
	}
	if !heard {
		return
	}
	// By 409 it isn't this agent's any more, by now. Its result stays for when it comes again, unless another's lease ended it.
	if status == http.StatusOK || w.ended(id) {
		delete(a.disk, id)
	}
}

// ended stands for what an agent finds out by no longer being given a task; the model looks.
func (w *world) ended(id string) bool {
	w.t.Helper()
	d, err := w.p.Operator.Task(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return nodeapi.TaskState(d.Task.State).Ended()
}

// noted returns the tasks on an agent's disk in the order of their creation.
func (w *world) noted(a *modelAgent) []string {
	var ids []string
	for _, id := range w.created {
		if a.disk[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// step lets something happen.
func (w *world) step() {
	a := w.agents[w.rng.IntN(len(w.agents))]
	switch n := w.rng.IntN(100); {
	case n < 8 && len(w.created) < 12:
		kind := modelKinds[w.rng.IntN(len(modelKinds))]
		task := ask(w.t, w.p, w.node.ID, operatorapi.TaskCreate{Kind: string(kind)})
		w.kinds[task.ID], w.created = kind, append(w.created, task.ID)
		w.say("created %.4s %s", task.ID, kind)
	case n < 10 && len(w.created) > 0:
		id := w.created[w.rng.IntN(len(w.created))]
		w.say("cancel %.4s", id)
		if _, err := w.p.Operator.CancelTask(w.t.Context(), id); err != nil {
			w.t.Fatal(err)
		}
	case n < 14:
		w.say("%s: crashed", a.name)
		a.crash()
	case n < 20:
		d := time.Duration(w.rng.IntN(80)) * time.Second
		w.say("%s later", d)
		w.p.Clock.Advance(d)
	case n < 24 && len(w.late) > 0:
		w.say("a late request")
		deliver := w.late[0]
		w.late = w.late[1:]
		deliver()
	case n < 40:
		w.lease(a)
	default:
		if noted := w.noted(a); len(noted) > 0 {
			id := noted[w.rng.IntN(len(noted))]
			w.work(a, id, a.disk[id])
		}
	}
}

// check holds what the platform says against what has happened.
func (w *world) check(final bool) {
	w.t.Helper()
	list, err := w.p.Operator.Tasks(w.t.Context(), operatorclient.Listing{Node: w.node.ID})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range list.Tasks {
		state, kind := nodeapi.TaskState(t.State), w.kinds[t.ID]
		if was, acked := w.acked[t.ID]; acked && was != state {
			w.fatal("task %s was acknowledged as %s, and is %s", t.ID, was, state)
		}
		if state == nodeapi.TaskComplete && w.effects[t.ID] == 0 {
			w.fatal("task %s, %s, is complete and was never done", t.ID, kind)
		}
		if t.Code == string(nodeapi.FailInterrupted) && !once(kind) {
			w.fatal("task %s, %s, was interrupted, and may be done again", t.ID, kind)
		}
		if !final {
			continue
		}
		if !state.Ended() {
			w.fatal("task %s, %s, is still %s: %+v", t.ID, kind, state, t)
		}
		if state == nodeapi.TaskFailed && t.Code != string(nodeapi.FailInterrupted) && t.Code != string(nodeapi.FailAttempts) {
			w.fatal("task %s, %s, failed: %s %s", t.ID, kind, t.Code, t.Error)
		}
		if state == nodeapi.TaskFailed && t.BegunAt == nil {
			w.fatal("task %s, %s, failed, and was never begun: %s", t.ID, kind, t.Error)
		}
	}
	if final && list.Count != len(w.created) {
		w.fatal("%d tasks of %d are there", list.Count, len(w.created))
	}
}

// settle is the kind world: nothing is lost, the second agent is gone, and there is time.
func (w *world) settle() {
	w.kind = true
	for _, deliver := range w.late {
		deliver()
	}
	w.late = nil
	a := w.agents[0]
	for range 40 {
		w.p.Clock.Advance(2 * time.Second)
		w.lease(a)
		for range 4 {
			for _, id := range w.noted(a) {
				w.work(a, id, a.disk[id])
			}
		}
		if len(w.open()) == 0 {
			return
		}
	}
}

// schedules is how many seeds are tried, each of so many steps; POWERNODE_MODEL_SCHEDULES has more.
const schedules, scheduleSteps = 10, 220

func TestTaskModel(t *testing.T) {
	p := platformtest.Start(t)
	count := schedules
	if text := os.Getenv("POWERNODE_MODEL_SCHEDULES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	ends := map[string]int{}
	for seed := range count {
		w := newWorld(t, p, uint64(seed))
		for range scheduleSteps {
			w.step()
			if w.rng.IntN(8) == 0 {
				w.check(false)
			}
		}
		w.settle()
		w.check(true)
		list, err := p.Operator.Tasks(t.Context(), operatorclient.Listing{Node: w.node.ID})
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range list.Tasks {
			ends[task.State+" "+task.Code]++
		}
	}
	t.Logf("%d schedules ended with %v", count, ends)
	if ends["complete "] == 0 {
		t.Error("nothing was done: the schedules try nothing")
	}
}

func newWorld(t *testing.T, p *platformtest.Platform, seed uint64) *world {
	t.Helper()
	node := p.Enroll(fmt.Sprintf("node-%d", seed), "amd64")
	client := p.Client(node)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(client.CloseIdleConnections)
	w := &world{
		t: t, p: p, client: client, node: node, rng: rand.New(rand.NewPCG(seed, 6)), //nolint:gosec // a schedule that can be had again
		kinds: map[string]nodeapi.TaskKind{}, effects: map[string]int{}, acked: map[string]nodeapi.TaskState{}, endedBy: map[string]string{},
		log: []string{fmt.Sprintf("seed %d", seed)},
	}
	for i := range 1 + int(seed%2) {
		a := &modelAgent{name: fmt.Sprintf("agent %d", i), disk: map[string]*note{}}
		a.crash()
		w.agents = append(w.agents, a)
	}
	return w
}
