package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/task"
)

// taskHandlers are what this node does for its platform.
type taskHandlers struct {
	outside  *outside
	stateDir string
	// booted says that this agent booted the machine: no other is restarted by a task.
	booted bool
	keeper rotator
	// machine restarts.
	machine restarter
	notes   taskNotes
	// root is the system's root directory.
	root string
	log  *slog.Logger
}

// rotator replaces the node's certificate. A *enroll.Keeper is one.
type rotator interface {
	Prepare(ctx context.Context) error
	Rotate(ctx context.Context) error
	Status() (enroll.Status, error)
}

// restarter restarts the machine. A restart.Machine is one.
type restarter interface {
	Kind(ctx context.Context) (restart.Kind, string)
	Now(ctx context.Context, kind restart.Kind) error
}

// list returns a handler for each kind, and for each command of the existing platform that means one.
func (h taskHandlers) list() []task.Handler {
	var list []task.Handler
	for _, kind := range []nodeapi.TaskKind{
		nodeapi.TaskAttach, nodeapi.TaskDetach, nodeapi.TaskUpdate, nodeapi.TaskSync, nodeapi.TaskInit, nodeapi.TaskGC,
	} {
		// A command that was killed is begun again: the second time goes on where the first one was, or finds it done.
		list = append(list, task.Handler{Kind: kind, Again: task.Resumable, Run: h.command})
	}
	list = append(list,
		task.Handler{Kind: nodeapi.TaskRollback, Again: task.Resumable, Run: h.rollback},
		task.Handler{Kind: nodeapi.TaskReboot, Again: task.AtMostOnce, Run: h.reboot},
		task.Handler{Kind: nodeapi.TaskSoftReboot, Again: task.AtMostOnce, Run: h.softReboot},
		task.Handler{Kind: nodeapi.TaskRotate, Again: task.Idempotent, Run: h.rotate},
		task.Handler{Kind: nodeapi.TaskIntrospect, Again: task.Idempotent, Run: h.introspect},
	)
	for _, name := range []string{"start", "stop", "restart", "sync_modules", "apply_config"} {
		kind, _, known, _ := nodeapi.Command(name)
		if !known {
			continue
		}
		traits, _ := kind.Traits()
		list = append(list, task.Handler{
			Kind: nodeapi.TaskKind(name), Class: traits.Class, Timeout: traits.Deadline, Again: task.Resumable, Run: h.command,
		})
	}
	return list
}

// command does what a command of this program does, outside of this process.
func (h taskHandlers) command(ctx context.Context, t task.Task, out task.Out) (task.Result, error) {
	wish, err := meant(t)
	if err != nil {
		return task.Result{}, err
	}
	return h.perform(ctx, t, wish, out)
}

// perform runs the command of a task, which says meanwhile how far it is.
func (h taskHandlers) perform(ctx context.Context, t task.Task, wish taskWish, out task.Out) (task.Result, error) {
	out.Progress(0, "run powernode-agent "+string(wish.kind))
	answer, err := h.outside.do(ctx, taskUnit, t.ID, t.Run > 1, wish.args(h.stateDir), out)
	if err != nil {
		return task.Result{}, err
	}
	return answer.outcome()
}

// rotate replaces the node's certificate.
func (h taskHandlers) rotate(ctx context.Context, t task.Task, _ task.Out) (task.Result, error) {
	if _, err := meant(t); err != nil {
		return task.Result{}, err
	}
	if err := h.keeper.Prepare(ctx); err != nil {
		return task.Result{}, err
	}
	if err := h.keeper.Rotate(ctx); err != nil {
		return task.Result{}, err
	}
	s, err := h.keeper.Status()
	if err != nil {
		return task.Result{}, err
	}
	return task.Result{Data: struct {
		Serial    string    `json:"serial"`
		NotBefore time.Time `json:"not_before"`
		NotAfter  time.Time `json:"not_after"`
	}{s.Serial, s.NotBefore, s.NotAfter}}, nil
}

// introspect says what the node is and has.
func (h taskHandlers) introspect(_ context.Context, t task.Task, _ task.Out) (task.Result, error) {
	if _, err := meant(t); err != nil {
		return task.Result{}, err
	}
	doc := newIntrospection(h.stateDir)
	doc.look(h.stateDir)
	text, err := json.Marshal(doc)
	if err != nil {
		return task.Result{}, err
	}
	return task.Result{Data: fitting(text)}, nil
}

// reboot restarts the machine.
func (h taskHandlers) reboot(_ context.Context, t task.Task, _ task.Out) (task.Result, error) {
	if err := h.mayRestart(t); err != nil {
		return task.Result{}, err
	}
	return task.Result{Restart: func(ctx context.Context) error { return h.machine.Now(ctx, restart.Full) }}, nil
}

// softReboot restarts all but the kernel, into what is staged.
func (h taskHandlers) softReboot(ctx context.Context, t task.Task, _ task.Out) (task.Result, error) {
	if err := h.mayRestart(t); err != nil {
		return task.Result{}, err
	}
	if kind, why := h.machine.Kind(ctx); kind != restart.Soft {
		return task.Result{}, fault.New(fault.Refuse, fault.Service, "ask for a reboot", "soft-reboot: %s", why)
	}
	staged, err := stagedGeneration(h.stateDir)
	if err != nil {
		return task.Result{}, err
	}
	if staged == 0 {
		return task.Result{}, fault.New(fault.Refuse, fault.Service, "stage a change first, or ask for a reboot", "soft-reboot: nothing is staged for it")
	}
	return task.Result{Restart: func(ctx context.Context) error {
		answer, err := h.outside.do(ctx, taskUnit, t.ID, false, []string{softRebootName, "--state=" + h.stateDir}, nil)
		if err != nil {
			return downYet(ctx, err)
		}
		_, err = answer.outcome()
		return err
	}}, nil
}

// downMost is how long a system that goes down takes at most until it ends this service.
const downMost = time.Minute

// downYet returns nil where the system goes down although err has come of the command that was to see to that: systemd cancels what it is doing, that
// command too, once it has begun. This service ends then as well; where it doesn't, it was a failure.
func downYet(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
	case <-time.After(downMost):
	}
	if ending(context.Cause(ctx)) {
		return nil
	}
	return err
}

func (h taskHandlers) mayRestart(t task.Task) error {
	if _, err := meant(t); err != nil {
		return err
	}
	if !h.booted {
		return fault.New(fault.Refuse, fault.Input, "", "restart this machine: it wasn't booted by powernode-agent")
	}
	return nil
}

// stagedGeneration returns the generation that is staged, or 0.
func stagedGeneration(stateDir string) (uint64, error) {
	st, err := store.Open(stateDir, store.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer st.Close()
	return st.Pointer(store.Staged)
}

// bootName names the boot that runs: another after a restart of any kind, also where the kernel went on.
func bootName(facts boot.Facts, bootID string) string {
	if facts.BootedAt.IsZero() {
		return bootID
	}
	return bootID + "/" + facts.BootedAt.UTC().Format(time.RFC3339Nano)
}
