package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Verdict is what a call to the platform came to.
type Verdict uint8

// The verdicts. The zero value is the one that changes nothing.
const (
	Away    Verdict = iota // nothing, or a failure that may pass
	OK                     // it has it
	Lost                   // the lease isn't in force
	Gone                   // there is no such task
	Refused                // it says that it won't ever take this, as it is
	Denied                 // it takes nothing of this kind, or from this node; or somebody before it said something
)

// Answer is what a call to the platform came to, with what it was told.
type Answer struct {
	Verdict Verdict
	// After is how long the platform asked to wait; 0 is nothing.
	After time.Duration
	// LeaseTime is how long the lease is good from when the call was begun; Cancel asks to stop the work.
	LeaseTime time.Duration
	Cancel    bool
	// Told says that the call was one of Tell, More that there is more to tell.
	Told, More bool
}

// Leased tells what became of a call for tasks that was begun at asked. It returns what is wrong with those that aren't
// taken; those are left to the platform.
func (d *Desk) Leased(now, asked time.Time, tasks []Task, a Answer) error {
	d.asking, d.idle = false, true
	defer d.sought(a.Verdict == OK)
	if a.Verdict != OK {
		first, most := leaseFirst, leaseMost
		if a.Verdict != Away {
			first, most = deniedFirst, deniedMost
		}
		d.lease.failed(now, first, most, a.After, d.s.Chance())
		return nil
	}
	d.lease.reset()
	var errs []error
	for i, t := range tasks {
		if i >= nodeapi.MaxLeased {
			errs = append(errs, fmt.Errorf("%d tasks at once, %d are taken", len(tasks), nodeapi.MaxLeased))
			break
		}
		if err := t.Check(); err != nil {
			errs = append(errs, err)
			continue
		}
		if d.take(now, asked, t) {
			d.idle = false
		}
	}
	if d.idle {
		// A platform that doesn't wait, or gives what the node has, isn't asked in a circle.
		d.lease.next = asked.Add(time.Duration(float64(leasePace) * (0.5 + d.s.Chance())))
	}
	return errors.Join(errs...)
}

// sought takes down which of the tasks that run without a lease the platform hasn't given again, where it has answered.
func (d *Desk) sought(answered bool) {
	for _, e := range d.entries {
		if e.seeking && e.sought && answered {
			e.sought = false
			if e.end == nil {
				e.end = ErrLeaseLost
			}
		}
		e.seeking = false
	}
}

// take takes a task that was leased, and returns whether that gives this node something to do.
func (d *Desk) take(now, asked time.Time, t Task) bool {
	e := d.find(t.ID)
	switch {
	case e == nil:
		d.seq++
		e = d.entry(Record{Seq: d.seq, Task: t, Phase: Accepted})
		d.entries = append(d.entries, e)
	case e.held && e.rec.Task.Lease == t.Lease:
		return false
	case e.rec.Phase == Accepted || e.rec.Task.Kind == "":
		e.rec.Task = t
		e.handler, e.known = d.handler(t.Kind)
	}
	e.rec.Task.Lease, e.rec.Task.Attempt = t.Lease, t.Attempt
	e.held, e.confirmed, e.dirty, e.cancel, e.sought = true, false, true, false, false
	e.plain, e.doubt, e.doubts = false, false, 0
	e.renew.reset()
	e.tell.reset()
	d.extend(e, asked, t.LeaseTime)
	if e.handler.Again == AtMostOnce || e.running {
		e.renewAt = now
	}
	switch {
	case e.rec.Phase == Settled:
		// The platform has forgotten that it has it.
		e.rec.Phase = Done
	case e.rec.Phase != Accepted:
	case !e.known:
		d.done(e, now, unknown(t.Kind))
	case t.Attempt > 1 && e.handler.Again == AtMostOnce:
		// Also where this disk says that it wasn't begun: a copy of it may have been in another machine.
		d.done(e, now, failed(nodeapi.FailInterrupted, "it was begun before, and this node doesn't know what came of it"))
	}
	// A platform that gives what runs, and doesn't know of the lease a moment later, isn't asked in a circle.
	return !e.running
}

