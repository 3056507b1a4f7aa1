package change

import (
	"context"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Clear makes way for a change: what earlier ones have left is brought to its end, and what is to be taken back is. It says in
// sentences what was done, beside an error too. It refuses a change that can't begin: while another one waits to be
// confirmed, which only a rollback may go back from, or where nobody could confirm it. For a dry run it only says
// what would be. The caller holds the lock of package reconcile, but for a dry run.
func (c *Changer) Clear(ctx context.Context, r Request) (said []string, err error) {
	if r.Confirm > 0 && c.Reconciler.Platform() == nil {
		return nil, fault.New(fault.Refuse, fault.Platform, "enroll this node: powernode-agent enroll, or leave --confirm out",
			"--confirm %s: this node has no credentials that serve, so the platform can't be reached whatever the change does", r.Confirm)
	}
	if c.RunDir == "" {
		return nil, nil
	}
	if r.DryRun {
		return c.look()
	}
	if said, err = c.FinishEarlier(ctx); err != nil {
		return said, err
	}
	p, waits, err := Waiting(c.RunDir)
	if err != nil || !waits || r.Kind == Rollback && r.Confirm == 0 {
		return said, err
	}
	if p.Generation != c.Running.Generation {
		return said, c.Forget()
	}
	if platform := c.Reconciler.Platform(); platform != nil && Ask(ctx, platform, p.Left) {
		_, err := c.Confirmed()
		return append(said, fmt.Sprintf("generation %d is confirmed: the platform answers", p.Generation)), err
	}
	// One more would have the node go back to what nobody has confirmed, or nowhere.
	return said, fault.New(fault.Retry, fault.Platform, "wait until the platform was reached or the time is over, or go back at once: powernode-agent rollback",
		"generation %d isn't confirmed yet, and no other change begins: generation %d comes back in %s unless the platform is reached",
		p.Generation, p.Back, left(p))
}

// FinishEarlier brings to its end what earlier changes have left, and takes back what nobody confirmed in time. It says in sentences
// what was done, beside an error too. The caller holds the lock of package reconcile.
func (c *Changer) FinishEarlier(ctx context.Context) (said []string, err error) {
	text, err := c.Recover(ctx)
	if text != "" {
		said = append(said, text)
	}
	if err != nil {
		return said, err
	}
	back, err := c.TakeBack(ctx)
	if back != nil {
		became := "runs again"
		if back.Outcome != WentLive {
			became = backAtBoot
		}
		said = append(said, fmt.Sprintf("%s; generation %d %s", back.Remarks[0], back.Generation, became))
		said = append(said, back.Remarks[1:]...)
	}
	return said, err
}

// look says what a change would find in its way, and refuses where a plan would be of what no generation is.
func (c *Changer) look() ([]string, error) {
	if Unfinished(c.RunDir) {
		return nil, fault.New(fault.Retry, fault.General, "the service, or any command that changes something, brings it to its end first",
			"another change is under way, or was interrupted: what is mounted may be of two generations")
	}
	p, waits, err := Waiting(c.RunDir)
	switch {
	case err != nil || !waits || p.Generation != c.Running.Generation:
		return nil, err
	case p.Left <= 0:
		return []string{fmt.Sprintf("generation %d wasn't confirmed in time: generation %d comes back before any change", p.Generation, p.Back)}, nil
	}
	return []string{fmt.Sprintf("generation %d isn't confirmed yet: generation %d comes back in %s unless the platform is reached, and no change but a rollback begins before",
		p.Generation, p.Back, left(p))}, nil
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
	return removeRun(c.RunDir, ConfirmName, c.Hook)
}

// left is how long is left, for people.
func left(p Pending) time.Duration { return max(p.Left, 0).Round(time.Second) }
