package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/task"
)

// The agent's client is the platform of both loops.
var (
	_ TaskPlatform  = (*nodeclient.Client)(nil)
	_ EventPlatform = (*nodeclient.Client)(nil)
	_ EventQueue    = (*event.Queue)(nil)
)

// offer is a task on the platform of the tests.
type offer struct {
	nodeapi.LeasedTask
	state   nodeapi.TaskState
	expires time.Time
	begun   bool
	output  string
	percent int
	message string
	result  string
	code    nodeapi.FailCode
	failure string
}

// tasking is a platform that leases tasks and takes events, as a test tells it to.
type tasking struct {
	mu     sync.Mutex
	offers []*offer
	leases int
	wake   chan struct{}
	// down is what every call gets, if not nil; lose loses the answer of every so manieth call that was done.
	down  error
	lose  int
	calls int
	// asked are the calls for tasks; life is how long a lease is good.
	asked  []time.Time
	life   time.Duration
	events []nodeapi.Event
	seen   map[string]bool
	refuse string // the kind of events that isn't taken
}

func newTasking() *tasking {
	return &tasking{wake: make(chan struct{}), life: time.Minute, seen: map[string]bool{}}
}

func (p *tasking) with(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
}

// add makes a task, and wakes whoever waits for one.
func (p *tasking) add(id string, kind nodeapi.TaskKind, options string) *offer {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &offer{state: nodeapi.TaskPending, LeasedTask: nodeapi.LeasedTask{
		ID: id, Kind: kind, Options: []byte(options), Attempt: 1, CreatedAt: time.Now(), DeadlineSeconds: 3600, RequestedBy: "ops",
	}}
	p.offers = append(p.offers, o)
	p.stir()
	return o
}

// stir wakes whoever waits for a task.
func (p *tasking) stir() {
	close(p.wake)
	p.wake = make(chan struct{})
}

func away(status int, after time.Duration) error {
	return fault.New(fault.Retry, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: status, RetryAfter: after})
}

func (p *tasking) answer() error {
	p.calls++
	if p.lose > 0 && p.calls%p.lose == 0 {
		return fault.New(fault.Retry, fault.Platform, "", "call: %w", io.ErrUnexpectedEOF)
	}
	return nil
}

func (p *tasking) LeaseTasks(ctx context.Context, r nodeapi.LeaseRequest) (*nodeapi.LeaseResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	if p.down != nil {
		return nil, p.down
	}
	timeout := time.After(time.Duration(r.WaitSeconds) * time.Second)
	for {
		if given := p.give(r.Max, r.Holding); len(given) > 0 {
			return &nodeapi.LeaseResponse{Tasks: given}, p.answer()
		}
		wake := p.wake
		p.mu.Unlock()
		var end error
		late := false
		select {
		case <-wake:
		case <-timeout:
			late = true
		case <-ctx.Done():
			end = ctx.Err()
		}
		p.mu.Lock()
		if late || end != nil {
			return &nodeapi.LeaseResponse{}, end
		}
	}
}

func (p *tasking) settle() {
	for _, o := range p.offers {
		if o.state == nodeapi.TaskLeased && !time.Now().Before(o.expires) {
			p.takeBack(o)
		}
	}
}

func (p *tasking) takeBack(o *offer) {
	o.state, o.LeaseID = nodeapi.TaskPending, ""
	if o.begun {
		o.Attempt++
	}
	o.begun = false
}

func (p *tasking) give(most int, holding []string) []nodeapi.LeasedTask {
	p.settle()
	var given []nodeapi.LeasedTask
	root := false
	for _, o := range p.offers {
		if o.state == nodeapi.TaskLeased && !slices.Contains(holding, o.LeaseID) {
			p.takeBack(o)
		}
		if o.state.Ended() {
			continue
		}
		traits, _ := o.Kind.Traits()
		isRoot := traits.Class == nodeapi.ClassRoot
		if o.state == nodeapi.TaskPending && len(given) < most && (!isRoot || !root) {
			p.leases++
			o.state, o.LeaseID, o.expires, o.LeaseSeconds = nodeapi.TaskLeased, fmt.Sprint("lease-", p.leases), time.Now().Add(p.life), int(p.life.Seconds())
			given = append(given, o.LeasedTask)
		}
		root = root || isRoot
	}
	return given
}