// unknown is the outcome of a task that there is no handler for.
func unknown(kind nodeapi.TaskKind) Outcome {
	if _, _, _, refused := nodeapi.Command(string(kind)); refused {
		return failed(nodeapi.FailRefused, fmt.Sprintf("this agent doesn't do %q: it runs no unsigned commands, and no machine ends by its own agent", kind))
	}
	return failed(nodeapi.FailUnknownKind, fmt.Sprintf("this agent doesn't know tasks of the kind %q", kind))
}

// extend takes down how long a lease is good.
func (d *Desk) extend(e *entry, asked time.Time, length time.Duration) {
	if length <= 0 {
		length = leaseDefault
	}
	length = min(length, leaseLongest)
	e.until = asked.Add(length)
	e.renewAt = asked.Add(time.Duration(float64(length) / 3 * (0.9 + 0.2*d.s.Chance())))
}

// Answered tells what became of Renew or Tell, which was begun at asked under that lease.
func (d *Desk) Answered(now, asked time.Time, id, lease string, a Answer) {
	e := d.find(id)
	if e == nil {
		return
	}
	restart := e.asked
	e.busy, e.asked = false, false
	if e.rec.Task.Lease != lease {
		e.output = e.output || a.More
		return
	}
	switch a.Verdict {
	case OK:
		e.renew.reset()
		e.confirmed = true
		e.acknowledged = e.acknowledged || restart
		e.cancel = e.cancel || a.Cancel
		d.extend(e, asked, a.LeaseTime)
		switch {
		case a.Told:
			e.output, e.outputAt, e.doubts = a.More, now.Add(outputPace), 0
		case e.doubt:
			// Who takes the renewal, and not the output just before, may not like the output. It is worth less than the lease.
			if e.doubts++; e.doubts == mostDoubts {
				e.mute, e.output = true, false
			}
		}
		e.doubt = false
	case Lost:
		d.lose(now, e)
	case Gone:
		d.drop(e)
	case Refused:
		if a.Told {
			e.mute, e.output = true, false
			return
		}
		e.renew.failed(now, againFirst, renewMost, a.After, d.s.Chance())
	case Away, Denied:
		e.renew.failed(now, againFirst, renewMost, a.After, d.s.Chance())
		e.doubt = a.Told && a.Verdict == Denied
		if e.rec.Phase == Done {
			e.tell.failed(now, againFirst, reportMost, a.After, d.s.Chance())
		}
	}
}

// lose takes down that a lease isn't in force any more. Work goes on until the platform has said whether it gives the task again: as it does where
// it was away for longer than the lease, or was restarted.
func (d *Desk) lose(now time.Time, e *entry) {
	if !e.running || e.end != nil || e.cancel {
		d.drop(e)
		return
	}
	e.held, e.confirmed, e.sought = false, false, true
	if d.lease.failures > 0 {
		d.Wake(now) // it is back
	}
}

// drop takes down that there is no lease any more, nor will be for the work under way.
func (d *Desk) drop(e *entry) {
	e.held, e.confirmed = false, false
	switch {
	case e.running && e.end == nil:
		e.end = ErrLeaseLost
	case e.rec.Phase == Restarting && e.restarted.IsZero():
		e.rec.Phase, e.dirty, e.acknowledged = Begun, true, false
	case e.rec.Phase == Done:
		e.dirty = true // it may stay so for long
	}
}

// Reported tells what became of Report under that lease.
func (d *Desk) Reported(now time.Time, id, lease string, a Answer) {
	e := d.find(id)
	if e == nil {
		return
	}
	e.busy = false
	switch a.Verdict {
	case OK:
		e.rec.Phase, e.dirty = Settled, true
		e.rec.Output, e.rec.OutputOffset = "", 0
		// What had to wait for this one may be had now.
		if d.idle = false; d.lease.failures == 0 {
			d.lease.next = now
		}
	case Lost:
		if e.rec.Task.Lease == lease {
			d.drop(e)
		}
	case Gone:
		e.rec.Phase, e.dirty = Settled, true
	case Refused:
		if e.plain || len(e.rec.Outcome.Result) == 0 {
			e.rec.Phase, e.dirty = Settled, true
			return
		}
		e.plain = true
	case Away, Denied:
		e.tell.failed(now, againFirst, reportMost, a.After, d.s.Chance())
	}
}

