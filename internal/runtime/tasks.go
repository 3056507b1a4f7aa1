package runtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/task"
)

// TaskPlatform leases tasks and takes what becomes of them. A *nodeclient.Client is one. Every call is one attempt.
type TaskPlatform interface {
	LeaseTasks(ctx context.Context, r nodeapi.LeaseRequest) (*nodeapi.LeaseResponse, error)
	RenewTask(ctx context.Context, id string, r nodeapi.RenewTask) (*nodeapi.TaskStanding, error)
	TaskProgress(ctx context.Context, id string, r nodeapi.TaskProgress) (*nodeapi.TaskStanding, error)
	CompleteTask(ctx context.Context, id string, r nodeapi.CompleteTask) (*nodeapi.TaskEnd, error)
	FailTask(ctx context.Context, id string, r nodeapi.FailTask) (*nodeapi.TaskEnd, error)
}

// TaskJournal is what the disk knows of tasks. A *task.Journal is one.
type TaskJournal interface {
	// Load returns every record that there is, also beside an error; no records beside an error says that nothing is known.
	Load() ([]task.Record, error)
	Save(r task.Record) error
	Remove(id string) error
}

// TasksConfig is what a Tasks is made of. Platform, Journal, Handlers and Boot are required.
type TasksConfig struct {
	Platform TaskPlatform
	Journal  TaskJournal
	Handlers []task.Handler
	// Boot names the boot that runs: another after every restart that a handler may ask for.
	Boot string
	// Told hears of each task that is about to be begun, before its handler is, and of each whose outcome is on the disk; of the same
	// perhaps again after the agent has restarted. nil is for nobody. The loop waits for it, so it may wait for nobody but the disk.
	Told func(r task.Record)
	// Beside bounds the tasks that run beside that of nodeapi.ClassRoot; 0 is 4.
	Beside int
	// Patience is how long a task may go on after the end of the context, 0 is 2 s. The service's Config.Drain is to be
	// at least 3 s more.
	Patience time.Duration
	// Once has Run return as soon as there is nothing to do.
	Once bool
	// Rand returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Rand func() float64
	// Log takes what goes on; nil discards it.
	Log *slog.Logger
}

// Tasks is the loop that does the platform's tasks. It is made by NewTasks.
type Tasks struct {
	c    TasksConfig
	wake chan struct{}

	mu   sync.Mutex
	view TasksView
	// wrong is what couldn't be done when Run returned.
	wrong error
}

// TasksView is what the loop does, for who looks at the service.
type TasksView struct {
	// Running are the IDs and kinds of the tasks that run.
	Running map[string]nodeapi.TaskKind
	// Begun, Completed and Failed count since the service began.
	Begun, Completed, Failed uint64
	// LeaseFailures is how many calls for tasks failed in a row.
	LeaseFailures int
}

// How long calls may take: one for tasks beyond the wait that it asks for, any other in all.
const (
	leaseCallTime = 15 * time.Second
	taskCallTime  = 30 * time.Second
	// taskLook is how long the loop waits at most.
	taskLook = 10 * time.Minute
	// journalAgain is when a journal is read again that can't be read.
	journalAgain = time.Minute
)

// NewTasks returns the loop, which does nothing until Run.
func NewTasks(c TasksConfig) *Tasks {
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Patience <= 0 {
		c.Patience = 2 * time.Second
	}
	if c.Told == nil {
		c.Told = func(task.Record) {}
	}
	return &Tasks{c: c, wake: make(chan struct{}, 1), view: TasksView{Running: map[string]nodeapi.TaskKind{}}}
}

// Wake says that the platform has tasks for the node: it is asked at once, unless it asked to wait.
func (t *Tasks) Wake() { signal(t.wake) }

// View returns what the loop does.
func (t *Tasks) View() TasksView {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.view
	v.Running = make(map[string]nodeapi.TaskKind, len(t.view.Running))
	for id, kind := range t.view.Running {
		v.Running[id] = kind
	}
	return v
}

func (t *Tasks) look(change func(v *TasksView)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.view)
}

// Run implements Loop. At the end of ctx it leases and begins nothing more, gives what runs the patience of its Config,
// reports what has ended, and returns.
func (t *Tasks) Run(ctx context.Context, alive func(time.Duration)) {
	records, ok := t.load(ctx, alive)
	if !ok {
		return
	}
	w := newWorker(ctx, t, records)
	defer w.close()
	defer func() { t.failed(w.wrong()) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := ctx.Done()
	for {
		// A disk that doesn't answer is no reason to end the heartbeats.
		alive(choreTime)
		a := w.desk.Next(time.Now())
		switch a.Do {
		case task.Stop:
			return
		case task.Wait:
		default:
			w.do(a)
			continue
		}
		wait := taskLook
		if !a.At.IsZero() {
			wait = min(wait, time.Until(a.At))
		}
		alive(max(wait, 0))
		timer.Reset(wait)
		select {
		case tell := <-w.inbox:
			tell(time.Now())
		case <-w.news:
			w.wrote()
		case <-t.wake:
			w.desk.Wake(time.Now())
		case <-timer.C:
		case <-ended:
			ended = nil
			w.desk.Drain(time.Now(), t.c.Patience)
			w.endLease()
		}
	}
}

func (t *Tasks) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong = err
}

// load reads the journal. Without it no task is taken: it might have been done.
func (t *Tasks) load(ctx context.Context, alive func(time.Duration)) ([]task.Record, bool) {
	for {
		alive(choreTime)
		records, err := t.c.Journal.Load()
		if err == nil || records != nil {
			if err != nil {
				t.c.Log.Error("the records of some tasks are damaged: they count as begun", "error", err)
			}
			return records, true
		}
		t.c.Log.Error("no tasks are taken: the journal of tasks can't be read", "error", err, "hint", fault.HintOf(err))
		if t.c.Once {
			t.failed(err)
			return nil, false
		}
		alive(journalAgain)
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(journalAgain):
		}
	}
}