// under finds a task by the lease in force.
func (p *tasking) under(id, lease string) (*offer, error) {
	if p.down != nil {
		return nil, p.down
	}
	p.settle()
	i := slices.IndexFunc(p.offers, func(o *offer) bool { return o.ID == id })
	if i < 0 {
		return nil, fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: http.StatusNotFound, Code: nodeapi.CodeNotFound})
	}
	if o := p.offers[i]; lease == o.LeaseID {
		return o, nil
	}
	return nil, fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: http.StatusConflict, Code: nodeapi.CodeLeaseLost})
}

func (p *tasking) RenewTask(ctx context.Context, id string, r nodeapi.RenewTask) (*nodeapi.TaskStanding, error) {
	return p.TaskProgress(ctx, id, nodeapi.TaskProgress{LeaseID: r.LeaseID})
}

func (p *tasking) TaskProgress(_ context.Context, id string, r nodeapi.TaskProgress) (*nodeapi.TaskStanding, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, err := p.under(id, r.LeaseID)
	if err != nil {
		return nil, err
	}
	o.expires, o.begun = time.Now().Add(p.life), true
	if r.Percent > 0 {
		o.percent, o.message = r.Percent, r.Message
	}
	if int(r.OutputOffset) <= len(o.output) && int(r.OutputOffset)+len(r.Output) > len(o.output) {
		o.output = o.output[:r.OutputOffset] + r.Output
	}
	return &nodeapi.TaskStanding{LeaseSeconds: int(p.life.Seconds())}, p.answer()
}

func (p *tasking) CompleteTask(_ context.Context, id string, r nodeapi.CompleteTask) (*nodeapi.TaskEnd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, err := p.under(id, r.LeaseID)
	if err != nil {
		return nil, err
	}
	o.state, o.result = nodeapi.TaskComplete, string(r.Result)
	p.stir()
	return &nodeapi.TaskEnd{State: o.state}, p.answer()
}

func (p *tasking) FailTask(_ context.Context, id string, r nodeapi.FailTask) (*nodeapi.TaskEnd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, err := p.under(id, r.LeaseID)
	if err != nil {
		return nil, err
	}
	o.state, o.code, o.failure, o.result = nodeapi.TaskFailed, r.Code, r.Error, string(r.Result)
	p.stir()
	return &nodeapi.TaskEnd{State: o.state}, p.answer()
}

func (p *tasking) Events(_ context.Context, events []nodeapi.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down != nil {
		p.calls++
		return p.down
	}
	for _, e := range events {
		if e.Kind == p.refuse {
			return fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: http.StatusUnprocessableEntity, Code: nodeapi.CodeEventRefused})
		}
	}
	for _, e := range events {
		if !p.seen[e.ID] {
			p.seen[e.ID] = true
			p.events = append(p.events, e)
		}
	}
	return p.answer()
}

// see returns a task as it is now.
func (p *tasking) see(o *offer) offer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *o
}

func (p *tasking) state(o *offer) nodeapi.TaskState { return p.see(o).state }

// machine is a node's disk and what its handlers have done.
type machine struct {
	dir string
	log *journal

	mu   sync.Mutex
	runs map[string]int
	ends map[string]error // why a run's context ended
}

func newMachine(dir string) *machine {
	return &machine{dir: dir, log: &journal{}, runs: map[string]int{}, ends: map[string]error{}}
}

func (m *machine) ran(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs[id]
}

