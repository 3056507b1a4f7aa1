package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/lease"
)

// Bounds of what a node sends about tasks, in bytes.
const (
	maxLeaseRequest = 16 << 10
	// A control character takes six bytes in JSON.
	maxProgress = 6*nodeapi.MaxOutputChunk + 16<<10
	maxTaskEnd  = nodeapi.MaxTaskResult + 16<<10
	// Beyond a terabyte the offset is no offset.
	maxOutputOffset = 1 << 40
)

var (
	leaseForm    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	failCodeForm = regexp.MustCompile(`^[A-Z0-9_]{1,64}$`)
)

// leaseTasks gives a node tasks, and waits for some where there are none.
func (a *API) leaseTasks(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.LeaseRequest](w, r, maxLeaseRequest)
	if err != nil {
		return nil, err
	}
	if in.Max == 0 {
		in.Max = 1
	}
	if in.Max < 0 || in.Max > nodeapi.MaxLeased || in.WaitSeconds < 0 || len(in.Holding) > nodeapi.MaxHolding {
		return nil, invalid("max: want 1 to %d; wait_seconds: want 0 or more; holding: want at most %d leases", nodeapi.MaxLeased, nodeapi.MaxHolding)
	}
	if !a.polls.enter(node.NodeID) {
		return nil, crowded(w, "this node has %d calls for tasks under way", maxPolls)
	}
	defer a.polls.leave(node.NodeID)
	tasks, err := a.awaitTasks(r, node.NodeID, in)
	if err != nil {
		return nil, err
	}
	answer := nodeapi.LeaseResponse{Tasks: []nodeapi.LeasedTask{}}
	for _, t := range tasks {
		a.log.Info("leased a task", "node", t.NodeID, "task", t.ID, "kind", t.Kind, "attempt", t.Attempt)
		answer.Tasks = append(answer.Tasks, nodeapi.LeasedTask{
			ID: t.ID, LeaseID: t.Lease, Kind: t.Kind, Options: json.RawMessage(t.Options), Attempt: t.Attempt, CreatedAt: t.CreatedAt,
			LeaseSeconds: int(lease.Life / time.Second), DeadlineSeconds: int(t.Deadline / time.Second), RequestedBy: t.RequestedBy,
		})
	}
	return answer, nil
}

// awaitTasks returns tasks as soon as there are some, or none when the time is over, or the platform stops.
func (a *API) awaitTasks(r *http.Request, nodeID string, in nodeapi.LeaseRequest) ([]db.Task, error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// Before the first look, so that nothing comes between.
	woken := a.db.Watch(ctx, db.TaskTopic(nodeID))
	over := time.NewTimer(time.Duration(min(in.WaitSeconds, int(nodeapi.MaxLeaseWait/time.Second))) * time.Second)
	defer over.Stop()
	for {
		got, err := a.db.LeaseTasks(ctx, nodeID, in.Holding, in.Max)
		if err != nil || len(got.Tasks) > 0 || in.WaitSeconds == 0 {
			return got.Tasks, err
		}
		expired, stop := a.at(got.Wake)
		again := false
		select {
		case <-woken:
			again = true
		case <-expired:
			again = true
		case <-over.C:
		case <-a.polls.draining:
		case <-ctx.Done():
			err = ctx.Err()
		}
		stop()
		if err != nil || !again {
			return nil, err
		}
		// What the node said of its leases was so when it asked, and its certificate may have been good only then.
		in.Holding = nil
		if _, err := a.node(r); err != nil {
			return nil, err
		}
	}
}

// at returns a channel that holds something from that time on, but not within the next second; never for no time.
func (a *API) at(t time.Time) (due <-chan time.Time, stop func()) {
	if t.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(max(t.Sub(a.now()), time.Second))
	return timer.C, func() { timer.Stop() }
}

