package change

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// The platform is asked this often while a change waits to be confirmed, and each time it has so long to answer.
const (
	confirmEvery = 2 * time.Second
	confirmMost  = 10 * time.Second
)

// expectConfirmation has the change taken back unless it is confirmed, whoever is there then to do it.
func (w *work) expectConfirmation(s *Step) error {
	w.result.ConfirmBy, w.result.window = w.c.Now().Add(w.request.Confirm).UTC(), health.Uptime()+w.request.Confirm
	return w.c.writeRun(ConfirmName, confirmation{
		Generation: s.To.Number, Back: s.From.Number, Local: w.local, Deadline: w.result.window,
	})
}

// Pending is a live change that waits to be confirmed.
type Pending struct {
	// Generation went live, and Back ran before.
	Generation, Back uint64
	// Left is how long there is; none where it is to be taken back.
	Left time.Duration
	// deadline tells it from another time that the same generation waits.
	deadline time.Duration
}

// is reports whether it is that window in which a generation waits.
func (p Pending) is(generation uint64, deadline time.Duration) bool {
	return p.Generation == generation && p.deadline == deadline
}

// Waiting returns the change that waits to be confirmed; ok is false where there is none.
func Waiting(runDir string) (p Pending, ok bool, err error) {
	var c confirmation
	ok, err = readRun(runDir, ConfirmName, &c)
	return Pending{Generation: c.Generation, Back: c.Back, Left: c.Deadline - health.Uptime(), deadline: c.Deadline}, ok, err
}

// Reached reports whether a call to the platform that ended with err was answered by it: well, or with a status, which comes
// over a connection on which it has proven who it is. Whatever else ends a call, a certificate of somebody else's before all, may be
// what the change has done to the network.
func Reached(err error) bool { return err == nil || nodehttp.StatusOf(err) != 0 }

// backAtBoot is said of a generation that is to come back.
const backAtBoot = "can't come back live, and does so at the next boot"

// Ask asks the platform once whether it is there, for at most so long.
func Ask(ctx context.Context, p reconcile.Platform, most time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, min(most, confirmMost))
	defer cancel()
	_, err := p.Modules(ctx)
	return Reached(err)
}

// Await asks the platform until it answers, the time of the change that r is of is over, or that waits no more. It changes nothing,
// and needs no lock: whoever has something to do meanwhile does it. What has come of it is for Settle. pause is for tests; nil waits
// indeed.
func Await(ctx context.Context, runDir string, r *Result, p reconcile.Platform, pause func(context.Context, time.Duration)) (reached bool, err error) {
	if pause == nil {
		pause = wait
	}
	for {
		w, ok, _ := Waiting(runDir) // one that can't be read is none, and Settle mends it
		if !ok || !w.is(r.Generation, r.window) || w.Left <= 0 {
			return false, nil
		}
		if Ask(ctx, p, w.Left) {
			return true, nil
		}
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		pause(ctx, min(w.Left, confirmEvery))
	}
}

// Settle ends the waiting of the change that r is of, by what Await returned, or finds out how somebody else ended it. The
// caller holds the lock of package reconcile.
func (c *Changer) Settle(ctx context.Context, reached bool, r *Result) error {
	r.ConfirmBy = time.Time{}
	said, err := c.mend(ctx)
	r.Remarks, r.Undone = append(r.Remarks, said...), append(r.Undone, c.earlier.undone...)
	if err != nil {
		return err
	}
	p, waits, err := Waiting(c.RunDir)
	if err != nil {
		return err
	}
	var e ending
	known := false
	if waits && p.is(r.Generation, r.window) {
		if reached {
			ok, err := c.Confirmed(p)
			if ok || err != nil {
				return err
			}
		} else if back, err := c.TakeBack(ctx); err != nil {
			return err
		} else if back != nil {
			e, known = endingOf(back), true
		}
	}
	if !known {
		if e, known = c.ending(r.Generation, r.window); !known {
			e = c.guess(r.Generation)
		}
	}
	e.settle(r, c.Running.Generation)
	return nil
}

