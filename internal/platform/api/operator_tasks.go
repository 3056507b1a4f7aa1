package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// maxTaskCreate bounds the body of a call that asks for a task, in bytes.
const maxTaskCreate = nodeapi.MaxTaskOptions + 16<<10

// createTask asks a node for something.
func (a *API) createTask(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	data, err := readBody(w, r, maxTaskCreate)
	if err != nil {
		return nil, err
	}
	var in operatorapi.TaskCreate
	if err := durable.DecodeJSON(data, &in); err != nil {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the request's body isn't the JSON that is wanted: %v", err)
	}
	task, err := newTask(in, a.now())
	if err != nil {
		return nil, err
	}
	task.NodeID, task.RequestedBy = node.ID, operatorOf(r).Name
	made, err := a.db.CreateTask(r.Context(), task)
	switch {
	case errors.Is(err, db.ErrExists):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "there is another task %s", task.ID).withHint("leave out the ID")
	case errors.Is(err, db.ErrTooManyTasks):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "node %s has %d tasks that haven't ended", node.Name, db.MaxOpenTasks).
			withHint("wait for them, or cancel some with powernode task cancel")
	case err != nil:
		return nil, err
	}
	a.log.Info("a task was asked for", "node", made.NodeID, "task", made.ID, "kind", made.Kind, "by", made.RequestedBy)
	return taskView(made), nil
}

// newTask returns the task that an operator asks for, now.
func newTask(in operatorapi.TaskCreate, now time.Time) (db.Task, error) {
	t := db.Task{ID: in.ID}
	switch {
	case t.ID == "":
		t.ID = db.NewID()
	case !looksID.MatchString(t.ID):
		return t, invalid("id %.80q: want a UUID in lower case", t.ID)
	}
	kind, action, known, refused := nodeapi.Command(in.Kind)
	switch {
	case refused:
		return t, invalid("no node obeys %s", in.Kind).withHint("see powernode task create --help for what nodes do")
	case !known:
		return t, invalid("kind %.40q: want one of %s", in.Kind, kinds()).withHint("see powernode task create --help for what nodes do")
	}
	t.Kind = kind
	options, err := taskOptions(kind, action, in.Options)
	if err != nil {
		return t, err
	}
	t.Options = options
	traits, _ := kind.Traits()
	switch t.Deadline = time.Duration(in.DeadlineSeconds) * time.Second; {
	case in.DeadlineSeconds == 0:
		t.Deadline = traits.Deadline
	case in.DeadlineSeconds < 0 || in.DeadlineSeconds > int64(operatorapi.MaxTaskDeadline/time.Second):
		return t, invalid("deadline_seconds: want 1 to %d", int64(operatorapi.MaxTaskDeadline/time.Second))
	}
	life := time.Duration(in.ExpiresInSeconds) * time.Second
	switch {
	case in.ExpiresInSeconds == 0:
		life = operatorapi.DefaultTaskLife
	case in.ExpiresInSeconds < 0 || in.ExpiresInSeconds > int64(operatorapi.MaxTaskLife/time.Second):
		return t, invalid("expires_in_seconds: want 1 to %d", int64(operatorapi.MaxTaskLife/time.Second))
	}
	t.Until = now.Add(life)
	return t, nil
}

// listTasks shows tasks, the newest first.
func (a *API) listTasks(_ http.ResponseWriter, r *http.Request) (any, error) {
	which, err := a.listQuery(r)
	if err != nil {
		return nil, err
	}
	open := r.URL.Query().Get(operatorapi.QueryOpen) == "true"
	rows, err := a.db.Tasks(r.Context(), db.Tasks{NodeID: which.nodeID, Open: open, Limit: which.limit})
	if err != nil {
		return nil, err
	}
	list := operatorapi.TaskList{Tasks: []operatorapi.Task{}}
	for _, t := range rows {
		if t.Task = lease.Settle(t.Task, a.now()); !open || !t.State.Ended() {
			list.Tasks = append(list.Tasks, taskView(t))
		}
	}
	list.Count = len(list.Tasks)
	return list, nil
}

// showTask shows one task with all that its node said of it.
func (a *API) showTask(_ http.ResponseWriter, r *http.Request) (any, error) {
	t, output, err := a.db.Task(r.Context(), r.PathValue("task"))
	if err != nil {
		return nil, noTask(r, err)
	}
	t.Task = lease.Settle(t.Task, a.now())
	return operatorapi.TaskDetail{Task: taskView(t), Result: json.RawMessage(t.Result), Output: output.Text, OutputDropped: output.Dropped}, nil
}

// cancelTask asks for the end of a task.
func (a *API) cancelTask(_ http.ResponseWriter, r *http.Request) (any, error) {
	by := operatorOf(r).Name
	t, err := a.db.CancelTask(r.Context(), r.PathValue("task"), by)
	if err != nil {
		return nil, noTask(r, err)
	}
	a.log.Info("the end of a task was asked for", "node", t.NodeID, "task", t.ID, "kind", t.Kind, "state", t.State, "by", by)
	return taskView(t), nil
}

func noTask(r *http.Request, err error) error {
	if isNotFound(err) {
		return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no task %.100q", r.PathValue("task")).withHint("see powernode task list --all")
	}
	return err
}

// taskView is what an operator sees of a task: one whose lease has expired as it will be when its node is heard of.
func taskView(t db.Task) operatorapi.Task {
	return operatorapi.Task{
		ID: t.ID, NodeID: t.NodeID, NodeName: t.NodeName, Kind: string(t.Kind), Options: json.RawMessage(t.Options), State: string(t.State), RequestedBy: t.RequestedBy,
		CreatedAt: t.CreatedAt, ExpiresAt: orNil(t.Until), BegunAt: orNil(t.BegunAt), EndedAt: orNil(t.EndedAt), LeaseExpiresAt: orNil(t.Expires), Attempt: t.Attempt,
		DeadlineSeconds: int64(t.Deadline / time.Second), Percent: t.Percent, Message: t.Message, CancelledBy: t.CancelledBy, Code: string(t.Code), Error: t.Error,
	}
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// listing is what the query of a list asks for.
type listing struct {
	nodeID string // "" for all
	limit  int
}

// listQuery reads the query of a list.
func (a *API) listQuery(r *http.Request) (listing, error) {
	out := listing{limit: operatorapi.DefaultListed}
	query := r.URL.Query()
	if ref := query.Get(operatorapi.QueryNode); ref != "" {
		node, err := a.db.Node(r.Context(), ref)
		if isNotFound(err) {
			return out, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no node %.100q", ref).withHint("see powernode node list")
		}
		if err != nil {
			return out, err
		}
		out.nodeID = node.ID
	}
	if text := query.Get(operatorapi.QueryLimit); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > operatorapi.MaxListed {
			return out, invalid("%s: want 1 to %d", operatorapi.QueryLimit, operatorapi.MaxListed)
		}
		out.limit = n
	}
	return out, nil
}
