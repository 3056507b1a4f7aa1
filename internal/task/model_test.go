package task

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// This file plays an agent and a platform against each other in random schedules: processes die at any step, requests and answers are
// lost or late, leases expire, disks are full, operators cancel, and a second machine runs from a copy of the first one's disk.

// The kinds of the model's handlers.
const (
	kindOnce   nodeapi.TaskKind = "once"   // at most once, of class root
	kindAgain  nodeapi.TaskKind = "again"  // idempotent, of class root
	kindResume nodeapi.TaskKind = "resume" // resumable, beside
	kindLook   nodeapi.TaskKind = "look"   // idempotent, beside
	kindBoot   nodeapi.TaskKind = "boot"   // restarts the machine, at most once, of class root
)

var modelHandlers = []Handler{
	{Kind: kindOnce, Class: nodeapi.ClassRoot, Again: AtMostOnce, Timeout: 10 * time.Minute},
	{Kind: kindAgain, Class: nodeapi.ClassRoot, Again: Idempotent, Timeout: 10 * time.Minute},
	{Kind: kindResume, Class: nodeapi.ClassBeside, Again: Resumable, Timeout: 10 * time.Minute},
	{Kind: kindLook, Class: nodeapi.ClassBeside, Again: Idempotent, Timeout: 10 * time.Minute},
	{Kind: kindBoot, Class: nodeapi.ClassRoot, Again: AtMostOnce, Timeout: 10 * time.Minute},
}

const (
	modelLease    = time.Minute
	modelAttempts = 5
)

// job is a task on the model's platform.
type job struct {
	id      string
	kind    nodeapi.TaskKind
	state   nodeapi.TaskState
	lease   string
	begun   bool
	expires time.Time
	attempt int
	outcome *Outcome
	// effects are how often a handler did its work, acks how often an outcome was accepted.
	effects, acks int
}

// world is everything.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	jobs   []*job
	leases int
	queue  []happening
	agents []*agent
	// calm says that nothing goes wrong any more, but that answers are lost with the probability loss.
	calm bool
	loss float64
	log  []string
}

// happening is something that will happen.
type happening struct {
	at time.Time
	do func()
}

