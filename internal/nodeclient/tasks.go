package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

var leaseForm = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)

// LeaseTasks asks for tasks, in one attempt that lasts as long as the platform is asked to wait. An answer that isn't
// as agreed is an error as a whole: its leases expire.
func (c *Client) LeaseTasks(ctx context.Context, in nodeapi.LeaseRequest) (*nodeapi.LeaseResponse, error) {
	const doing = "lease tasks"
	var answer nodeapi.LeaseResponse
	wait := min(time.Duration(max(in.WaitSeconds, 0))*time.Second, nodeapi.MaxLeaseWait)
	call := nodehttp.Call{Doing: doing, Method: http.MethodPost, Path: nodeapi.PathTaskLease, Body: in, Into: &answer, Wait: wait}
	if err := c.do(ctx, call); err != nil {
		return nil, err
	}
	if err := checkLeased(answer.Tasks, max(in.Max, 1)); err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintPlatform, doing+": %w", err)
	}
	return &answer, nil
}

// checkLeased says what is wrong with leased tasks, or returns nil. Kinds and options are for who does the tasks to judge.
func checkLeased(tasks []nodeapi.LeasedTask, most int) error {
	if tasks == nil {
		return errors.New("the answer holds no list of tasks")
	}
	if len(tasks) > most {
		return fmt.Errorf("the answer holds %d tasks, more than %d", len(tasks), most)
	}
	seen := make(map[string]bool, len(tasks))
	for i, t := range tasks {
		switch {
		case !idForm.MatchString(t.ID) || seen[t.ID]:
			return fmt.Errorf("task %d of %d: %.80q isn't the ID of one", i+1, len(tasks), t.ID)
		case !leaseForm.MatchString(t.LeaseID):
			return fmt.Errorf("task %s: %.80q isn't a lease", t.ID, t.LeaseID)
		case t.Kind == "" || len(t.Kind) > 64:
			return fmt.Errorf("task %s: %.80q isn't a kind", t.ID, t.Kind)
		case len(t.Options) > nodeapi.MaxTaskOptions:
			return fmt.Errorf("task %s: options of more than %d bytes", t.ID, nodeapi.MaxTaskOptions)
		case t.Attempt < 1 || t.LeaseSeconds < 1 || t.DeadlineSeconds < 0:
			return fmt.Errorf("task %s: attempt %d, a lease of %d s and a deadline of %d s can't be", t.ID, t.Attempt, t.LeaseSeconds, t.DeadlineSeconds)
		}
		seen[t.ID] = true
	}
	return nil
}

// RenewTask keeps a lease in force, in one attempt. An error of the status 409 says that it isn't: nodeapi.CodeLeaseLost; one of 404
// that the platform has no such task.
func (c *Client) RenewTask(ctx context.Context, id string, in nodeapi.RenewTask) (*nodeapi.TaskStanding, error) {
	return onTask(ctx, c, "renew the lease of task "+id, nodeapi.PathTaskRenew, id, in, checkStanding)
}

// TaskProgress says how far a task is, and keeps its lease in force; as RenewTask.
func (c *Client) TaskProgress(ctx context.Context, id string, in nodeapi.TaskProgress) (*nodeapi.TaskStanding, error) {
	in.Percent = min(max(in.Percent, 0), 100)
	in.Message = clip(in.Message, nodeapi.MaxTaskMessage)
	return onTask(ctx, c, "tell how far task "+id+" is", nodeapi.PathTaskProgress, id, in, checkStanding)
}

// CompleteTask ends a task that was done; as RenewTask, and the same again is no error.
func (c *Client) CompleteTask(ctx context.Context, id string, in nodeapi.CompleteTask) (*nodeapi.TaskEnd, error) {
	return onTask(ctx, c, "complete task "+id, nodeapi.PathTaskComplete, id, in, checkEnd)
}

// FailTask ends a task that wasn't done; as CompleteTask.
func (c *Client) FailTask(ctx context.Context, id string, in nodeapi.FailTask) (*nodeapi.TaskEnd, error) {
	if in.Error = clip(in.Error, nodeapi.MaxTaskMessage); in.Error == "" {
		in.Error = string(in.Code)
	}
	return onTask(ctx, c, "fail task "+id, nodeapi.PathTaskFail, id, in, checkEnd)
}

// checkStanding says what is wrong with an answer that keeps a lease in force, or returns nil.
func checkStanding(s nodeapi.TaskStanding) error {
	if s.LeaseSeconds < 1 {
		return fmt.Errorf("a lease of %d s can't be", s.LeaseSeconds)
	}
	return nil
}

// checkEnd says what is wrong with the acknowledgement of a task's end, or returns nil. One that doesn't say so acknowledges nothing:
// what came of the task would be forgotten here, and never known there.
func checkEnd(e nodeapi.TaskEnd) error {
	if !e.State.Ended() {
		return fmt.Errorf("%.40q isn't the state of a task that has ended", e.State)
	}
	return nil
}

// onTask makes one attempt at a call about a task.
func onTask[T any](ctx context.Context, c *Client, doing, path, id string, in any, check func(T) error) (*T, error) {
	if !idForm.MatchString(id) {
		return nil, fault.New(fault.Refuse, fault.Input, "take the ID from a leased task", "%.80q isn't the ID of a task", id)
	}
	var answer T
	if err := c.do(ctx, nodehttp.Call{Doing: doing, Method: http.MethodPost, Path: nodeapi.TaskPath(path, id), Body: in, Into: &answer}); err != nil {
		return nil, err
	}
	if err := check(answer); err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: %w", doing, err)
	}
	return &answer, nil
}

// Events tells the platform what happened on the node, the oldest first and at most nodeapi.MaxEvents, in one attempt. Once it returns nil,
// the platform has all of them, and the same again is no harm.
func (c *Client) Events(ctx context.Context, events []nodeapi.Event) error {
	const doing = "send events"
	clipped := make([]nodeapi.Event, len(events))
	for i, e := range events {
		clipped[i] = clipEvent(e)
	}
	var answer nodeapi.EventsResponse
	if err := c.do(ctx, nodehttp.Call{Doing: doing, Method: http.MethodPost, Path: nodeapi.PathEvents, Body: nodeapi.EventsRequest{Events: clipped}, Into: &answer}); err != nil {
		return err
	}
	if answer.Accepted != len(events) {
		return fault.New(fault.Retry, fault.Platform, hintPlatform, doing+": the platform took %d of %d", answer.Accepted, len(events))
	}
	return nil
}

// clipEvent returns an event that the platform doesn't refuse for its size or its characters.
func clipEvent(e nodeapi.Event) nodeapi.Event {
	if e.Text = clip(e.Text, nodeapi.MaxEventText); e.Text == "" {
		e.Text = clip(e.Kind, nodeapi.MaxEventKind)
	}
	fields := make(map[string]string, len(e.Fields))
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		if short := clip(name, nodeapi.MaxEventFieldName); short != "" && len(fields) < nodeapi.MaxEventFields {
			fields[short] = clip(e.Fields[name], nodeapi.MaxEventFieldValue)
		}
	}
	e.Fields = fields
	return e
}
