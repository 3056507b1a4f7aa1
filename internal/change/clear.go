package change

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Earlier is what became of earlier changes.
type Earlier struct {
	// Said says in sentences what was done.
	Said []string
	// Undone are the steps of it that failed.
	Undone []string
	// Result is what the request itself came to: nil where it is still to be done.
	Result *Result
}

// earlier is what a Changer has done about changes before.
type earlier struct {
	undone []string
	// back says that the node is back at what ran before one of them.
	back bool
	// result is that of the way back, where that was a change of its own.
	result *Result
}

// Undone returns the steps that failed of what was brought to its end.
func (c *Changer) Undone() []string { return slices.Clone(c.earlier.undone) }

// Clear makes way for a change: what earlier ones have left is brought to its end, and what is to be taken back is. What it tells is
// good beside an error too. It refuses a change that can't begin: while another one waits to be
// confirmed, which only a rollback may go back from, or where nobody could confirm it. For a dry run it only says
// what would be. The caller holds the lock of package reconcile, but for a dry run.
//
// A rollback that names no generation means what runs when it is typed: where that is taken back here, it is done, and
// where it waits to be confirmed, it goes back to just what ran before.
func (c *Changer) Clear(ctx context.Context, r Request) (Earlier, error) {
	if r.Confirm > 0 && c.Reconciler.Platform() == nil {
		return Earlier{}, fault.New(fault.Refuse, fault.Platform, "enroll this node: powernode-agent enroll, or leave --confirm out",
			"--confirm %s: this node has no credentials that serve, so the platform can't be reached whatever the change does", r.Confirm)
	}
	if c.RunDir == "" {
		return Earlier{}, nil
	}
	if r.DryRun {
		return c.look(ctx, r)
	}
	e, err := c.FinishEarlier(ctx)
	if err != nil {
		return e, err
	}
	if c.earlier.back && isBack(r) {
		e.Result = c.wentBack(e)
		return e, c.Forget()
	}
	p, waits, err := Waiting(c.RunDir)
	if err != nil || !waits || r.Kind == Rollback && r.Confirm == 0 && !isBack(r) {
		return e, err
	}
	switch {
	case p.Generation != c.Running.Generation:
		return e, c.Forget()
	case r.Kind == Rollback && r.Confirm == 0:
		e.Result, err = c.goBackAtOnce(ctx, r)
		return e, err
	}
	if platform := c.Reconciler.Platform(); platform != nil && Ask(ctx, platform, p.Left) {
		if ok, err := c.Confirmed(p); err != nil || ok {
			e.Said = append(e.Said, fmt.Sprintf("generation %d is confirmed: the platform answers", p.Generation))
			return e, err
		}
	}
	// One more would have the node go back to what nobody has confirmed, or nowhere.
	return e, fault.New(fault.Retry, fault.Platform, "wait until the platform was reached or the time is over, or go back at once: powernode-agent rollback",
		"generation %d isn't confirmed yet, and no other change begins: generation %d comes back in %s unless the platform is reached",
		p.Generation, p.Back, left(p))
}

// isBack reports whether a request is to go back from what runs, wherever that leads.
func isBack(r Request) bool { return r.Kind == Rollback && r.Generation == 0 }

// leadsBack reports whether an interrupted change was itself one that goes back: where it comes to nothing, nobody has gone back.
func (c *Changer) leadsBack(j journal) bool {
	to, err := c.Store.Generation(j.To)
	return j.To < j.From || err == nil && strings.HasPrefix(to.Cause, string(Rollback))
}

// wentBack is what becomes of a rollback that found the node gone back.
func (c *Changer) wentBack(e Earlier) *Result {
	n := c.Running.Generation
	r := &Result{Outcome: WentLive, From: n, FromRootDigest: c.rootOf(n), Generation: n, RootDigest: c.rootOf(n), Changes: []Change{}}
	if back := c.earlier.result; back != nil {
		done := *back
		r = &done
	}
	r.Undone = e.Undone
	r.Remarks = []string{"that is what was asked for, and nothing else is rolled back: to go further, ask once more"}
	return r
}

