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

// Await asks the platform until it answers, the time of the change that waits is over, or none waits any more. It changes nothing,
// and needs no lock: whoever has something to do meanwhile does it. What has come of it is for Settle. pause is for tests; nil waits
// indeed.
func Await(ctx context.Context, runDir string, p reconcile.Platform, pause func(context.Context, time.Duration)) (reached bool, err error) {
	if pause == nil {
		pause = wait
	}
	for {
		w, ok, err := Waiting(runDir)
		if err != nil || !ok || w.Left <= 0 {
			return false, err
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
	if text, err := c.Recover(ctx); err != nil {
		return err
	} else if text != "" {
		r.Remarks = append(r.Remarks, text)
	}
	if reached {
		if confirmed, err := c.Confirmed(); confirmed || err != nil {
			return err
		}
	}
	back, err := c.TakeBack(ctx)
	switch {
	case err != nil:
		return err
	case back != nil:
		r.Outcome, r.Generation, r.RootDigest, r.Plan = TakenBack, back.Generation, back.RootDigest, back.Plan
		r.Remarks = append(r.Remarks, back.Remarks...)
		if back.Outcome != WentLive {
			r.Remarks = append(r.Remarks, fmt.Sprintf("generation %d %s", back.Generation, backAtBoot))
		}
	case c.Running.Generation != r.Generation:
		r.Outcome, r.Generation = TakenBack, c.Running.Generation
		if g, err := c.Store.Generation(c.Running.Generation); err == nil {
			r.RootDigest = g.RootDigest
		}
		r.Remarks = append(r.Remarks, fmt.Sprintf("it wasn't confirmed, and somebody else went back from it: generation %d runs", r.Generation))
	}
	return nil
}

// Confirmed says that the platform was reached since a generation went live. It reports whether that was waited for. The
// caller holds the lock of package reconcile.
func (c *Changer) Confirmed() (bool, error) {
	p, ok, err := Waiting(c.RunDir)
	if err != nil || !ok {
		return false, err
	}
	// First of all: a change that works isn't taken back because something else can't be read or written.
	if err := removeRun(c.RunDir, ConfirmName, c.Hook); err != nil {
		return false, err
	}
	if p.Generation != c.Running.Generation {
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
	reason := fmt.Sprintf("the platform wasn't reached in time after generation %d went live", waits.Generation)
	switch c.Running.Generation {
	case waits.Generation:
	case waits.Back:
		// Whoever went back couldn't write it down, or was killed before.
		return nil, errors.Join(c.failed(waits.Generation, reason), removeRun(c.RunDir, ConfirmName, c.Hook))
	default:
		return nil, removeRun(c.RunDir, ConfirmName, c.Hook) // something else runs by now
	}
	local := waits.Local
	r, err := c.Do(ctx, Request{Kind: Rollback, Generation: waits.Back, exact: &local})
	if err != nil {
		return nil, fmt.Errorf("%s; go back to generation %d: %w", reason, waits.Back, err)
	}
	r.Remarks = append([]string{reason}, r.Remarks...)
	if err := c.failed(waits.Generation, reason); err != nil {
		// Whoever comes next tries once more.
		r.Remarks = append(r.Remarks, fault.OneLine(err.Error()))
		return r, nil
	}
	return r, removeRun(c.RunDir, ConfirmName, c.Hook)
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