// Finish is what became of a run.
type Finish struct {
	// Result is the JSON of Result.Data; Restart says that there is one.
	Result  json.RawMessage
	Restart bool
	Err     error
	// Output is what hasn't been told, from Offset on.
	Output string
	Offset int64
	// More says that there is something to tell.
	More bool
}

// Finished tells what became of a run.
func (d *Desk) Finished(now time.Time, id string, f Finish) {
	e := d.find(id)
	if e == nil {
		return
	}
	end := e.end
	e.running, e.end, e.ended, e.output = false, nil, time.Time{}, f.More
	e.sought = false
	if e.rec.Phase != Begun {
		return // it was given up before
	}
	e.rec.Output, e.rec.OutputOffset = f.Output, f.Offset
	outcome := Outcome{Success: f.Err == nil, Result: f.Result}
	switch {
	case f.Err == nil && f.Restart && end == nil && e.held && !d.draining:
		e.rec.Phase, e.rec.Boot, e.dirty = Restarting, d.s.Boot, true
		e.acknowledged, e.restarted = false, time.Time{}
		return
	case f.Err == nil && !f.Restart:
	case errors.Is(end, ErrCancelled):
		outcome.Success, outcome.Code, outcome.Error = false, nodeapi.FailCancelled, errorText(end.Error(), f.Err)
	case errors.Is(end, ErrTimeout):
		outcome.Success, outcome.Code, outcome.Error = false, nodeapi.FailTimeout, errorText(end.Error(), f.Err)
	case end != nil || f.Err == nil:
		// Interrupted: advance knows what becomes of it.
		e.rec.Output, e.rec.OutputOffset = "", 0
		return
	default:
		outcome.Code, outcome.Error = CodeOf(f.Err), errorText("", f.Err)
	}
	d.done(e, now, outcome)
}

// Restarted tells what became of Restart: the machine goes down now, or not at all.
func (d *Desk) Restarted(now time.Time, id string, err error) {
	if e := d.find(id); e != nil && e.rec.Phase == Restarting && err != nil {
		d.done(e, now, Outcome{Code: CodeOf(err), Error: errorText("the machine couldn't be restarted", err)})
	}
}

// Saved tells what became of Save or Forget.
func (d *Desk) Saved(now time.Time, id string, forgotten bool, err error) {
	e := d.find(id)
	switch {
	case e == nil:
	case err != nil:
		e.save.failed(now, againFirst, saveMost, 0, d.s.Chance())
	case forgotten:
		d.entries = slices.DeleteFunc(d.entries, func(o *entry) bool { return o == e })
	default:
		e.dirty = false
		e.save.reset()
		if e.rec.Phase == Done && !e.rec.Known {
			// It is told of by who has saved it. The disk hears of that with the next phase, or where that may never come.
			e.rec.Known, e.dirty = true, !e.held
		}
	}
}

// Wrote tells that a run has something to tell.
func (d *Desk) Wrote(id string) {
	if e := d.find(id); e != nil {
		e.output = true
	}
}

// Wake tells that the platform has tasks for the node. A wait that the platform asked for isn't cut short.
func (d *Desk) Wake(now time.Time) {
	if now.Before(d.lease.asked) {
		d.lease.next = d.lease.asked
		return
	}
	d.lease.next = now
}

// Drain tells that the agent is to end: nothing is begun any more, and what runs has that long to end by itself.
func (d *Desk) Drain(now time.Time, patience time.Duration) {
	if d.draining {
		return
	}
	d.draining, d.endAt = true, now.Add(patience)
	d.leaveAt = d.endAt.Add(windUp)
}

// done takes down the outcome of a task.
func (d *Desk) done(e *entry, now time.Time, o Outcome) {
	e.rec.Phase, e.rec.Outcome, e.rec.EndedAt, e.rec.Known, e.dirty = Done, &o, now.UTC(), false, true
	e.start = false
	e.tell.reset()
}

func failed(code nodeapi.FailCode, text string) Outcome { return Outcome{Code: code, Error: text} }

// errorText says what went wrong, and what the person can do about it.
func errorText(what string, err error) string {
	if err != nil && err.Error() != what {
		if what != "" {
			what += ": "
		}
		what += fault.OneLine(err.Error())
		if hint := fault.HintOf(err); hint != "" {
			what += "; " + fault.OneLine(hint)
		}
	}
	return cutText(what, nodeapi.MaxTaskMessage)
}
