package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// The kinds of events of tasks.
const (
	EventTaskCreated   = "task.created"
	EventTaskCancel    = "task.cancel_asked"
	EventTaskComplete  = "task.complete"
	EventTaskFailed    = "task.failed"
	EventTaskCancelled = "task.cancelled"
	EventTaskExpired   = "task.expired"
)

const (
	// KeptTasks is how many tasks of a node that have ended are kept.
	KeptTasks = 100
	// MaxOpenTasks is how many a node may have that haven't.
	MaxOpenTasks = 100
)

// ErrTooManyTasks says that a node has MaxOpenTasks.
var ErrTooManyTasks = errors.New("the node has too many tasks that haven't ended")

// Task is one piece of work for a node.
type Task struct {
	lease.Task
	ID       string
	NodeID   string
	NodeName string
	// Options is a JSON object.
	Options     string
	RequestedBy string
	CreatedAt   time.Time
	Deadline    time.Duration
	// BegunAt is when its node took it up first, EndedAt when it ended; zero is not yet.
	BegunAt, EndedAt time.Time
	// CancelledBy is who asked for its end, or "".
	CancelledBy string
	Percent     int
	Message     string
	// Result is a JSON object, or "".
	Result string
}

// TaskTopic is what Watch wakes for when there may be a task for a node.
func TaskTopic(nodeID string) string { return "tasks " + nodeID }

const taskColumns = `t.id, t.node_id, n.name, t.kind, t.options, t.requested_by, t.created_at, t.deadline_seconds, t.state, t.lease_id, t.expires_at,
	t.good_until, t.begun, t.attempt, t.grants, t.begun_at, t.ended_at, t.cancelled_by, t.percent, t.message, t.code, t.error, t.result`

const selectTasks = "SELECT " + taskColumns + " FROM tasks t JOIN nodes n ON n.id = t.node_id "

// isOpen are the tasks that haven't ended, in the words of the index.
const isOpen = "t.state IN ('pending', 'leased', 'cancelling')"

func scanTask(scan func(...any) error, t *Task) error {
	var created, deadline, expires, until, begun, ended int64
	if err := scan(&t.ID, &t.NodeID, &t.NodeName, &t.Kind, &t.Options, &t.RequestedBy, &created, &deadline, &t.State, &t.Lease, &expires,
		&until, &t.Begun, &t.Attempt, &t.Grants, &begun, &ended, &t.CancelledBy, &t.Percent, &t.Message, &t.Code, &t.Error, &t.Result); err != nil {
		return err
	}
	t.CreatedAt, t.Deadline = moment(created), time.Duration(deadline)*time.Second
	t.Expires, t.Until, t.BegunAt, t.EndedAt = orZero(expires), orZero(until), orZero(begun), orZero(ended)
	return nil
}

// orZero and millisOrZero are moment and millis, where 0 stands for no time.
func orZero(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return moment(ms)
}

func millisOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return millis(t)
}

func scanTaskRow(rows *sql.Rows, t *Task) error { return scanTask(rows.Scan, t) }

// CreateTask makes a task of in's ID, NodeID, Kind, Options, RequestedBy, Deadline and Until. The same again is the same task; ErrExists
// says that the ID is that of another, ErrNotFound that there is no such node, ErrTooManyTasks that it has too many.
func (d *DB) CreateTask(ctx context.Context, in Task) (Task, error) {
	var out Task
	err := d.updateOf(ctx, in.NodeID, func(tx *txn) error {
		err := scanTask(tx.QueryRow(ctx, selectTasks+"WHERE t.id = ?", in.ID).Scan, &out)
		switch {
		case err == nil && out.NodeID == in.NodeID && out.Kind == in.Kind && out.Options == in.Options:
			return nil
		case err == nil:
			return fmt.Errorf("%w: task %s", ErrExists, in.ID)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if err := d.roomForTask(ctx, tx, in.NodeID); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO tasks (id, node_id, kind, options, requested_by, created_at, deadline_seconds, good_until)
			SELECT ?1, id, ?3, ?4, ?5, ?6, ?7, ?8 FROM nodes WHERE id = ?2`,
			in.ID, in.NodeID, string(in.Kind), in.Options, in.RequestedBy, millis(d.now()), int64(in.Deadline/time.Second), millisOrZero(in.Until))
		switch {
		case err != nil:
			return err
		case n == 0:
			return ErrNotFound
		}
		if err := d.event(ctx, tx, EventTaskCreated, in.NodeID, fmt.Sprintf("%s asked for task %s, %s %s", in.RequestedBy, in.ID, in.Kind, in.Options)); err != nil {
			return err
		}
		if err := scanTask(tx.QueryRow(ctx, selectTasks+"WHERE t.id = ?", in.ID).Scan, &out); err != nil {
			return err
		}
		return tx.notify(ctx, TaskTopic(in.NodeID))
	})
	return out, err
}

// roomForTask refuses one more task where a node has MaxOpenTasks.
func (d *DB) roomForTask(ctx context.Context, tx *txn, nodeID string) error {
	count := func() (open int, err error) {
		err = tx.QueryRow(ctx, "SELECT count(*) FROM tasks t WHERE t.node_id = ? AND "+isOpen, nodeID).Scan(&open)
		return open, err
	}
	open, err := count()
	if err != nil || open < MaxOpenTasks {
		return err
	}
	// Those that nobody came for take no room.
	if err := d.settleTasks(ctx, tx, nodeID); err != nil {
		return err
	}
	if open, err = count(); err == nil && open >= MaxOpenTasks {
		err = ErrTooManyTasks
	}
	return err
}

// CancelTask asks for the end of a task; it is no error that it has ended already. ErrNotFound says that there is none of that ID.
func (d *DB) CancelTask(ctx context.Context, id, by string) (Task, error) {
	nodeID, err := d.nodeOf(ctx, "SELECT node_id FROM tasks WHERE id = ?", id)
	if err != nil {
		return Task{}, err
	}
	return d.changeTask(ctx, nodeID, id, func(_ *txn, t *Task) error {
		before := t.State
		if t.Task = lease.Cancel(lease.Settle(t.Task, d.now())); t.State == before {
			return nil
		}
		t.CancelledBy = by
		return nil
	})
}

// Tasks says which tasks are meant.
type Tasks struct {
	// NodeID is the node's; "" is all nodes.
	NodeID string
	// Open leaves out those that have ended.
	Open bool
	// Limit is how many are returned at most.
	Limit int
}

// Tasks returns tasks, the newest first.
func (d *DB) Tasks(ctx context.Context, which Tasks) ([]Task, error) {
	where, args := only("t.node_id", which.NodeID)
	if which.Open {
		where += " AND " + isOpen
	}
	rows, err := d.read.Query(ctx, selectTasks+"WHERE "+where+" ORDER BY t.seq DESC LIMIT ?", append(args, which.Limit)...)
	list, err := collect(rows, err, scanTaskRow)
	return list, d.explain(err)
}

// Task returns one task and what it has printed, or ErrNotFound.
func (d *DB) Task(ctx context.Context, id string) (Task, lease.Output, error) {
	var t Task
	var o lease.Output
	err := d.view(ctx, func(tx *txn) error {
		err := scanTask(tx.QueryRow(ctx, selectTasks+"WHERE t.id = ?", id).Scan, &t)
		if err == nil {
			o, err = readOutput(ctx, tx, id)
		}
		return err
	})
	return t, o, err
}
