package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/task"
)

// worker does what a desk decides. All of it but what its comments say belongs to the goroutine of the loop.
type worker struct {
	t    *Tasks
	desk *task.Desk
	// ctx ends with the loop; leaseCtx when no task is to be leased any more.
	ctx       context.Context
	cancel    context.CancelCauseFunc
	leaseCtx  context.Context
	endLease  context.CancelFunc
	inbox     chan func(now time.Time) // what other goroutines have to tell
	over      chan struct{}            // closed with the loop
	news      chan struct{}            // has something in it when written isn't empty
	outputs   map[string]*task.Output
	cancels   map[string]context.CancelCauseFunc
	restarts  map[string]func(context.Context) error
	told      map[string]string // what was told of a task last
	complaint map[difficulty]error

	mu      sync.Mutex
	written map[string]struct{} // the tasks that have something to tell; of any goroutine
}

// difficulty is what can't be done, about which task, "" for none.
type difficulty struct{ what, task string }

func newWorker(ctx context.Context, t *Tasks, records []task.Record) *worker {
	w := &worker{
		t: t, inbox: make(chan func(time.Time)), over: make(chan struct{}), news: make(chan struct{}, 1),
		outputs: map[string]*task.Output{}, cancels: map[string]context.CancelCauseFunc{}, restarts: map[string]func(context.Context) error{},
		told: map[string]string{}, complaint: map[difficulty]error{}, written: map[string]struct{}{},
	}
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	w.leaseCtx, w.endLease = context.WithCancel(w.ctx)
	for _, r := range records {
		if r.Output != "" {
			w.outputs[r.Task.ID] = task.OutputOf(r)
		}
		if r.Phase == task.Done && !r.Known {
			w.told[r.Task.ID] = stage(r)
			t.c.Told(r)
		}
	}
	w.desk = task.NewDesk(time.Now(), task.Settings{
		Handlers: t.c.Handlers, Boot: t.c.Boot, Beside: t.c.Beside, Once: t.c.Once, Chance: t.c.Rand,
	}, records)
	return w
}

func (w *worker) close() {
	w.endLease()
	w.cancel(task.ErrEnding)
	close(w.over)
	w.t.look(func(v *TasksView) { clear(v.Running) })
}

// do does one thing. What takes its time goes on in a goroutine, which tells what came of it.
func (w *worker) do(a task.Action) {
	id := a.Record.Task.ID
	switch a.Do {
	case task.Save:
		w.save(a.Record)
	case task.Forget:
		err := w.t.c.Journal.Remove(id)
		w.complain("forget an old task", id, err)
		if err == nil {
			w.forget(id)
			delete(w.told, id)
		}
		w.desk.Saved(time.Now(), id, true, err)
	case task.Lease:
		w.lease(a)
	case task.Renew:
		w.renew(a)
	case task.Tell:
		w.progress(a)
	case task.Report:
		w.report(a.Record)
	case task.Begin:
		w.begin(a)
	case task.End:
		w.t.c.Log.Warn("a task is told to end", "task", id, "kind", a.Record.Task.Kind, "reason", a.Cause)
		if cancel := w.cancels[id]; cancel != nil {
			cancel(a.Cause)
		}
	case task.Restart:
		w.restart(a.Record)
	case task.Wait, task.Stop:
	}
}

func (w *worker) save(r task.Record) {
	err := w.t.c.Journal.Save(r)
	w.complain("write down a task", r.Task.ID, err)
	if err == nil {
		w.tell(r)
		if r.Phase == task.Settled {
			w.forget(r.Task.ID)
		}
	}
	w.desk.Saved(time.Now(), r.Task.ID, false, err)
}

// tell says what is on the disk of a task, once: that it is begun, and what came of it.
func (w *worker) tell(r task.Record) {
	if w.told[r.Task.ID] == stage(r) || r.Phase != task.Begun && r.Phase != task.Done || r.Known {
		return
	}
	w.told[r.Task.ID] = stage(r)
	log := w.t.c.Log.With("task", r.Task.ID, "kind", r.Task.Kind, "attempt", r.Task.Attempt, "requested_by", r.Task.RequestedBy)
	switch {
	case r.Phase == task.Begun:
		log.Info("a task is begun", "run", r.Runs)
		w.t.look(func(v *TasksView) { v.Begun++ })
	case r.Outcome.Success:
		log.Info("a task is complete")
		w.t.look(func(v *TasksView) { v.Completed++ })
	default:
		log.Warn("a task failed", "code", r.Outcome.Code, "error", r.Outcome.Error)
		w.t.look(func(v *TasksView) { v.Failed++ })
	}
	w.t.c.Told(r)
}

