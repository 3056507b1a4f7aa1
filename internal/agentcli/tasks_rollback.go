package agentcli

import (
	"context"
	"errors"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/task"
)

// taskNotes keeps what a handler has settled for a task until that is forgotten. A *task.Journal does.
type taskNotes interface {
	Note(id string, v any) error
	Noted(id string, v any) (bool, error)
}

// rollbackNote is the generation that the rollback of a task goes to.
type rollbackNote struct {
	Generation uint64 `json:"generation"`
}

// goneBack is the result of a rollback whose generation's modules run already.
type goneBack struct {
	Outcome    change.Outcome `json:"outcome"`
	Generation uint64         `json:"generation"`
	RollbackTo uint64         `json:"rollback_to"`
}

// rollback goes back to an earlier generation. "The one before" is another after each time, so which one that is is settled once, on the
// disk, before anything is done: what is begun again goes there, and no further.
func (h taskHandlers) rollback(ctx context.Context, t task.Task, out task.Out) (task.Result, error) {
	wish, err := meant(t)
	if err != nil {
		return task.Result{}, err
	}
	if wish.options.Generation == 0 {
		if wish.options.Generation, err = h.backTo(t); err != nil {
			return task.Result{}, err
		}
	}
	if t.Run > 1 || t.Attempt > 1 {
		if err := h.outside.free(ctx, taskUnit); err != nil {
			return task.Result{}, err
		}
		done, err := h.isBack(wish.options.Generation)
		if err != nil {
			return task.Result{}, err
		}
		if done != nil && h.outside.cameTo(taskUnit, t.ID) == nil {
			return task.Result{Data: done}, nil
		}
	}
	return h.perform(ctx, t, wish, out)
}

// backTo returns the generation that a rollback without one goes to: always the same for a task.
func (h taskHandlers) backTo(t task.Task) (uint64, error) {
	var note rollbackNote
	known, err := h.notes.Noted(t.ID, &note)
	switch {
	case err != nil, known && note.Generation == 0, !known && t.Run <= 1 && t.Attempt > 1:
		// Somebody has begun it who isn't here any more: another disk, or a part of this one that was lost.
		return 0, task.Fail(nodeapi.FailInterrupted, errors.Join(errors.New(
			"it was begun before, and to which generation isn't known here: it may be done; name the generation to go to"), err))
	case known:
		return note.Generation, nil
	}
	st, err := store.Open(h.stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer st.Close()
	in, _, err := retain.Read(st)
	if err != nil {
		return 0, err
	}
	in.Running = h.running()
	if note.Generation = retain.Back(in); note.Generation == 0 {
		return 0, fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists them", "roll back: there is no generation that was good before")
	}
	return note.Generation, h.notes.Note(t.ID, note)
}

// running returns the generation that runs, 0 where the store's current one counts.
func (h taskHandlers) running() uint64 {
	facts, err := boot.ReadFacts(h.root)
	if err != nil {
		return 0
	}
	return facts.Generation
}

// isBack returns a result where the modules of generation n run, and nothing is to come that could change that.
func (h taskHandlers) isBack(n uint64) (*goneBack, error) {
	if _, waits, err := change.Waiting(h.outside.runDir); err != nil || waits || change.Unfinished(h.outside.runDir) {
		return nil, nil //nolint:nilerr,nilnil // the command settles that first
	}
	st, err := store.Open(h.stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	runs := h.running()
	if runs == 0 {
		if runs, err = st.Pointer(store.Current); err != nil {
			return nil, err
		}
	}
	to, err := st.Generation(n)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // the command says what is wrong with it
	}
	now, err := st.Generation(runs)
	if err != nil || now.RootDigest != to.RootDigest || !assemble.Same(now.Modules, to.Modules) {
		return nil, err
	}
	return &goneBack{change.InStep, runs, n}, nil
}