// goBackAtOnce takes back what waits, before its time is over.
func (c *Changer) goBackAtOnce(ctx context.Context, r Request) (*Result, error) {
	var waits confirmation
	if ok, err := readRun(c.RunDir, ConfirmName, &waits); err != nil || !ok {
		return nil, err
	}
	return c.goBack(ctx, waits, r, fmt.Sprintf("generation %d wasn't confirmed yet: what ran before it comes back", waits.Generation), false)
}

// FinishEarlier brings to its end what earlier changes have left, and takes back what nobody confirmed in time. What it tells
// is good beside an error too. The caller holds the lock of package reconcile.
func (c *Changer) FinishEarlier(ctx context.Context) (Earlier, error) {
	said, err := c.mend(ctx)
	e := Earlier{Said: said, Undone: c.earlier.undone}
	if err != nil {
		return e, err
	}
	back, err := c.TakeBack(ctx)
	if back != nil {
		became := "runs again"
		if back.Outcome != WentLive {
			became = backAtBoot
		}
		e.Said = append(e.Said, fmt.Sprintf("%s; generation %d %s", back.Remarks[0], back.Generation, became))
		e.Said = append(e.Said, back.Remarks[1:]...)
		e.Undone = back.Undone // the others are among them
		c.earlier = earlier{undone: e.Undone, back: true, result: back}
	}
	return e, err
}

// mend brings to its end what was interrupted, and removes a record of a change that waits which nobody can read: there is nothing that
// it could be taken back to, and no change could begin any more.
func (c *Changer) mend(ctx context.Context) (said []string, err error) {
	text, err := c.Recover(ctx)
	if text != "" {
		said = append(said, text)
	}
	if err != nil {
		return said, err
	}
	_, _, err = Waiting(c.RunDir)
	if _, system := errors.AsType[syscall.Errno](err); err == nil || system {
		return said, err
	}
	said = append(said, fmt.Sprintf("the record of a change that waits to be confirmed is damaged, and is removed: generation %d stays (%s)",
		c.Running.Generation, fault.OneLine(err.Error())))
	return said, removeRun(c.RunDir, ConfirmName, c.Hook)
}

// look says what a change would find in its way, and refuses where a plan would be of what no generation is.
func (c *Changer) look(ctx context.Context, r Request) (Earlier, error) {
	if Unfinished(c.RunDir) {
		return Earlier{}, fault.New(fault.Retry, fault.General, "the service, or any command that changes something, brings it to its end first",
			"another change is under way, or was interrupted: what is mounted may be of two generations")
	}
	var waits confirmation
	ok, err := readRun(c.RunDir, ConfirmName, &waits)
	if err != nil {
		return Earlier{Said: []string{fault.OneLine(err.Error())}}, nil
	}
	if !ok || waits.Generation != c.Running.Generation {
		return Earlier{}, nil
	}
	p, _, err := Waiting(c.RunDir)
	if err != nil {
		return Earlier{}, err
	}
	var e Earlier
	if e.Said = []string{fmt.Sprintf("generation %d wasn't confirmed in time: generation %d comes back before any change", p.Generation, p.Back)}; p.Left > 0 {
		e.Said = []string{fmt.Sprintf("generation %d isn't confirmed yet: generation %d comes back in %s unless the platform is reached, and no change but a rollback begins before",
			p.Generation, p.Back, left(p))}
	}
	if isBack(r) && r.Confirm == 0 {
		r.Generation, r.exact = waits.Back, &waits.Local
		e.Result, err = c.Do(ctx, r)
	}
	return e, err
}

// Forget ends the waiting for a change that doesn't run any more.
func (c *Changer) Forget() error {
	if c.RunDir == "" {
		return nil
	}
	p, waits, err := Waiting(c.RunDir)
	if err != nil || !waits || p.Generation == c.Running.Generation {
		return err
	}
	return c.endWindow(ending{
		Generation: p.Generation, Deadline: p.deadline, Verdict: wasLeft, Back: c.Running.Generation, RootDigest: c.rootOf(c.Running.Generation),
	})
}

// left is how long is left, for people.
func left(p Pending) time.Duration { return max(p.Left, 0).Round(time.Second) }
