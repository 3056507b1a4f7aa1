package runtime

import (
	"context"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/task"
)

// call makes a call in a goroutine, and has the loop hear of it.
func (w *worker) call(ctx context.Context, limit time.Duration, do func(ctx context.Context) error, tell func(now time.Time, err error)) {
	go func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		_, err := w.run(ctx, task.Handler{Run: func(ctx context.Context, _ task.Task, _ task.Out) (task.Result, error) {
			return task.Result{}, do(ctx)
		}}, task.Task{}, nil)
		w.post(func(now time.Time) { tell(now, err) })
	}()
}

func (w *worker) lease(a task.Action) {
	asked, answer := time.Now(), (*nodeapi.LeaseResponse)(nil)
	request := nodeapi.LeaseRequest{Max: a.Max, WaitSeconds: int(a.Wait / time.Second), Holding: a.Holding}
	w.call(w.leaseCtx, a.Wait+leaseCallTime, func(ctx context.Context) (err error) {
		answer, err = w.t.c.Platform.LeaseTasks(ctx, request)
		return orNothing(answer == nil, err)
	}, func(now time.Time, err error) {
		var tasks []task.Task
		if err == nil {
			for _, l := range answer.Tasks {
				tasks = append(tasks, leased(l))
			}
		}
		w.t.look(func(v *TasksView) {
			v.LeaseFailures++
			if err == nil {
				v.LeaseFailures = 0
			}
		})
		if w.leaseCtx.Err() == nil {
			w.complain("lease tasks", "", err)
		}
		w.complain("take some of the tasks that the platform has for this node", "", w.desk.Leased(now, asked, tasks, answerOf(err)))
	})
}

// leased returns a task as the wire has it.
func leased(l nodeapi.LeasedTask) task.Task {
	options := l.Options
	if string(options) == "null" {
		options = nil
	}
	return task.Task{
		ID: l.ID, Lease: l.LeaseID, Kind: l.Kind, Options: options, Attempt: l.Attempt, CreatedAt: l.CreatedAt.UTC(),
		RequestedBy: l.RequestedBy, LeaseTime: seconds(l.LeaseSeconds), Deadline: seconds(l.DeadlineSeconds),
	}
}

// seconds returns a number off the wire as a time that can be reckoned with.
func seconds(n int) time.Duration {
	const most = 366 * 24 * 3600
	return time.Duration(min(max(n, 0), most)) * time.Second
}

func (w *worker) renew(a task.Action) {
	t, asked, answer := a.Record.Task, time.Now(), (*nodeapi.TaskStanding)(nil)
	w.call(w.ctx, taskCallTime, func(ctx context.Context) (err error) {
		answer, err = w.t.c.Platform.RenewTask(ctx, t.ID, nodeapi.RenewTask{LeaseID: t.Lease})
		return orNothing(answer == nil, err)
	}, func(now time.Time, err error) {
		w.complain("renew the lease of a task", t.ID, err)
		w.desk.Answered(now, asked, t.ID, t.Lease, standing(answer, err))
	})
}

func (w *worker) progress(a task.Action) {
	t, asked, answer, out := a.Record.Task, time.Now(), (*nodeapi.TaskStanding)(nil), w.outputs[a.Record.Task.ID]
	request := nodeapi.TaskProgress{LeaseID: t.Lease, Message: a.Message}
	if out != nil {
		c := out.Next(t.Attempt)
		request.Percent, request.Output, request.OutputOffset = c.Percent, c.Text, c.Offset
		if request.Message == "" {
			request.Message = c.Message
		}
	}
	w.call(w.ctx, taskCallTime, func(ctx context.Context) (err error) {
		answer, err = w.t.c.Platform.TaskProgress(ctx, t.ID, request)
		return orNothing(answer == nil, err)
	}, func(now time.Time, err error) {
		w.complain("tell how far a task is", t.ID, err)
		s := standing(answer, err)
		s.Told = true
		switch {
		case out == nil:
		case err == nil:
			s.More = out.Taken()
		default:
			s.More = out.Waiting()
		}
		w.desk.Answered(now, asked, t.ID, t.Lease, s)
	})
}

func (w *worker) report(r task.Record) {
	t, answer := r.Task, (*nodeapi.TaskEnd)(nil)
	w.call(w.ctx, taskCallTime, func(ctx context.Context) (err error) {
		if r.Outcome.Success {
			answer, err = w.t.c.Platform.CompleteTask(ctx, t.ID, nodeapi.CompleteTask{LeaseID: t.Lease, Result: r.Outcome.Result})
		} else {
			answer, err = w.t.c.Platform.FailTask(ctx, t.ID, nodeapi.FailTask{
				LeaseID: t.Lease, Error: r.Outcome.Error, Code: r.Outcome.Code, Result: r.Outcome.Result,
			})
		}
		return orNothing(answer == nil, err)
	}, func(now time.Time, err error) {
		w.complain("report what became of a task", t.ID, err)
		w.desk.Reported(now, t.ID, t.Lease, answerOf(err))
	})
}

// orNothing is the error of a call without an answer.
func orNothing(nothing bool, err error) error {
	if err == nil && nothing {
		return fault.New(fault.Broken, fault.Platform, "", "call the platform: there is no answer")
	}
	return err
}

func standing(s *nodeapi.TaskStanding, err error) task.Answer {
	a := answerOf(err)
	if err == nil {
		a.LeaseTime, a.Cancel = seconds(s.LeaseSeconds), s.Cancel
	}
	return a
}

// answerOf returns what a call came to. That a lease is lost, a task gone, or a word on it refused for good is what the platform itself has said, by a code: a
// result is kept through everything that somebody before it may answer.
func answerOf(err error) task.Answer {
	a := task.Answer{Verdict: task.Away, After: nodehttp.RetryAfter(err)}
	switch code := nodehttp.CodeOf(err); {
	case err == nil:
		a.Verdict = task.OK
	case code == nodeapi.CodeLeaseLost:
		a.Verdict = task.Lost
	case code == nodeapi.CodeNotFound && nodehttp.StatusOf(err) == http.StatusNotFound:
		a.Verdict = task.Gone
	case code == nodeapi.CodeReportRefused:
		a.Verdict = task.Refused
	case denied(nodehttp.StatusOf(err)):
		a.Verdict = task.Denied
	}
	return a
}