// wasToldToEnd tells whether a run's context ended for that cause.
func (m *machine) wasToldToEnd(cause error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, err := range m.ends {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// handlers are: gc, which takes as long as its ID says and can be done again; attach, which is done once; introspect, which reads.
func (m *machine) handlers() []task.Handler {
	work := func(ctx context.Context, t task.Task, out task.Out) (task.Result, error) {
		m.mu.Lock()
		m.runs[t.ID]++
		m.mu.Unlock()
		_, length, _ := strings.Cut(t.ID, "-")
		takes, err := time.ParseDuration(length)
		if err != nil {
			takes = 100 * time.Millisecond
		}
		fmt.Fprintf(out, "run %d of %s\n", t.Run, t.ID)
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			m.mu.Lock()
			m.ends[t.ID] = context.Cause(ctx)
			m.mu.Unlock()
			return task.Result{}, context.Cause(ctx)
		}
		out.Progress(100, "done")
		return task.Result{Data: map[string]int{"run": t.Run}}, nil
	}
	return []task.Handler{
		{Kind: nodeapi.TaskGC, Again: task.Idempotent, Run: work},
		{Kind: nodeapi.TaskAttach, Again: task.AtMostOnce, Run: work},
		{Kind: nodeapi.TaskIntrospect, Again: task.Idempotent, Timeout: 2 * time.Hour, Run: work},
		{Kind: nodeapi.TaskSync, Again: task.Idempotent, Run: func(context.Context, task.Task, task.Out) (task.Result, error) { panic("a defect") }},
		{Kind: nodeapi.TaskInit, Again: task.Idempotent, Run: func(context.Context, task.Task, task.Out) (task.Result, error) {
			return task.Result{Data: strings.Repeat("x", nodeapi.MaxTaskResult)}, nil
		}},
	}
}

// agent is a running loop on a machine.
type agent struct {
	*Tasks
	cancel context.CancelFunc
	ended  chan struct{}
}

// start starts the loop of a machine's agent.
func (m *machine) start(t *testing.T, p *tasking, change func(c *TasksConfig)) *agent {
	t.Helper()
	j, err := task.OpenJournal(filepath.Join(m.dir, "tasks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := TasksConfig{Platform: p, Journal: j, Handlers: m.handlers(), Boot: "boot", Rand: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(m.log, nil))}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{Tasks: NewTasks(c), cancel: cancel, ended: make(chan struct{})}
	promised := time.Now()
	go func() {
		defer close(a.ended)
		defer j.Close()
		a.Run(ctx, func(d time.Duration) {
			if late := time.Since(promised); late > 0 {
				t.Errorf("late by %s", late)
			}
			promised = time.Now().Add(d)
		})
	}()
	t.Cleanup(cancel)
	return a
}

// stop ends it, and returns how long that took.
func (a *agent) stop() time.Duration {
	begin := time.Now()
	a.cancel()
	<-a.ended
	return time.Since(begin)
}

// TestTasks: they are begun as soon as they are there, told of while they run, and reported.
func TestTasks(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		a := m.start(t, p, nil)
		time.Sleep(10 * time.Second)
		begin := time.Now()
		collect := p.add("gc-90s", nodeapi.TaskGC, `{"keep":3}`)
		synctest.Wait()
		if m.ran("gc-90s") != 1 || time.Since(begin) != 0 {
			t.Errorf("run %d times after %s", m.ran("gc-90s"), time.Since(begin))
		}
		look, second := p.add("look", nodeapi.TaskIntrospect, ""), p.add("second", nodeapi.TaskAttach, "")
		time.Sleep(5 * time.Second)
		if p.state(look) != nodeapi.TaskComplete || m.ran("second") != 0 || a.View().Running["gc-90s"] != nodeapi.TaskGC {
			t.Errorf("look is %s, the second one of class root was run %d times, %v run", p.state(look), m.ran("second"), a.View().Running)
		}
		p.with(func() {
			if collect.output != "run 1 of gc-90s\n" || collect.Attempt != 1 || look.result != `{"run":1}` || look.percent != 100 || look.message != "done" {
				t.Errorf("%+v, %+v", collect, look)
			}
		})
		time.Sleep(90 * time.Second)
		if p.state(collect) != nodeapi.TaskComplete || p.state(second) != nodeapi.TaskComplete || m.ran("second") != 1 || p.see(collect).Attempt != 1 {
			t.Errorf("%+v, %+v", collect, second)
		}
		broken, large, unknown := p.add("broken", nodeapi.TaskSync, ""), p.add("large", nodeapi.TaskInit, ""), p.add("unknown", "dance", "")
		time.Sleep(5 * time.Second)
		if p.state(broken) != nodeapi.TaskFailed || !strings.Contains(p.see(broken).failure, "panic: a defect") || p.state(large) != nodeapi.TaskComplete ||
			!strings.Contains(p.see(large).result, "left_out") || p.state(unknown) != nodeapi.TaskFailed || p.see(unknown).code != nodeapi.FailUnknownKind {
			t.Errorf("%+v, %+v, %+v", broken, large, unknown)
		}
		if v := a.View(); v.Begun != 5 || v.Completed != 4 || v.Failed != 2 || len(v.Running) != 0 {
			t.Errorf("%+v", v)
		}
		if took := a.stop(); took != 0 {
			t.Errorf("ended after %s", took)
		}
	})
	if !strings.Contains(m.log.String(), "a task panicked") {
		t.Errorf("the log:\n%s", m.log)
	}
}

// TestTasksDrain: at the end nothing is begun, and what runs has its time; what isn't done then is gone on with later.
func TestTasksDrain(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		patient := func(c *TasksConfig) { c.Patience = 30 * time.Second }
		a := m.start(t, p, patient)
		quick, slow, once := p.add("gc-20s", nodeapi.TaskIntrospect, ""), p.add("look-1h", nodeapi.TaskIntrospect, ""), p.add("once-1h", nodeapi.TaskAttach, "")
		time.Sleep(5 * time.Second)
		go func() {
			time.Sleep(10 * time.Second)
			p.add("late", nodeapi.TaskIntrospect, "")
		}()
		if took := a.stop(); took != 30*time.Second {
			t.Errorf("ended after %s", took)
		}
		if p.state(quick) != nodeapi.TaskComplete || p.state(slow) != nodeapi.TaskLeased || p.state(once) != nodeapi.TaskFailed || p.see(once).code != nodeapi.FailInterrupted {
			t.Errorf("%+v, %+v, %+v", quick, slow, once)
		}
		if m.ran("late") != 0 || !errors.Is(m.ends["look-1h"], task.ErrEnding) {
			t.Errorf("late was run %d times; %v", m.ran("late"), m.ends)
		}
		a = m.start(t, p, patient)
		time.Sleep(5 * time.Second)
		p.with(func() {
			if m.ran("look-1h") != 2 || slow.Attempt != 2 || m.ran("once-1h") != 1 {
				t.Errorf("runs %v, %+v", m.runs, slow)
			}
		})
		time.Sleep(2 * time.Hour)
		if p.state(slow) != nodeapi.TaskComplete || p.see(slow).result != `{"run":2}` || m.ran("late") != 1 {
			t.Errorf("%+v", slow)
		}
		if took := a.stop(); took != 0 {
			t.Errorf("ended after %s", took)
		}
	})
}