// renewTask keeps a lease in force.
func (a *API) renewTask(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.RenewTask](w, r, maxLeaseRequest)
	if err == nil {
		err = checkLease(in.LeaseID)
	}
	if err != nil {
		return nil, err
	}
	t, err := a.db.RenewTask(r.Context(), node.NodeID, r.PathValue("task"), in.LeaseID)
	return standing(t), taskError(err)
}

// progressTask keeps what a node says of a task under way.
func (a *API) progressTask(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.TaskProgress](w, r, maxProgress)
	if err == nil {
		err = checkLease(in.LeaseID)
	}
	if err == nil {
		err = refusedAs(nodeapi.CodeReportRefused, checkText("message", in.Message, nodeapi.MaxTaskMessage, false))
	}
	if err != nil {
		return nil, err
	}
	if in.Percent < 0 || in.Percent > 100 || in.OutputOffset < 0 || in.OutputOffset > maxOutputOffset || len(in.Output) > nodeapi.MaxOutputChunk {
		return nil, refusedAs(nodeapi.CodeReportRefused,
			invalid("percent: want 0 to 100; output: want at most %d bytes, from an offset that isn't negative", nodeapi.MaxOutputChunk))
	}
	t, err := a.db.ProgressTask(r.Context(), node.NodeID, r.PathValue("task"), in)
	return standing(t), taskError(err)
}

func standing(t db.Task) nodeapi.TaskStanding {
	return nodeapi.TaskStanding{LeaseSeconds: int(lease.Life / time.Second), Cancel: t.State == nodeapi.TaskCancelling}
}

// completeTask ends a task that was done.
func (a *API) completeTask(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.CompleteTask](w, r, maxTaskEnd)
	if err != nil {
		return nil, err
	}
	return a.endTask(r, node, db.TaskOutcome{Lease: in.LeaseID}, in.Result)
}

// failTask ends a task that wasn't done.
func (a *API) failTask(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.FailTask](w, r, maxTaskEnd)
	if err != nil {
		return nil, err
	}
	if err := checkText("error", in.Error, nodeapi.MaxTaskMessage, true); err != nil {
		return nil, refusedAs(nodeapi.CodeReportRefused, err)
	}
	if !failCodeForm.MatchString(string(in.Code)) {
		return nil, refusedAs(nodeapi.CodeReportRefused, invalid("code %.80q: want 1 to 64 capital letters, digits and underscores", in.Code))
	}
	return a.endTask(r, node, db.TaskOutcome{Lease: in.LeaseID, Failed: true, Code: in.Code, Error: in.Error}, in.Result)
}

func (a *API) endTask(r *http.Request, node db.Standing, out db.TaskOutcome, result json.RawMessage) (any, error) {
	err := checkLease(out.Lease)
	if err == nil {
		out.Result, err = jsonObject("result", result, nodeapi.MaxTaskResult)
		err = refusedAs(nodeapi.CodeReportRefused, err)
	}
	if err != nil {
		return nil, err
	}
	t, err := a.db.EndTask(r.Context(), node.NodeID, r.PathValue("task"), out)
	if err != nil {
		return nil, taskError(err)
	}
	a.log.Info("a task ended", "node", t.NodeID, "task", t.ID, "kind", t.Kind, "state", t.State, "code", t.Code)
	return nodeapi.TaskEnd{State: t.State}, nil
}

func checkLease(id string) error {
	switch {
	case id == "":
		return refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "lease_id is needed")
	case !leaseForm.MatchString(id):
		return invalid("lease_id %.80q: want 32 lower-case hexadecimal digits", id)
	}
	return nil
}

// taskError is what a node is told where it doesn't have the task.
func taskError(err error) error {
	switch {
	case errors.Is(err, lease.ErrLost):
		return refuse(http.StatusConflict, nodeapi.CodeLeaseLost, "this lease isn't in force: it expired, another took its place, or the task has ended")
	case isNotFound(err):
		return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "task not found")
	}
	return err
}
