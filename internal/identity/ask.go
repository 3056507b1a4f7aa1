package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// headStart is how long a source is waited for before the next ones are asked beside it. Those that are on the machine answer in
// milliseconds, but for a drive that spins up or hangs.
const headStart = 1500 * time.Millisecond

// group are sources that are asked together: one, or several Remote ones that follow each other.
type group struct {
	sources []Source
	replies []reply
	// waited is how long BeforeRemote took, which isn't counted.
	waited time.Duration
	done   bool
}

func groupsOf(sources []Source) []*group {
	var groups []*group
	far := false
	for _, s := range sources {
		if _, remote := s.(Remote); remote && far {
			last := groups[len(groups)-1]
			last.sources = append(last.sources, s)
		} else {
			groups, far = append(groups, &group{sources: []Source{s}}), remote
		}
	}
	return groups
}

// course is one run of a Resolver.
type course struct {
	r       Resolver
	groups  []*group
	ended   chan int // the numbers of groups that were asked
	asking  sync.WaitGroup
	begun   time.Time
	waited  time.Duration
	next    int // the group to be asked next
	merged  int // as many groups counted
	id      Identity
	reports []Report
}

// run asks the groups until the identity is complete. It returns without those that are still at work then.
func (c *course) run(ctx context.Context) {
	for c.merged < len(c.groups) {
		enough := c.id.complete() && !c.r.All
		switch {
		case enough:
			c.skip()
		case c.groups[c.merged].done:
			c.merge()
		case c.next < len(c.groups) && (c.next == c.merged || c.groups[c.next-1].done):
			c.start(ctx)
		default:
			c.wait(ctx)
		}
	}
}

// start begins to ask the next group.
func (c *course) start(ctx context.Context) {
	n := c.next
	c.next++
	left := c.r.Timeout - (time.Since(c.begun) - c.waited)
	c.asking.Go(func() {
		c.r.ask(ctx, c.groups[n], left)
		c.ended <- n
	})
}

// wait waits until a group was asked, or it is time not to wait for it with the next one.
func (c *course) wait(ctx context.Context) {
	var late <-chan time.Time
	if c.next < len(c.groups) {
		timer := time.NewTimer(headStart)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case n := <-c.ended:
		c.groups[n].done = true
	case <-late:
		c.start(ctx)
	}
}

// merge has the oldest group count that didn't yet.
func (c *course) merge() {
	g := c.groups[c.merged]
	c.merged++
	c.waited += g.waited
	for i, a := range g.replies {
		if a.report.Status == StatusFound {
			a.report.Reason = c.r.add(&c.id, g.sources[i].Name(), a.found)
		}
		c.reports = append(c.reports, a.report)
	}
}

// skip leaves out the oldest group that doesn't count yet.
func (c *course) skip() {
	for _, s := range c.groups[c.merged].sources {
		c.reports = append(c.reports, Report{Source: s.Name(), Status: StatusSkipped, Reason: "nothing was missing any more"})
	}
	c.merged++
}

// reply is what one source of a group answered.
type reply struct {
	found  Found
	report Report
}

// ask asks the sources of a group side by side, for at most left without BeforeRemote.
func (r Resolver) ask(ctx context.Context, g *group, left time.Duration) {
	replies := make([]reply, len(g.sources))
	asked := make([]bool, len(g.sources))
	var why error
	begun, waited := time.Now(), false
	for i, s := range g.sources {
		asked[i] = true
		remote, ok := s.(Remote)
		if !ok {
			continue
		}
		here, reason := remote.Here()
		if here && r.BeforeRemote != nil && !waited {
			waited, why = true, r.BeforeRemote(ctx)
			g.waited = time.Since(begun)
		}
		switch {
		case !here:
			asked[i], replies[i].report = false, Report{Source: s.Name(), Status: StatusAbsent, Reason: reason, away: true}
		case why != nil:
			asked[i], replies[i].report = false, Report{Source: s.Name(), Status: StatusInvalid, Reason: why.Error(), hint: fault.HintOf(why)}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, left, fmt.Errorf("no answer within %s", r.Timeout))
	defer cancel()
	var wait sync.WaitGroup
	for i, s := range g.sources {
		if asked[i] {
			wait.Go(func() { replies[i].found, replies[i].report = ask(ctx, s) })
		}
	}
	wait.Wait()
	g.replies = replies
}

// ask runs one source and doesn't wait for it beyond ctx.
func ask(ctx context.Context, s Source) (Found, Report) {
	type answer struct {
		found Found
		err   error
	}
	start := time.Now()
	ch := make(chan answer, 1)
	go func() {
		found, err := s.Find(ctx)
		ch <- answer{found, err}
	}()
	var a answer
	select {
	case a = <-ch:
	case <-ctx.Done():
		a.err = context.Cause(ctx)
	}
	rep := Report{Source: s.Name(), Status: StatusFound, Where: a.found.Where, Fields: a.found.fields(), Warnings: a.found.Warnings, Took: time.Since(start)}
	switch {
	case a.err == nil:
	case errors.Is(a.err, ErrNotFound):
		rep.Status, rep.Reason = StatusAbsent, a.err.Error()
	default:
		rep.Status, rep.Reason, rep.hint = StatusInvalid, a.err.Error(), fault.HintOf(a.err)
	}
	return a.found, rep
}