// TestTasksThatDontEnd: the agent ends all the same, in bounded time.
func TestTasksThatDontEnd(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		a := m.start(t, p, func(c *TasksConfig) {
			c.Handlers = []task.Handler{{Kind: nodeapi.TaskGC, Run: func(context.Context, task.Task, task.Out) (task.Result, error) {
				time.Sleep(time.Hour)
				return task.Result{}, nil
			}}}
		})
		p.add("deaf", nodeapi.TaskGC, "")
		time.Sleep(5 * time.Second)
		if took := a.stop(); took != 4*time.Second {
			t.Errorf("ended after %s", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestTasksOutage: work goes on while the platform is away, its outcome is kept, and told when it is back; calls are few.
func TestTasksOutage(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		a := m.start(t, p, nil)
		work := p.add("gc-30m", nodeapi.TaskGC, "")
		time.Sleep(time.Minute)
		p.with(func() { p.down, p.asked = away(503, 0), nil })
		time.Sleep(24 * time.Hour)
		p.with(func() {
			if n := len(p.asked); n < 24*60 || n > 24*120 {
				t.Errorf("%d calls for tasks in a day of outage", n)
			}
			p.down, p.asked = away(429, 10*time.Minute), nil
		})
		time.Sleep(6 * time.Hour)
		p.with(func() {
			for i := 2; i < len(p.asked); i++ {
				if d := p.asked[i].Sub(p.asked[i-1]); d < 10*time.Minute {
					t.Errorf("asked to wait ten minutes, waited %s", d)
				}
			}
			if len(p.asked) < 20 {
				t.Errorf("%d calls for tasks", len(p.asked))
			}
			p.down = nil
		})
		time.Sleep(15 * time.Minute)
		if p.state(work) != nodeapi.TaskComplete || m.ran("gc-30m") != 1 || p.see(work).Attempt != 2 {
			t.Errorf("run %d times: %+v", m.ran("gc-30m"), work)
		}
		if err := m.ends["gc-30m"]; err != nil {
			t.Errorf("it was ended: %v", err)
		}
		a.stop()
	})
	if n := strings.Count(m.log.String(), "level=WARN"); n > 12 {
		t.Errorf("%d warnings:\n%s", n, m.log)
	}
}

// TestTasksBehindAProxy: what somebody before the platform answers ends no work, and costs no result.
func TestTasksBehindAProxy(t *testing.T) {
	for _, status := range []int{400, 404, 409, 413, 422, 502} {
		m := newMachine(t.TempDir())
		synctest.Test(t, func(t *testing.T) {
			p := newTasking()
			p.life = 10 * time.Minute
			a := m.start(t, p, nil)
			time.Sleep(10 * time.Second)
			once, again := p.add("once-10s", nodeapi.TaskAttach, ""), p.add("again-5m", nodeapi.TaskIntrospect, "")
			time.Sleep(8 * time.Second)
			p.with(func() { p.down = notOurs(status) })
			time.Sleep(6 * time.Minute)
			p.with(func() { p.down = nil })
			time.Sleep(30 * time.Minute)
			for _, o := range []*offer{once, again} {
				if o := p.see(o); o.state != nodeapi.TaskComplete || o.result != `{"run":1}` || o.Attempt != 1 {
					t.Errorf("%d: %+v", status, o)
				}
			}
			a.stop()
		})
	}
}

// TestTasksShortOutage: work that goes on through an outage that is longer than its lease goes on when the platform is back, whatever is asked
// first then.
func TestTasksShortOutage(t *testing.T) {
	for i := range 20 {
		m := newMachine(t.TempDir())
		synctest.Test(t, func(t *testing.T) {
			p := newTasking()
			a := m.start(t, p, nil)
			time.Sleep(time.Duration(i) * time.Second)
			work, once := p.add("look-30m", nodeapi.TaskIntrospect, ""), p.add("once-30m", nodeapi.TaskAttach, "")
			for range 3 {
				time.Sleep(time.Minute)
				p.with(func() { p.down = away(503, 0) })
				time.Sleep(90*time.Second + time.Duration(i)*7*time.Second)
				p.with(func() { p.down = nil })
			}
			time.Sleep(time.Hour)
			for _, o := range []*offer{work, once} {
				if o := p.see(o); o.state != nodeapi.TaskComplete || m.ran(o.ID) != 1 || m.ends[o.ID] != nil || o.Attempt != 4 || o.result != `{"run":1}` {
					t.Errorf("%d: run %d times, %v: %+v", i, m.ran(o.ID), m.ends[o.ID], o)
				}
			}
			a.stop()
		})
	}
}

// TestTasksLeaseLost: work that the platform doesn't give again is told to end, and what it comes to isn't told under that lease.
func TestTasksLeaseLost(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		a := m.start(t, p, nil)
		work := p.add("gc-3m", nodeapi.TaskGC, "")
		time.Sleep(30 * time.Second)
		lost := func(o *offer) {
			p.with(func() { p.takeBack(o); o.Attempt, o.state = 1, nodeapi.TaskCancelled })
			time.Sleep(2 * time.Minute)
			p.with(func() { o.Attempt, o.state = 2, nodeapi.TaskPending; p.stir() })
		}
		lost(work)
		time.Sleep(10 * time.Minute)
		if p.state(work) != nodeapi.TaskComplete || m.ran("gc-3m") != 2 || p.see(work).result != `{"run":2}` || !errors.Is(m.ends["gc-3m"], task.ErrLeaseLost) {
			t.Errorf("run %d times, %v: %+v", m.ran("gc-3m"), m.ends, work)
		}
		once := p.add("once-3m", nodeapi.TaskAttach, "")
		time.Sleep(30 * time.Second)
		lost(once)
		time.Sleep(10 * time.Minute)
		if p.state(once) != nodeapi.TaskFailed || m.ran("once-3m") != 1 || p.see(once).code != nodeapi.FailInterrupted {
			t.Errorf("run %d times: %+v", m.ran("once-3m"), once)
		}
		a.stop()
	})
}

