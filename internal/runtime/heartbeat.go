package runtime

import (
	"context"
	"fmt"
	"math/bits"
	"runtime/debug"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// maxSkew is how far the clocks of node and platform may be apart before it is worth a word.
const maxSkew = time.Minute

// heartbeat is the loop that tells the platform how the node is.
type heartbeat struct {
	service *Service
	pulse   *pulse

	failures  int
	lastError string
	since     time.Time // of the first failure in a row
	acked     bool      // at least once
	skewed    bool
	blind     string // the last complaint about facts or state
}

// run beats until ctx ends; what is under way then goes on until work ends.
func (h *heartbeat) run(ctx, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	// A node that was shut out is back soon, and the platform sees a new certificate used.
	var fresh chan struct{}
	if c := h.service.c.Certificate; c != nil {
		fresh = c.fresh
	}
	var outcome Outcome
	var wait time.Duration
	last, at := time.Time{}, time.Time{} // when the last heartbeat ended, and when the next one begins; before the first they are zero
	news := func(hurried bool) {
		if next := last.Add(soonest(outcome, wait, hurried)); next.Before(at) {
			at = next
			timer.Reset(time.Until(at))
		}
	}
	for {
		select {
		case <-timer.C:
			if ctx.Err() != nil {
				return
			}
			for _, asked := range []chan struct{}{fresh, h.service.hurry, h.service.now} {
				select {
				case <-asked: // this is it
				default:
				}
			}
			h.pulse.within(h.service.c.Timeout)
			outcome = h.beat(work)
			wait, last = NextInterval(outcome, h.service.c.Rand()), time.Now()
			at = last.Add(wait)
			h.pulse.within(wait)
			timer.Reset(wait)
		case <-fresh:
			news(true)
		case <-h.service.hurry:
			news(true)
		case <-h.service.now:
			news(false)
		case <-ctx.Done():
			return
		}
	}
}

// beat sends one heartbeat and returns what became of it. Whatever goes wrong is said here, since
// the loop goes on.
func (h *heartbeat) beat(work context.Context) Outcome {
	ctx, cancel := context.WithTimeout(work, h.service.c.Timeout)
	defer cancel()
	start := time.Now()
	answer, err := h.send(ctx)
	switch {
	case err != nil && work.Err() != nil:
		// The service ends, and the drain time is over.
		return Outcome{Failures: h.failures + 1}
	case err != nil:
		return h.failed(err)
	}
	h.acknowledged(answer, start)
	return Outcome{NextPollSeconds: answer.NextPollSeconds}
}

// send gathers and sends. A panic on the way is an error: a defect in what a heartbeat reports on
// must not end the reports.
func (h *heartbeat) send(ctx context.Context) (answer *nodeapi.HeartbeatResponse, err error) {
	defer func() {
		if r := recover(); r != nil {
			h.service.c.Log.Error("a heartbeat panicked", "panic", r, "stack", string(debug.Stack()))
			err = fault.New(fault.Broken, fault.General, "report this defect", "send the heartbeat: panic: %v", r)
		}
	}()
	facts, factsErr := ReadFacts(h.service.c.Proc)
	state, stateErr := h.service.c.State.State(ctx)
	if stateErr != nil && state.Mount == "" {
		// What isn't known to be mounted isn't claimed to be.
		state.Mount = nodeapi.MountUnmounted
	}
	h.complain(factsErr, stateErr)
	answer, err = h.service.c.Platform.Heartbeat(ctx, newHeartbeat(h.service.c, facts, state))
	switch c := h.service.c.Certificate; {
	case c == nil:
	case err != nil:
		c.Refused(err)
	case answer != nil:
		c.Answered(answer)
	}
	if err == nil && answer != nil && h.service.c.Heard != nil {
		h.service.c.Heard(answer)
	}
	if err == nil && answer == nil {
		err = fault.New(fault.Broken, fault.Platform, "", "send the heartbeat: there is no answer")
	}
	return answer, err
}

// unknown stands for a fact that the platform insists on and that can't be found out.
const unknown = "unknown"

// newHeartbeat puts the wire's struct together.
func newHeartbeat(c Config, f Facts, s State) nodeapi.Heartbeat {
	if f.BootID == "" {
		f.BootID = unknown
	}
	if s.Modules == nil {
		s.Modules = map[string]string{}
	}
	hb := nodeapi.Heartbeat{
		BootID: f.BootID, AgentVersion: c.AgentVersion, Architecture: c.Architecture, UptimeSeconds: int64(f.Uptime / time.Second),
		ModuleDigests: s.Modules, MountState: s.Mount, LoadAverage: f.LoadAverage, MemoryFreeKB: f.MemoryAvailableKB,
		RootDigest: s.RootDigest, IntegrityLevel: s.Level, Generation: s.Generation,
	}
	hb.Machine = ReadMachine(c.Sys)
	if c.Certificate != nil {
		hb.CABundleSHA256, hb.Remarks = c.Certificate.CABundle(), c.Certificate.Remarks()
	}
	if c.ConfigDigest != nil {
		hb.ConfigDigest = c.ConfigDigest()
	}
	if c.Remarks != nil {
		hb.Remarks = append(hb.Remarks, c.Remarks()...)
	}
	return hb
}

// complain says once, until it changes, what a heartbeat can't report.
func (h *heartbeat) complain(facts, state error) {
	text := ""
	if facts != nil || state != nil {
		text = fmt.Sprint(facts, state)
	}
	if text != h.blind && text != "" {
		h.service.c.Log.Warn("the heartbeat is incomplete", "facts", facts, "state", state)
	}
	h.blind = text
}

func (h *heartbeat) failed(err error) Outcome {
	h.failures++
	h.service.look(func(v *View) { v.Failed, v.FailuresInARow = v.Failed+1, h.failures })
	if h.failures == 1 {
		h.since = time.Now()
	}
	// A long outage shouldn't fill the journal: a new reason, and every doubling, is news.
	if text := err.Error(); text != h.lastError || bits.OnesCount(uint(h.failures)) == 1 {
		h.lastError = text
		h.service.c.Log.Warn("the heartbeat failed", "attempt", h.failures, "error", err, "hint", fault.HintOf(err))
	}
	h.service.status("No heartbeat acknowledged since %s (%d attempts): %v", h.since.Format(time.TimeOnly), h.failures, err)
	return Outcome{Failures: h.failures, Refused: fault.KindOf(err) != fault.Retry, RetryAfter: nodehttp.RetryAfter(err)}
}

func (h *heartbeat) acknowledged(answer *nodeapi.HeartbeatResponse, sent time.Time) {
	log := h.service.c.Log
	switch {
	case !h.acked:
		log.Info("the platform acknowledged the first heartbeat", "after_failures", h.failures)
	case h.failures > 0:
		log.Info("the platform acknowledges heartbeats again", "after_failures", h.failures, "outage", time.Since(h.since).Round(time.Second))
	}
	h.acked, h.failures, h.lastError = true, 0, ""
	h.service.reached.Store(true)
	h.service.look(func(v *View) { v.Acknowledged, v.FailuresInARow, v.Last = v.Acknowledged+1, 0, time.Now() })
	h.service.status("Heartbeat acknowledged at %s", time.Now().Format(time.TimeOnly))
	if answer.ServerTime.IsZero() {
		return
	}
	// The answer was made somewhere between sending and now.
	skew := time.Duration(0)
	if d := time.Until(answer.ServerTime); d > maxSkew {
		skew = d
	} else if d := sent.Sub(answer.ServerTime); d > maxSkew {
		skew = -d
	}
	if skew != 0 && !h.skewed {
		log.Warn("this machine's clock and the platform's differ", "platform_ahead_by", skew.Round(time.Second))
	}
	h.skewed = skew != 0
}