// stage names how far a task is.
func stage(r task.Record) string { return fmt.Sprint(r.Phase, r.Runs) }

// forget drops what is kept of a task that is over.
func (w *worker) forget(id string) {
	delete(w.outputs, id)
	delete(w.restarts, id)
	maps.DeleteFunc(w.complaint, func(d difficulty, _ error) bool { return d.task == id })
}

// begin runs a handler.
func (w *worker) begin(a task.Action) {
	id := a.Record.Task.ID
	out := task.NewOutput(func() {
		w.mu.Lock()
		w.written[id] = struct{}{}
		w.mu.Unlock()
		signal(w.news)
	})
	ctx, cancel := context.WithCancelCause(w.ctx)
	w.outputs[id], w.cancels[id] = out, cancel
	w.t.look(func(v *TasksView) { v.Running[id] = a.Record.Task.Kind })
	job := a.Record.Task
	job.Run = a.Record.Runs
	go func() {
		defer cancel(nil)
		result, err := w.run(ctx, a.Handler, job, out)
		out.Close()
		f := task.Finish{Restart: result.Restart != nil, Err: err}
		if f.Result, err = encodeResult(result.Data); err != nil && f.Err == nil {
			f.Err = err
		}
		f.Output, f.Offset = out.Left()
		f.More = out.Waiting()
		w.post(func(now time.Time) {
			w.t.look(func(v *TasksView) { delete(v.Running, id) })
			delete(w.cancels, id)
			w.restarts[id] = result.Restart
			w.desk.Finished(now, id, f)
		})
	}()
}

// run is a handler's run. A panic is an error of it.
func (w *worker) run(ctx context.Context, h task.Handler, t task.Task, out task.Out) (result task.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			w.t.c.Log.Error("a task panicked", "task", t.ID, "kind", t.Kind, "panic", r, "stack", string(debug.Stack()))
			err = fault.New(fault.Broken, fault.General, "report this defect", "do the task: panic: %v", r)
		}
	}()
	return h.Run(ctx, t, out)
}

// encodeResult returns a result as it is told. What can't be told isn't worth failing what was done.
func encodeResult(data any) (json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	text, err := json.Marshal(data)
	switch {
	case err != nil:
		return nil, fault.New(fault.Broken, fault.General, "report this defect", "encode the task's result: %w", err)
	case len(text) > nodeapi.MaxTaskResult:
		return json.Marshal(map[string]string{"left_out": fmt.Sprintf("the result has %d bytes; %d are taken", len(text), nodeapi.MaxTaskResult)})
	case text[0] != '{':
		return json.Marshal(map[string]json.RawMessage{"result": text})
	}
	return text, nil
}

// restart has the machine restart.
func (w *worker) restart(r task.Record) {
	id, restart := r.Task.ID, w.restarts[r.Task.ID]
	w.t.c.Log.Warn("the machine restarts", "task", id, "requested_by", r.Task.RequestedBy)
	go func() {
		err := fault.New(fault.Broken, fault.General, "report this defect", "restart the machine: nobody knows how")
		if restart != nil {
			_, err = w.run(w.ctx, task.Handler{Run: func(ctx context.Context, _ task.Task, _ task.Out) (task.Result, error) {
				return task.Result{}, restart(ctx)
			}}, r.Task, nil)
		}
		w.post(func(now time.Time) { w.desk.Restarted(now, id, err) })
	}()
}

// wrote tells the desk of the tasks that have something to tell.
func (w *worker) wrote() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.written {
		w.desk.Wrote(id)
	}
	clear(w.written)
}

// post has the loop do something; any goroutine may call it. After the end of the loop nothing is done.
func (w *worker) post(tell func(now time.Time)) {
	select {
	case w.inbox <- tell:
	case <-w.over:
	}
}

// complain says once, until it changes, what can't be done about a task.
func (w *worker) complain(what, id string, err error) {
	d := difficulty{what, id}
	before := w.complaint[d]
	if err == nil {
		delete(w.complaint, d)
		return
	}
	w.complaint[d] = err
	if before == nil || before.Error() != err.Error() {
		w.t.c.Log.Warn("can't "+what, "error", err, "hint", fault.HintOf(err))
	}
}

// wrong is what can't be done still, tasks being leased first. That a lease is lost isn't: the platform has had its say.
func (w *worker) wrong() error {
	var errs []error
	for _, d := range slices.SortedFunc(maps.Keys(w.complaint), func(a, b difficulty) int {
		return cmp.Or(strings.Compare(a.what, b.what), strings.Compare(a.task, b.task))
	}) {
		if err := w.complaint[d]; nodehttp.CodeOf(err) != nodeapi.CodeLeaseLost {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
