package change

import (
	"context"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
)

// The platform is asked this often while a change waits to be confirmed, and each time it has so long to answer.
const (
	confirmEvery = 2 * time.Second
	confirmMost  = 10 * time.Second
)

// expectConfirmation has the change taken back unless it is confirmed, whoever is there then to do it.
func (w *work) expectConfirmation(s *Step) error {
	w.result.ConfirmBy = w.c.Now().Add(w.request.Confirm).UTC()
	return w.c.writeRun(ConfirmName, confirmation{
		Generation: s.To.Number, Back: s.From.Number, Local: w.local, Deadline: health.Uptime() + w.request.Confirm,
	})
}

// Pending is a live change that waits to be confirmed.
type Pending struct {
	// Generation went live, and Back ran before.
	Generation, Back uint64
	// Left is how long there is; none where it is to be taken back.
	Left time.Duration
}

// Waiting returns the change that waits to be confirmed; ok is false where there is none.
func Waiting(runDir string) (p Pending, ok bool, err error) {
	var c confirmation
	ok, err = readRun(runDir, ConfirmName, &c)
	return Pending{Generation: c.Generation, Back: c.Back, Left: c.Deadline - health.Uptime()}, ok, err
}

// Confirmed says that the platform was reached since a generation went live: by a list, or by a heartbeat that was answered.
// It reports whether that was waited for. The caller holds the lock of package reconcile.
func (c *Changer) Confirmed() (bool, error) {
	p, ok, err := Waiting(c.RunDir)
	if err != nil || !ok {
		return false, err
	}
	g, err := c.Store.Generation(p.Generation)
	if err != nil {
		return false, err
	}
	// A change that works isn't taken back because that can't be written: the generation's record says it until it goes, and
	// before that it is written, or nothing goes.
	_ = c.Store.RaiseFloors(g, c.Now())
	return true, removeRun(c.RunDir, ConfirmName, c.Hook)
}

// AskOnce asks the platform once whether it is there, and confirms the change that waits if it is.
func (c *Changer) AskOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, confirmMost)
	defer cancel()
	if _, err := c.Reconciler.List(ctx); !answered(err) {
		return nil
	}
	_, err := c.Confirmed()
	return err
}

// AwaitConfirmation asks the platform until it answers, and takes the change back where it doesn't in time. It does nothing
// where no change waits.
func (c *Changer) AwaitConfirmation(ctx context.Context, r *Result) error {
	for {
		p, ok, err := Waiting(c.RunDir)
		if err != nil || !ok {
			return err
		}
		if p.Left <= 0 {
			break
		}
		bounded, cancel := context.WithTimeout(ctx, min(p.Left, confirmMost))
		_, err = c.Reconciler.List(bounded)
		cancel()
		if answered(err) {
			_, err := c.Confirmed()
			r.ConfirmBy = time.Time{}
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx) // the change stays as it is: the service, or the next command, takes it back
		}
		if p, _, _ := Waiting(c.RunDir); p.Left > 0 {
			c.Wait(ctx, min(p.Left, confirmEvery))
		}
	}
	back, err := c.TakeBack(ctx)
	if err != nil || back == nil {
		return err
	}
	r.Outcome, r.ConfirmBy, r.Generation, r.RootDigest = TakenBack, time.Time{}, back.Generation, back.RootDigest
	r.Plan, r.Remarks = back.Plan, append(r.Remarks, back.Remarks...)
	return nil
}

// answered reports whether the platform said something, if only that it has no modules.
func answered(err error) bool {
	return err == nil || fault.KindOf(err) == fault.Refuse && fault.AreaOf(err) == fault.Platform
}

// TakeBack goes back from a change whose time to be confirmed is over. It returns nil where there is none. What the platform says
// doesn't count any more.
func (c *Changer) TakeBack(ctx context.Context) (*Result, error) {
	var waits confirmation
	ok, err := readRun(c.RunDir, ConfirmName, &waits)
	if err != nil || !ok || waits.Deadline > health.Uptime() {
		return nil, err
	}
	reason := fmt.Sprintf("the platform wasn't reached in time after generation %d went live", waits.Generation)
	if c.Running.Generation != waits.Generation {
		return nil, removeRun(c.RunDir, ConfirmName, c.Hook) // something else runs by now
	}
	local := waits.Local
	r, err := c.Do(ctx, Request{Kind: Rollback, Generation: waits.Back, exact: &local})
	if err != nil {
		return nil, fmt.Errorf("%s; go back to generation %d: %w", reason, waits.Back, err)
	}
	r.Remarks = append([]string{reason}, r.Remarks...)
	t, _ := c.Store.Trial(waits.Generation) // a damaged record is replaced
	t.Generation, t.Failed, t.FailedAt = waits.Generation, reason, c.Now().UTC()
	if err := c.Store.PutTrial(t); err != nil {
		r.Remarks = append(r.Remarks, fault.OneLine(err.Error()))
	}
	return r, removeRun(c.RunDir, ConfirmName, c.Hook)
}