// agent is a machine: a disk, and at times a process.
type agent struct {
	w    *world
	name string
	disk map[string]Record
	desk *Desk
	life int // counts processes
	boot int
	wake time.Time
	// running are the runs of this process, by the task's ID.
	running map[string]*Handler
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, w.now.Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	if len(w.log) > 400 {
		w.log = w.log[len(w.log)-400:]
	}
	for _, line := range w.log {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) chance(p float64) bool { return !w.calm && w.rng.Float64() < p }

func (w *world) later(most time.Duration) time.Time {
	return w.now.Add(time.Duration(w.rng.Int64N(int64(most))))
}

func (w *world) schedule(at time.Time, do func()) { w.queue = append(w.queue, happening{at, do}) }

// settle has leases expire.
func (w *world) settle() {
	for _, j := range w.jobs {
		if (j.state == nodeapi.TaskLeased || j.state == nodeapi.TaskCancelling) && !w.now.Before(j.expires) {
			w.takeBack(j)
		}
	}
}

func (w *world) takeBack(j *job) {
	cancelling := j.state == nodeapi.TaskCancelling
	j.state, j.lease = nodeapi.TaskPending, ""
	if j.begun {
		j.attempt++
	}
	j.begun = false
	switch {
	case cancelling:
		j.state = nodeapi.TaskCancelled
	case j.attempt > modelAttempts:
		j.state = nodeapi.TaskFailed
	}
}

// give answers a call for tasks.
func (w *world) give(most int, holding []string) []Task {
	w.settle()
	var given []Task
	root := false
	for _, j := range w.jobs {
		if (j.state == nodeapi.TaskLeased || j.state == nodeapi.TaskCancelling) && !slices.Contains(holding, j.lease) {
			w.takeBack(j)
		}
	}
	for _, j := range w.jobs {
		if j.state.Ended() {
			continue
		}
		isRoot := j.kind == kindOnce || j.kind == kindAgain || j.kind == kindBoot
		if j.state == nodeapi.TaskPending && (!isRoot || !root) && len(given) < most {
			w.leases++
			j.state, j.lease, j.expires, j.begun = nodeapi.TaskLeased, "lease-"+strconv.Itoa(w.leases), w.now.Add(modelLease), false
			given = append(given, Task{ID: j.id, Lease: j.lease, Kind: j.kind, Attempt: j.attempt, LeaseTime: modelLease})
		}
		root = root || isRoot
	}
	return given
}

func (w *world) job(id string) *job {
	return w.jobs[slices.IndexFunc(w.jobs, func(j *job) bool { return j.id == id })]
}

func (w *world) renew(id, lease string) Answer {
	w.settle()
	j := w.job(id)
	if j.lease != lease || j.state.Ended() || lease == "" {
		return Answer{Verdict: Lost}
	}
	j.expires, j.begun = w.now.Add(modelLease), true
	return Answer{Verdict: OK, LeaseTime: modelLease, Cancel: j.state == nodeapi.TaskCancelling}
}

func (w *world) end(id, lease string, o Outcome) Answer {
	w.settle()
	j := w.job(id)
	switch {
	case j.state.Ended() && j.lease == lease && j.outcome != nil && j.outcome.Success == o.Success:
		return Answer{Verdict: OK}
	case j.lease != lease || j.state.Ended():
		return Answer{Verdict: Lost}
	}
	j.acks++
	j.outcome = &o
	switch {
	case o.Success:
		j.state = nodeapi.TaskComplete
		// A machine that restarted by itself, just before it was told to, did what was asked for.
		if j.effects == 0 && j.kind != kindBoot {
			w.fail("%s is complete, and was never done", id)
		}
	case o.Code == nodeapi.FailCancelled:
		j.state = nodeapi.TaskCancelled
	default:
		j.state = nodeapi.TaskFailed
	}
	return Answer{Verdict: OK}
}

// start makes a process of a machine.
func (a *agent) start() {
	a.life++
	a.running = map[string]*Handler{}
	a.desk = NewDesk(a.w.now, Settings{
		Handlers: modelHandlers, Boot: "boot-" + strconv.Itoa(a.boot), Beside: 2, Chance: a.w.rng.Float64,
	}, slices.SortedFunc(maps.Values(a.disk), func(x, y Record) int { return int(x.Seq) - int(y.Seq) }))
	a.wake = a.w.now
	a.w.say("%s starts", a.name)
}

// die ends a process: by kill -9, or with the machine.
func (a *agent) die(machine bool) {
	a.w.say("%s dies", a.name)
	a.desk, a.running = nil, nil
	if machine {
		a.boot++
	}
	a.w.schedule(a.w.later(40*time.Second), a.start)
}

// alive wraps what happens to a process: nothing does when that process is gone.
func (a *agent) alive(do func()) func() {
	life := a.life
	return func() {
		if a.desk != nil && a.life == life {
			do()
			a.wake = a.w.now
		}
	}
}

// call sends a request, and has its answer come back; either may be late, or lost.
func (a *agent) call(what string, request func() func(), lost func()) {
	w := a.w
	if w.chance(0.06) {
		w.say("%s: %s is lost", a.name, what)
		w.schedule(w.now.Add(30*time.Second), a.alive(lost))
		return
	}
	late := 50 * time.Millisecond
	if w.chance(0.05) {
		late = 2 * time.Minute // beyond the lease, and beyond the agent's patience
	}
	at := w.later(late)
	answered := false
	w.schedule(at, func() {
		answer := request()
		if w.chance(0.06) || w.rng.Float64() < w.loss {
			w.say("%s: the answer to %s is lost", a.name, what)
			return
		}
		w.schedule(w.later(50*time.Millisecond), a.alive(func() {
			if !answered {
				answered = true
				answer()
			}
		}))
	})
	w.schedule(w.now.Add(30*time.Second), a.alive(func() {
		if !answered {
			answered = true
			lost()
		}
	}))
}

// step has a process do what is to be done now.
func (a *agent) step() {
	w := a.w
	for n := 0; ; n++ {
		if n > 1000 {
			w.fail("%s never comes to rest", a.name)
		}
		act := a.desk.Next(w.now)
		id, lease := act.Record.Task.ID, act.Record.Task.Lease
		if act.Do != Wait {
			w.say("%s: %d %s %s %s run %d", a.name, act.Do, id, lease, act.Record.Phase, act.Record.Runs)
		}
		if w.chance(0.004) {
			// Before it is done, or after.
			if act.Do == Save && w.chance(0.5) {
				a.disk[id] = act.Record
			}
			a.die(w.chance(0.3))
			return
		}
		switch act.Do {
		case Wait:
			a.wake = act.At
			return
		case Stop:
			w.fail("%s stops", a.name)
		case Save:
			if w.chance(0.02) {
				a.desk.Saved(w.now, id, false, errors.New("the disk is full"))
				continue
			}
			a.disk[id] = act.Record
			a.desk.Saved(w.now, id, false, nil)
		case Forget:
			delete(a.disk, id)
			a.desk.Saved(w.now, id, true, nil)
		case Lease:
			asked := w.now
			a.call("a call for tasks", func() func() {
				given := w.give(act.Max, act.Holding)
				w.say("the platform gives %s %d tasks", a.name, len(given))
				return func() {
					if err := a.desk.Leased(w.now, asked, given, Answer{Verdict: OK}); err != nil {
						w.fail("%v", err)
					}
				}
			}, func() {
				if err := a.desk.Leased(w.now, asked, nil, Answer{}); err != nil {
					w.fail("%v", err)
				}
			})
		case Renew, Tell:
			asked := w.now
			a.call("a renewal", func() func() {
				answer := w.renew(id, lease)
				return func() { a.desk.Answered(w.now, asked, id, lease, answer) }
			}, func() { a.desk.Answered(w.now, asked, id, lease, Answer{}) })
		case Report:
			outcome := *act.Record.Outcome
			if onDisk := a.disk[id]; onDisk.Outcome == nil || onDisk.Outcome.Success != outcome.Success {
				w.fail("%s: the outcome of %s is told, and not on the disk", a.name, id)
			}
			a.call("a report", func() func() {
				answer := w.end(id, lease, outcome)
				return func() { a.desk.Reported(w.now, id, lease, answer) }
			}, func() { a.desk.Reported(w.now, id, lease, Answer{}) })
		case Begin:
			a.begin(act)
		case End:
			w.schedule(w.later(5*time.Second), a.alive(func() { a.finish(id, act.Cause) }))
		case Restart:
			w.job(id).effects++
			if w.job(id).kind != kindBoot || a.disk[id].Phase != Restarting || !w.job(id).begun && w.job(id).lease == lease {
				w.fail("%s: a restart that nobody asked for, or that the platform hasn't heard of", a.name)
			}
			w.schedule(w.later(20*time.Second), a.alive(func() { a.die(true) }))
		}
	}
}

// begin begins a run: its effect happens at some time in it.
func (a *agent) begin(act Action) {
	w, id := a.w, act.Record.Task.ID
	onDisk := a.disk[id]
	if onDisk.Phase != Begun || onDisk.Runs != act.Record.Runs {
		w.fail("%s: %s is begun, and the disk says %+v", a.name, id, onDisk)
	}
	if a.running[id] != nil {
		w.fail("%s: %s is begun twice at the same time", a.name, id)
	}
	root, beside := 0, 0
	a.running[id] = &act.Handler
	for _, h := range a.running {
		if h.Class == nodeapi.ClassRoot {
			root++
		} else {
			beside++
		}
	}
	if root > 1 || beside > 2 {
		w.fail("%s: %d of class root and %d beside run", a.name, root, beside)
	}
	length := 200 * time.Millisecond
	if w.chance(0.3) {
		length = 4 * time.Minute
	}
	end := w.later(length)
	run := a.running[id]
	w.schedule(w.now.Add(end.Sub(w.now)/2), a.alive(func() {
		if a.running[id] == run && run.Kind != kindBoot {
			w.say("%s: %s has its effect", a.name, id)
			w.job(id).effects++
		}
	}))
	w.schedule(end, a.alive(func() {
		if a.running[id] == run {
			a.finish(id, nil)
		}
	}))
}

func (a *agent) finish(id string, err error) {
	if a.running[id] != nil {
		f := Finish{Err: err, Restart: err == nil && a.running[id].Kind == kindBoot}
		delete(a.running, id)
		a.desk.Finished(a.w.now, id, f)
	}
}

// run lets the world go on until then.
func (w *world) run(until time.Time) {
	for {
		next := until
		for _, h := range w.queue {
			if h.at.Before(next) {
				next = h.at
			}
		}
		for _, a := range w.agents {
			if a.desk != nil && !a.wake.IsZero() && a.wake.Before(next) {
				next = a.wake
			}
		}
		if next.After(w.now) {
			w.now = next
		}
		if !w.now.Before(until) {
			return
		}
		if i := slices.IndexFunc(w.queue, func(h happening) bool { return !h.at.After(w.now) }); i >= 0 {
			do := w.queue[i].do
			w.queue = slices.Delete(w.queue, i, i+1)
			do()
		}
		for _, a := range w.agents {
			if a.desk != nil && !a.wake.IsZero() && !a.wake.After(w.now) {
				a.step()
			}
		}
	}
}

func (w *world) agent(name string, disk map[string]Record, boot int) *agent {
	a := &agent{w: w, name: name, disk: maps.Clone(disk), boot: boot}
	if a.disk == nil {
		a.disk = map[string]Record{}
	}
	w.agents = append(w.agents, a)
	a.start()
	return a
}

// TestModel: whatever happens, a task that may be done at most once is, no task is complete that wasn't done, and once
// nothing goes wrong any more every task comes to an end.
func TestModel(t *testing.T) {
	schedules := 120
	if n, err := strconv.Atoi(os.Getenv("TASK_MODEL_SCHEDULES")); err == nil {
		schedules = n
	}
	counts := map[string]int{}
	for seed := range uint64(schedules) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		w.say("schedule %d", seed)
		begin := w.now
		first := w.agent("first", nil, 0)
		for i := range 12 {
			kind := modelHandlers[w.rng.IntN(len(modelHandlers))].Kind
			w.schedule(w.later(5*time.Minute), func() {
				j := &job{id: fmt.Sprintf("task-%d", i), kind: kind, state: nodeapi.TaskPending, attempt: 1}
				w.jobs = append(w.jobs, j)
				if w.chance(0.1) {
					w.schedule(w.later(30*time.Second), func() {
						switch j.state {
						case nodeapi.TaskPending:
							j.state = nodeapi.TaskCancelled
						case nodeapi.TaskLeased:
							j.state = nodeapi.TaskCancelling
						}
					})
				}
			})
		}
		if seed%4 == 0 {
			w.schedule(w.later(5*time.Minute), func() {
				w.agent("copy", first.disk, 1000)
			})
		}
		w.run(begin.Add(20 * time.Minute))
		w.calm = true
		w.run(begin.Add(80 * time.Minute))
		for _, j := range w.jobs {
			counts[string(j.kind)+" "+string(j.state)]++
			switch {
			case !j.state.Ended():
				w.fail("schedule %d: %s (%s) is %s after an hour of calm", seed, j.id, j.kind, j.state)
			case (j.kind == kindOnce || j.kind == kindBoot) && j.effects > 1:
				w.fail("schedule %d: %s was done %d times", seed, j.id, j.effects)
			case j.state == nodeapi.TaskComplete && j.effects == 0 && j.kind != kindBoot, j.acks > 1:
				w.fail("schedule %d: %s is %s, done %d times and reported %d times", seed, j.id, j.state, j.effects, j.acks)
			}
		}
	}
	t.Log(counts)
	for _, want := range []string{"once complete", "once failed", "once cancelled", "again complete", "boot complete", "boot failed", "resume complete", "look complete"} {
		if counts[want] == 0 {
			t.Errorf("no task is %s in %d schedules", want, schedules)
		}
	}
}

