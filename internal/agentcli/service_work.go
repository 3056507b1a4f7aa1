package agentcli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/task"
)

// The directories of the journal of tasks and of the queue of events, below the directory of record.
const (
	tasksDir  = "tasks"
	eventsDir = "events"
)

// How long a task may go on when the service is told to end, and everything together: within TimeoutStopSec of the unit, and at least three
// seconds more than the tasks have.
const (
	taskPatience = 5 * time.Second
	serviceDrain = 12 * time.Second
)

// platformWork is what the service does for its platform: tasks, events, and keeping in step.
type platformWork struct {
	stateDir string
	log      *slog.Logger
	// service is told when there is something new to say; nil before it runs.
	service atomic.Pointer[runtime.Service]

	outside   *outside
	tasks     *runtime.Tasks     // nil where the disk can't keep what is done
	events    *runtime.Events    // likewise
	reconcile *runtime.Reconcile // nil where it isn't wanted
	queue     *event.Queue
	audited   string // the result that was written down last, by the goroutine of reconcile
	closing   []io.Closer
	missing   []error // what it goes on without

	mu   sync.Mutex
	runs map[string]nodeapi.TaskKind
}

// newPlatformWork opens what is on the disk. What can't be opened is left out, and said: a node whose disk is full still reports.
func newPlatformWork(f *serviceFlags, platform *nodePlatform, facts boot.Facts, booted bool, log *slog.Logger) *platformWork {
	w := &platformWork{
		stateDir: f.stateDir, log: log, runs: map[string]nodeapi.TaskKind{},
		outside: &outside{programs: newAnywhere(), stateDir: f.stateDir, runDir: boot.RunDir, log: log},
	}
	say := func(what string, err error) {
		log.Error("the service goes on without "+what, "error", err, "hint", fault.HintOf(err))
		w.missing = append(w.missing, fmt.Errorf("go without %s: %w", what, err))
	}
	queue, err := event.Open(filepath.Join(f.stateDir, eventsDir), event.Options{})
	if err != nil {
		say("events", err)
	} else {
		w.queue, w.closing = queue, append(w.closing, queue)
		w.events = &runtime.Events{Queue: queue, Platform: platform, Log: log}
	}
	kernel, err := runtime.ReadFacts("/proc")
	if err != nil && kernel.BootID == "" {
		say("tasks: nobody knows which boot this is", err)
		return w
	}
	name := bootName(facts, kernel.BootID)
	journal, err := task.OpenJournal(filepath.Join(f.stateDir, tasksDir), nil)
	if err != nil {
		say("tasks", err)
	} else {
		w.closing = append(w.closing, journal)
		handlers := taskHandlers{outside: w.outside, stateDir: f.stateDir, booted: booted, keeper: platform.keeper, machine: restart.Machine{}, notes: journal, root: "/", log: log}
		audit := runtime.AuditTasks(w.put, privilegedTask, log)
		w.tasks = runtime.NewTasks(runtime.TasksConfig{
			Platform: platform, Journal: journal, Handlers: handlers.list(), Boot: name, Patience: taskPatience, Log: log, Once: f.once,
			Told: func(r task.Record) {
				about := r
				about.Task = named(r.Task)
				audit(about)
				w.told(r)
			},
		})
	}
	if booted && f.reconcile != reconcileOff {
		w.reconcile = newReconcileLoop(w, f.reconcile, facts, name, log)
	}
	return w
}

// privilegedTask tells whether a task is worth a record: all are but those that only look.
func privilegedTask(t task.Task) bool { return t.Kind != nodeapi.TaskIntrospect }

// audit writes the record of what the service did by itself, once until it is something else.
func (w *platformWork) audit(command string, changed bool, err error) {
	result := runResult(err)
	if !changed && result == w.audited {
		return
	}
	w.audited = result
	w.record(command, result, err != nil)
}

// record writes the record of what the service does by itself. Any goroutine may call it.
func (w *platformWork) record(command, result string, failed bool) {
	a := event.Audit{Who: theAgent, Command: command, Result: result, Failed: failed, At: time.Now()}
	w.log.Info("audit", "who", a.Who, "command", a.Command, "result", a.Result)
	if err := w.put(a.Event()); err != nil {
		w.log.Error("an audit record is in this log alone", "error", err)
	}
}

// auditedCertificate is a node's certificate whose every replacement is recorded.
type auditedCertificate struct {
	runtime.CertificateKeeper
	record func(command, result string, failed bool)
}

// Rotate implements runtime.CertificateKeeper.
func (c auditedCertificate) Rotate(ctx context.Context) error {
	return c.replaced("rotate the node's certificate", c.CertificateKeeper.Rotate(ctx))
}

// Renew implements runtime.CertificateKeeper.
func (c auditedCertificate) Renew(ctx context.Context) error {
	return c.replaced("renew the node's certificate", c.CertificateKeeper.Renew(ctx))
}

// replaced records what was done. An attempt that failed has changed nothing, and is in the log.
func (c auditedCertificate) replaced(what string, err error) error {
	if err != nil {
		return err
	}
	result := "complete"
	if s, err := c.Status(); err == nil {
		result += ": " + s.Serial
	}
	c.record(what, result, false)
	return nil
}

// loops returns what runs beside the heartbeats.
func (w *platformWork) loops() []runtime.Loop {
	var loops []runtime.Loop
	if w.tasks != nil {
		loops = append(loops, w.tasks)
	}
	if w.events != nil {
		loops = append(loops, *w.events)
	}
	if w.reconcile != nil {
		loops = append(loops, w.reconcile)
	}
	return loops
}

// put keeps an event for the platform, where the disk can keep any.
func (w *platformWork) put(e event.Event) error {
	if w.queue == nil {
		return nil
	}
	return w.queue.Put(e)
}

func (w *platformWork) close() {
	for _, c := range w.closing {
		if err := c.Close(); err != nil {
			w.log.Warn("a directory can't be closed", "error", err)
		}
	}
}

// heard hears the answer to a heartbeat.
func (w *platformWork) heard(a *nodeapi.HeartbeatResponse) {
	if a.TasksWaiting && w.tasks != nil {
		w.tasks.Wake()
	}
	if w.reconcile != nil {
		w.reconcile.Answered(a)
	}
}

// told takes down which tasks run, and has it said.
func (w *platformWork) told(r task.Record) {
	w.mu.Lock()
	if r.Phase == task.Begun {
		w.runs[r.Task.ID] = r.Task.Kind
	} else {
		delete(w.runs, r.Task.ID)
	}
	w.mu.Unlock()
	w.say()
	if r.Phase == task.Done {
		// The operator sees at once what has become of the node.
		if s := w.service.Load(); s != nil {
			s.Beat()
		}
	}
}

func (w *platformWork) say() {
	if s := w.service.Load(); s != nil {
		s.Say()
	}
}

// doing says in a few words each what is done.
func (w *platformWork) doing() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var doing []string
	for _, id := range slices.Sorted(maps.Keys(w.runs)) {
		doing = append(doing, "task "+string(w.runs[id])+" runs")
	}
	if w.reconcile != nil && w.reconcile.Busy() {
		doing = append(doing, "the node is brought in step")
	}
	return doing
}

// configDigest is that of the configuration that the node has come to.
func (w *platformWork) configDigest() string {
	return readSynced(boot.RunDir).ConfigDigest
}

// onHangup calls do for each SIGHUP until ctx ends or stop is called.
func onHangup(ctx context.Context, do func()) (stop func()) { return onSignal(ctx, hangup, do) }
