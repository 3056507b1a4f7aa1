package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// newLease returns 128 random bits in hexadecimal digits.
func newLease() string {
	var b [16]byte
	// It never fails: see NewID.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Handout is what a node gets by one call.
type Handout struct {
	Tasks []Task
	// Wake is when a lease of the node ends, so that there may be more; zero where there is none.
	Wake time.Time
}

// LeaseTasks gives a node at most most tasks, by new leases. holding are the leases that it says it has; nil says nothing. Nothing is
// written where there is nothing to give and nothing to settle.
//
// All that concerns a node's tasks happens in turn (updateOf), so that of those that change the root only one is under way; rows
// that another transaction has locked mustn't be skipped for the same reason.
func (d *DB) LeaseTasks(ctx context.Context, nodeID string, holding []string, most int) (Handout, error) {
	var out Handout
	if err := d.TimeKnown(); err != nil {
		return out, err
	}
	idle := false
	err := d.view(ctx, func(tx *txn) error {
		open, err := openTasks(ctx, tx, nodeID)
		if err != nil {
			return err
		}
		before := inner(open)
		after, granted := lease.HandOut(before, holding, most, d.now(), newLease)
		idle = len(granted) == 0 && slices.Equal(before, after)
		out.Wake, _ = lease.Wake(before)
		return nil
	})
	if err != nil || idle {
		return out, err
	}
	err = d.updateOf(ctx, nodeID, func(tx *txn) error {
		out = Handout{}
		open, err := openTasks(ctx, tx, nodeID)
		if err != nil {
			return err
		}
		before := inner(open)
		after, granted := lease.HandOut(before, holding, most, d.now(), newLease)
		for i := range open {
			if open[i].Task = after[i]; after[i] == before[i] {
				continue
			}
			if err := d.saveTask(ctx, tx, before[i], &open[i]); err != nil {
				return err
			}
		}
		for _, i := range granted {
			out.Tasks = append(out.Tasks, open[i])
		}
		out.Wake, _ = lease.Wake(after)
		return nil
	})
	return out, err
}

func openTasks(ctx context.Context, tx *txn, nodeID string) ([]Task, error) {
	rows, err := tx.Query(ctx, selectTasks+"WHERE t.node_id = ? AND "+isOpen+" ORDER BY t.seq", nodeID)
	return collect(rows, err, scanTaskRow)
}

func inner(list []Task) []lease.Task {
	tasks := make([]lease.Task, len(list))
	for i, t := range list {
		tasks[i] = t.Task
	}
	return tasks
}

// RenewTask keeps a lease in force. lease.ErrLost says that it isn't, ErrNotFound that the node has no such task.
func (d *DB) RenewTask(ctx context.Context, nodeID, id, leaseID string) (Task, error) {
	return d.changeTask(ctx, nodeID, id, func(_ *txn, t *Task) error { return d.renew(t, leaseID) })
}

func (d *DB) renew(t *Task, leaseID string) (err error) {
	if t.Task, err = lease.Renew(t.Task, leaseID, d.now()); err == nil && t.BegunAt.IsZero() {
		t.BegunAt = d.now()
	}
	return err
}

// ProgressTask keeps what a node says of a task under way, and its lease in force; errors are as of RenewTask.
func (d *DB) ProgressTask(ctx context.Context, nodeID, id string, p nodeapi.TaskProgress) (Task, error) {
	return d.changeTask(ctx, nodeID, id, func(tx *txn, t *Task) error {
		if err := d.renew(t, p.LeaseID); err != nil {
			return err
		}
		t.Percent = p.Percent
		if p.Message != "" {
			t.Message = p.Message
		}
		if p.Output == "" {
			return nil
		}
		o, err := readOutput(ctx, tx, id)
		if err != nil {
			return err
		}
		return writeOutput(ctx, tx, id, o, lease.Append(o, p.OutputOffset, p.Output))
	})
}

// TaskOutcome is how a task ended.
type TaskOutcome struct {
	Lease string
	// Failed says that it wasn't done, Code and Error why.
	Failed bool
	Code   nodeapi.FailCode
	Error  string
	// Result is a JSON object, or "".
	Result string
}

// EndTask ends a task. The same again by the same lease is no error, and changes nothing; errors are as of RenewTask.
func (d *DB) EndTask(ctx context.Context, nodeID, id string, out TaskOutcome) (Task, error) {
	return d.changeTask(ctx, nodeID, id, func(_ *txn, t *Task) error {
		var again bool
		var err error
		if out.Failed {
			t.Task, again, err = lease.Fail(t.Task, out.Lease, out.Code, out.Error, d.now())
		} else {
			t.Task, again, err = lease.Complete(t.Task, out.Lease, d.now())
		}
		if err != nil || again {
			return err
		}
		if t.BegunAt.IsZero() {
			t.BegunAt = d.now()
		}
		if t.Result = out.Result; !out.Failed {
			t.Percent = 100
		}
		return nil
	})
}

// changeTask puts what change makes of one of a node's tasks in its place.
func (d *DB) changeTask(ctx context.Context, nodeID, id string, change func(tx *txn, t *Task) error) (Task, error) {
	var t Task
	if err := d.TimeKnown(); err != nil {
		return t, err
	}
	err := d.updateOf(ctx, nodeID, func(tx *txn) error {
		t = Task{}
		if err := scanTask(tx.QueryRow(ctx, selectTasks+"WHERE t.id = ? AND t.node_id = ?", id, nodeID).Scan, &t); err != nil {
			return err
		}
		before := t
		if err := change(tx, &t); err != nil || t == before {
			return err
		}
		return d.saveTask(ctx, tx, before.Task, &t)
	})
	return t, err
}

// saveTask writes a task down, records its end, and wakes who may have what comes after it.
func (d *DB) saveTask(ctx context.Context, tx *txn, before lease.Task, t *Task) error {
	ended := t.State.Ended() && !before.State.Ended()
	if ended {
		t.EndedAt = d.now()
	}
	if _, err := tx.Exec(ctx, `UPDATE tasks SET state = ?2, lease_id = ?3, expires_at = ?4, begun = ?5, attempt = ?6, grants = ?7, begun_at = ?8,
		ended_at = ?9, cancelled_by = ?10, percent = ?11, message = ?12, code = ?13, error = ?14, result = ?15 WHERE id = ?1`,
		t.ID, string(t.State), t.Lease, millisOrZero(t.Expires), t.Begun, t.Attempt, t.Grants, millisOrZero(t.BegunAt),
		millisOrZero(t.EndedAt), t.CancelledBy, t.Percent, t.Message, string(t.Code), t.Error, t.Result); err != nil {
		return err
	}
	if t.Attempt > before.Attempt && !ended {
		o, err := readOutput(ctx, tx, t.ID)
		if err == nil {
			err = writeOutput(ctx, tx, t.ID, o, lease.Again(o, t.Attempt))
		}
		if err != nil {
			return err
		}
	}
	if t.State == nodeapi.TaskCancelling && before.State != nodeapi.TaskCancelling {
		return d.event(ctx, tx, EventTaskCancel, t.NodeID, fmt.Sprintf("%s asked for the end of task %s, %s", t.CancelledBy, t.ID, t.Kind))
	}
	if !ended {
		return nil
	}
	if err := d.taskEnded(ctx, tx, t); err != nil {
		return err
	}
	return tx.notify(ctx, TaskTopic(t.NodeID))
}

// taskEnded records an end, and drops what is too old of what has ended.
func (d *DB) taskEnded(ctx context.Context, tx *txn, t *Task) error {
	kind, text := EventTaskComplete, fmt.Sprintf("task %s, %s: done", t.ID, t.Kind)
	switch t.State {
	case nodeapi.TaskFailed:
		if kind = EventTaskFailed; t.Code == nodeapi.FailExpired {
			kind = EventTaskExpired
		}
		text = fmt.Sprintf("task %s, %s, failed: %s: %s", t.ID, t.Kind, t.Code, t.Error)
	case nodeapi.TaskCancelled:
		kind, text = EventTaskCancelled, fmt.Sprintf("task %s, %s: cancelled, as %s asked", t.ID, t.Kind, t.CancelledBy)
	case nodeapi.TaskComplete, nodeapi.TaskPending, nodeapi.TaskLeased, nodeapi.TaskCancelling:
	}
	if err := d.nodeEvent(ctx, tx, kind, t.NodeID, text); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE node_id = ?1 AND ended_at <> 0
		ORDER BY ended_at DESC, seq DESC LIMIT ?2 OFFSET ?3)`, t.NodeID, MaxOpenTasks, KeptTasks)
	return err
}

func readOutput(ctx context.Context, tx *txn, id string) (lease.Output, error) {
	var o lease.Output
	err := tx.QueryRow(ctx, "SELECT text, known_to, dropped FROM task_outputs WHERE task_id = ?", id).Scan(&o.Text, &o.End, &o.Dropped)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return o, err
}

func writeOutput(ctx context.Context, tx *txn, id string, before, o lease.Output) error {
	if o == before {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO task_outputs (task_id, text, known_to, dropped) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (task_id) DO UPDATE SET text = ?2, known_to = ?3, dropped = ?4`, id, o.Text, o.End, o.Dropped)
	return err
}