// TestLostAnswersAlone: where nothing but answers is lost, every task is done exactly once, but for one whose beginning the
// platform can't be sure of.
func TestLostAnswersAlone(t *testing.T) {
	complete := 0
	for seed := range uint64(100) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 9)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), calm: true, loss: 0.4}
		w.agent("agent", nil, 0)
		for i := range 8 {
			w.jobs = append(w.jobs, &job{id: fmt.Sprintf("task-%d", i), kind: modelHandlers[i%4].Kind, state: nodeapi.TaskPending, attempt: 1})
		}
		w.run(w.now.Add(30 * time.Minute))
		w.loss = 0
		w.run(w.now.Add(30 * time.Minute))
		for _, j := range w.jobs {
			unsure := j.kind == kindOnce && j.state == nodeapi.TaskFailed && j.effects == 0 && j.outcome.Code == nodeapi.FailInterrupted
			if !unsure && (j.state != nodeapi.TaskComplete || j.effects != 1 || j.acks != 1) {
				w.fail("schedule %d: %s (%s) is %s, done %d times and reported %d times", seed, j.id, j.kind, j.state, j.effects, j.acks)
			}
			if !unsure {
				complete++
			}
		}
	}
	if complete < 600 {
		t.Errorf("%d of 800 tasks are complete", complete)
	}
	t.Logf("%d of 800 tasks are complete", complete)
}