// TestTasksReboot: the platform has heard of it before, and hears of the next boot.
func TestTasksReboot(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		restarts := 0
		var a *agent
		boot := "one"
		start := func() *agent {
			return m.start(t, p, func(c *TasksConfig) {
				c.Boot = boot
				c.Handlers = []task.Handler{{Kind: nodeapi.TaskReboot, Again: task.AtMostOnce, Run: func(context.Context, task.Task, task.Out) (task.Result, error) {
					return task.Result{Restart: func(context.Context) error {
						restarts++
						p.with(func() {
							if p.offers[0].message != "" || !p.offers[0].begun {
								t.Errorf("%+v", p.offers[0])
							}
						})
						a.cancel() // as systemd does
						return nil
					}}, nil
				}}}
			})
		}
		a = start()
		reboot := p.add("reboot", nodeapi.TaskReboot, "")
		<-a.ended
		if p.state(reboot) != nodeapi.TaskLeased || restarts != 1 {
			t.Errorf("%+v, %d restarts", reboot, restarts)
		}
		time.Sleep(3 * time.Minute)
		boot = "two"
		a = start()
		time.Sleep(time.Minute)
		if p.state(reboot) != nodeapi.TaskComplete || p.see(reboot).result != `{"boot_id":"two","former_boot_id":"one"}` || restarts != 1 {
			t.Errorf("%+v, %d restarts", reboot, restarts)
		}
		a.stop()
	})
}