// Confirmed says that the platform was reached since a generation went live, where that is waited for still, and by a question
// that was asked in this window. It reports whether that was so. The caller holds the lock of package reconcile.
func (c *Changer) Confirmed(p Pending) (bool, error) {
	now, ok, err := Waiting(c.RunDir)
	if err != nil || !ok || !now.is(p.Generation, p.deadline) {
		return false, err
	}
	e := ending{Generation: p.Generation, Deadline: p.deadline, Verdict: wasConfirmed}
	if p.Generation != c.Running.Generation {
		e.Verdict, e.Back, e.RootDigest = wasLeft, c.Running.Generation, c.rootOf(c.Running.Generation)
	}
	// A change that works isn't taken back because something else can't be read or written.
	_ = c.ended(e)
	if err := removeRun(c.RunDir, ConfirmName, c.Hook); err != nil {
		return false, err
	}
	if e.Verdict != wasConfirmed {
		return false, nil // something else runs by now
	}
	if g, err := c.Store.Generation(p.Generation); err == nil {
		// The records of the generation say it until they go, and before that it is written, or nothing goes.
		_ = c.Store.RaiseFloors(g, c.Now())
	}
	return true, nil
}

// TakeBack goes back from a change whose time to be confirmed is over. It returns nil where there is none. What the platform says
// doesn't count any more.
func (c *Changer) TakeBack(ctx context.Context) (*Result, error) {
	var waits confirmation
	ok, err := readRun(c.RunDir, ConfirmName, &waits)
	if err != nil || !ok || waits.Deadline > health.Uptime() {
		return nil, err
	}
	return c.goBack(ctx, waits, Request{Kind: Rollback}, fmt.Sprintf("the platform wasn't reached in time after generation %d went live", waits.Generation), true)
}

// goBack goes back from a change that waits, as a request says, and ends the waiting. failed says that the generation has failed, and not
// that somebody wants it so.
func (c *Changer) goBack(ctx context.Context, waits confirmation, request Request, reason string, failed bool) (*Result, error) {
	e := ending{Generation: waits.Generation, Deadline: waits.Deadline, Verdict: wasTakenBack, Back: waits.Back, RootDigest: c.rootOf(waits.Back), Remarks: []string{reason}}
	if !failed {
		e.Verdict = wasLeft
	}
	switch c.Running.Generation {
	case waits.Generation:
	case waits.Back:
		// Whoever went back couldn't write it down, or was killed before.
		c.earlier.back = true
		var err error
		if failed {
			err = c.failed(waits.Generation, reason)
		}
		if _, known := c.ending(waits.Generation, waits.Deadline); known {
			return nil, errors.Join(err, removeRun(c.RunDir, ConfirmName, c.Hook))
		}
		return nil, errors.Join(err, c.endWindow(e))
	default:
		e.Verdict, e.Back, e.RootDigest, e.Remarks = wasLeft, c.Running.Generation, c.rootOf(c.Running.Generation), nil
		return nil, c.endWindow(e) // something else runs by now
	}
	request.Generation, request.exact = waits.Back, &waits.Local
	if failed {
		request.bad = reason // whoever is killed after the pointer was set has left that, too
	}
	r, err := c.Do(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("%s; go back to generation %d: %w", reason, waits.Back, err)
	}
	r.Remarks = append([]string{reason}, r.Remarks...)
	if failed {
		if err := c.failed(waits.Generation, reason); err != nil {
			// Whoever comes next tries once more.
			r.Remarks = append(r.Remarks, fault.OneLine(err.Error()))
			return r, nil
		}
	}
	done := endingOf(r)
	done.Generation, done.Deadline, done.Verdict = e.Generation, e.Deadline, e.Verdict
	if !failed {
		done.Remarks = nil // who asked for it was told
	}
	return r, c.endWindow(done)
}

// endingOf is how a window ended that somebody went back from.
func endingOf(back *Result) ending {
	e := ending{Verdict: wasTakenBack, Back: back.Generation, RootDigest: back.RootDigest, Remarks: back.Remarks, Undone: back.Undone, plan: back.Plan}
	if back.Plan != nil {
		e.Way, e.Reasons = back.Plan.Way, back.Plan.Reasons
	}
	return e
}

// endWindow ends the waiting. That how it ended can't be written down ends it all the same.
func (c *Changer) endWindow(e ending) error {
	_ = c.ended(e)
	return removeRun(c.RunDir, ConfirmName, c.Hook)
}

// failed writes down that a generation isn't to be taken up again.
func (c *Changer) failed(generation uint64, reason string) error {
	t, _ := c.Store.Trial(generation) // a damaged record is replaced
	t.Generation, t.Failed, t.FailedAt = generation, reason, c.Now().UTC()
	return c.Store.PutTrial(t)
}

// unexpect has a change not be waited for that didn't come about; what waited before it goes on waiting.
func (c *Changer) unexpect(generation uint64) error {
	p, ok, err := Waiting(c.RunDir)
	if err == nil && ok && p.Generation != generation {
		return nil
	}
	return removeRun(c.RunDir, ConfirmName, c.Hook)
}