// TestTasksWithoutAJournal: where it can't be read nothing is taken, since it might have been done.
func TestTasksWithoutAJournal(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		bad := &badJournal{err: errors.New("input/output error")}
		a := m.start(t, p, func(c *TasksConfig) { bad.TaskJournal, c.Journal = c.Journal, bad })
		p.add("look", nodeapi.TaskIntrospect, "")
		time.Sleep(time.Hour)
		p.with(func() {
			if len(p.asked) != 0 {
				t.Error("tasks are asked for")
			}
		})
		bad.mend()
		time.Sleep(2 * time.Minute)
		if m.ran("look") != 1 {
			t.Error("not done when the journal can be read")
		}
		a.stop()
	})
}

type badJournal struct {
	TaskJournal
	mu  sync.Mutex
	err error
}

func (j *badJournal) mend() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = nil
}

func (j *badJournal) Load() ([]task.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, j.err
	}
	return j.TaskJournal.Load()
}

// TestTasksOnce ends when everything is done.
func TestTasksOnce(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		first, second := p.add("gc-1m", nodeapi.TaskGC, ""), p.add("once", nodeapi.TaskAttach, "")
		a := m.start(t, p, func(c *TasksConfig) { c.Once = true })
		<-a.ended
		if p.state(first) != nodeapi.TaskComplete || p.state(second) != nodeapi.TaskComplete {
			t.Errorf("%+v, %+v", first, second)
		}
		p.with(func() { p.down = away(503, 0) })
		a = m.start(t, p, func(c *TasksConfig) { c.Once = true })
		<-a.ended
	})
}

// TestTasksOnceSays what couldn't be asked for or told, and nothing of what a task has come to.
func TestTasksOnceSays(t *testing.T) {
	m := newMachine(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		p := newTasking()
		once := func() error {
			j, err := task.OpenJournal(filepath.Join(m.dir, "tasks"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			return NewTasks(TasksConfig{
				Platform: p, Journal: j, Handlers: m.handlers(), Boot: "boot", Once: true, Log: slog.New(slog.NewTextHandler(m.log, nil)),
			}).Once(t.Context())
		}
		if err := once(); err != nil {
			t.Errorf("there is nothing to do: %v", err)
		}
		p.add("broken", nodeapi.TaskSync, "")
		if err := once(); err != nil {
			t.Errorf("a task fails, and the platform hears of it: %v", err)
		}
		p.with(func() { p.down = away(503, 0) })
		if err := once(); fault.AreaOf(err) != fault.Platform || nodehttp.StatusOf(err) != 503 {
			t.Errorf("no tasks are leased: %v", err)
		}
		p.with(func() { p.down = nil })
		look := p.add("look-10s", nodeapi.TaskIntrospect, "")
		time.AfterFunc(5*time.Second, func() { p.with(func() { p.down = notOurs(400) }) })
		if err := once(); err == nil || nodehttp.StatusOf(err) != 400 || m.ran("look-10s") != 1 {
			t.Errorf("a result isn't told: %v", err)
		}
		p.with(func() { p.down = nil })
		time.Sleep(2 * time.Minute) // the lease is over
		if err := once(); err != nil || p.state(look) != nodeapi.TaskComplete || m.ran("look-10s") != 1 {
			t.Errorf("it is told in the next round: %v, %+v", err, look)
		}
		late := p.add("late-10s", nodeapi.TaskIntrospect, "")
		time.AfterFunc(9*time.Second, func() {
			p.with(func() { p.takeBack(late); late.state = nodeapi.TaskCancelled })
		})
		if err := once(); err != nil {
			t.Errorf("a result that the platform doesn't want: %v", err)
		}
		disk := &badJournal{err: errors.New("input/output error")}
		if err := NewTasks(TasksConfig{Platform: p, Journal: disk, Boot: "boot", Once: true}).Once(t.Context()); !errors.Is(err, disk.err) {
			t.Errorf("nothing is known of the tasks: %v", err)
		}
	})
}
