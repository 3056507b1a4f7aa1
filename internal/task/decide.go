package task

import (
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Next returns what is to be done now. It is asked again right after that, without waiting for what takes its time.
func (d *Desk) Next(now time.Time) Action {
	d.at = time.Time{}
	for _, e := range d.entries {
		d.advance(e, now)
	}
	for _, e := range d.entries {
		if e.dirty && d.due(now, e.save.next) {
			return Action{Do: Save, Record: e.rec}
		}
	}
	for _, e := range d.entries {
		if a := d.act(e, now); a.Do != Wait {
			return a
		}
	}
	if e := d.forgettable(now); e != nil {
		return Action{Do: Forget, Record: e.rec}
	}
	if a := d.ask(now); a.Do != Wait {
		return a
	}
	if d.over(now) {
		return Action{Do: Stop}
	}
	return Action{Do: Wait, At: d.at}
}

// advance takes a task on to where the time, or what was told, has brought it.
func (d *Desk) advance(e *entry, now time.Time) {
	switch e.rec.Phase {
	case Accepted, Begun:
		if e.running {
			d.bound(e, now)
			return
		}
		if e.start && e.held && !e.cancel && !d.draining && now.Before(e.until) {
			return
		}
		d.unbegin(e)
		switch {
		case e.cancel:
			d.done(e, now, failed(nodeapi.FailCancelled, "cancelled before it was begun"))
		case e.rec.Task.Kind == "":
			// Its record was damaged; the platform will say what it is.
		case e.rec.Phase == Begun && (!e.known || e.handler.Again == AtMostOnce):
			d.done(e, now, failed(nodeapi.FailInterrupted, "it was begun on this node, and didn't come to its end; some of it may have been done"))
		case d.mayBegin(e, now):
			e.rec.Phase, e.rec.Boot, e.rec.BegunAt = Begun, d.s.Boot, now.UTC()
			e.rec.Runs++
			e.start, e.dirty, e.end, e.ended = true, true, nil, time.Time{}
		}
	case Restarting:
		switch {
		case e.restarted.IsZero() && e.cancel:
			d.done(e, now, failed(nodeapi.FailCancelled, "cancelled before the machine was to restart"))
		case !e.restarted.IsZero() && d.due(now, e.restarted.Add(restartWithin)):
			d.done(e, now, failed(nodeapi.FailFailed, fmt.Sprintf("the machine was to restart, and hasn't within %s", restartWithin)))
		}
	case Done, Settled:
	}
}

// unbegin takes back that a task is to be begun, where the disk couldn't take that in time.
func (d *Desk) unbegin(e *entry) {
	if !e.start {
		return
	}
	e.start = false
	if e.rec.Runs--; e.rec.Runs == 0 {
		e.rec.Phase = Accepted
	}
}

// mayBegin tells whether a task may be begun now.
func (d *Desk) mayBegin(e *entry, now time.Time) bool {
	if !e.held || !e.known || d.draining || !now.Before(e.until) || e.handler.Again == AtMostOnce && !e.confirmed || d.restarting() {
		return false
	}
	root, beside := d.places(false)
	if e.handler.class() == nodeapi.ClassRoot {
		return root == 0
	}
	return beside < d.s.Beside
}

// bound finds out whether the context of a run is to end.
func (d *Desk) bound(e *entry, now time.Time) {
	if e.end == nil {
		switch {
		case e.cancel:
			e.end = ErrCancelled
		case d.due(now, e.limit):
			e.end = ErrTimeout
		case d.draining && d.due(now, d.endAt):
			e.end = ErrEnding
		}
		return
	}
	// What doesn't end when it is told to takes its place on, but the platform needn't wait for it.
	if e.ended.IsZero() || !d.due(now, e.ended.Add(stuckAfter)) {
		return
	}
	code := nodeapi.FailInterrupted
	switch {
	case errors.Is(e.end, ErrTimeout):
		code = nodeapi.FailTimeout
	case errors.Is(e.end, ErrCancelled):
		code = nodeapi.FailCancelled
	}
	d.done(e, now, failed(code, fmt.Sprintf("%s; its work was told to end, and still goes on", e.end)))
}

// act returns what is to be done about a task, or Wait.
func (d *Desk) act(e *entry, now time.Time) Action {
	if e.running && e.end != nil && e.ended.IsZero() {
		e.ended = now
		return Action{Do: End, Record: e.rec, Cause: e.end}
	}
	if e.start && !e.dirty {
		e.start, e.running, e.limit = false, true, now.Add(e.handler.limit(e.rec.Task))
		e.output, e.outputAt, e.mute, e.doubt, e.doubts = false, time.Time{}, false, false, 0
		if !e.confirmed {
			e.renewAt = now // the platform is to know that it was begun
		}
		return Action{Do: Begin, Record: e.rec, Handler: e.handler}
	}
	if e.rec.Phase == Restarting && !e.dirty && e.acknowledged && e.restarted.IsZero() && !d.draining {
		e.restarted = now
		return Action{Do: Restart, Record: e.rec}
	}
	if e.busy || !e.held {
		return Action{}
	}
	switch e.rec.Phase {
	case Accepted, Begun:
		return d.keep(e, now)
	case Restarting:
		if !e.dirty && !e.acknowledged && !d.draining && d.due(now, e.renew.next) {
			e.busy, e.asked = true, true
			return Action{Do: e.telling(), Record: e.rec, Message: "the machine restarts"}
		}
		return d.keep(e, now)
	case Done:
		if e.dirty {
			return Action{}
		}
		if d.due(now, e.tell.next) {
			e.busy = true
			switch {
			case !e.output || e.mute:
				return Action{Do: Report, Record: e.report()}
			case e.doubt:
				return Action{Do: Renew, Record: e.rec}
			}
			return Action{Do: Tell, Record: e.rec}
		}
		// The platform takes renewals, and not the outcome: the lease shouldn't run out over that.
		if d.due(now, e.renewAt) && d.due(now, e.renew.next) {
			e.busy = true
			return Action{Do: Renew, Record: e.rec}
		}
	case Settled:
	}
	return Action{}
}

// keep returns what keeps a lease in force, and brings output to the platform.
func (d *Desk) keep(e *entry, now time.Time) Action {
	output := e.output && !e.mute && !e.doubt
	if e.doubt && d.due(now, e.renew.next) {
		e.busy = true
		return Action{Do: Renew, Record: e.rec}
	}
	if d.due(now, e.renewAt) && d.due(now, e.renew.next) {
		e.busy = true
		if output {
			return Action{Do: Tell, Record: e.rec}
		}
		return Action{Do: Renew, Record: e.rec}
	}
	if output && d.due(now, e.outputAt) && d.due(now, e.renew.next) {
		e.busy = true
		return Action{Do: Tell, Record: e.rec}
	}
	return Action{}
}

// telling is how the platform is told of a restart: by a renewal, where it takes nothing else.
func (e *entry) telling() Do {
	if e.mute || e.doubt {
		return Renew
	}
	return Tell
}

// report returns the record as it is reported.
func (e *entry) report() Record {
	r := e.rec
	if e.plain {
		outcome := *r.Outcome
		outcome.Result = nil
		r.Outcome = &outcome
	}
	return r
}

// ask returns the call for tasks, where there is a place for one.
func (d *Desk) ask(now time.Time) Action {
	sought := 0
	for _, e := range d.entries {
		if e.sought && e.end == nil {
			sought++
		}
	}
	if d.asking || d.draining || d.restarting() || d.s.Once && d.idle && sought == 0 {
		return Action{}
	}
	holding, open := []string{}, 0
	for _, e := range d.entries {
		if e.save.failures > 0 {
			return Action{} // what can't be written down isn't taken
		}
		if e.held && e.rec.Phase != Settled {
			holding = append(holding, e.rec.Task.Lease)
			if e.rec.Phase == Done {
				open++
			}
		}
	}
	root, beside := d.places(true)
	most := min(max(1-root, 0)+max(d.s.Beside-beside, 0), mostOpen-open)
	// What is sought has its place.
	most = min(max(most, 0)+sought, nodeapi.MaxLeased)
	if most <= 0 || !d.due(now, d.lease.next) {
		return Action{}
	}
	d.asking = true
	a := Action{Do: Lease, Max: most, Wait: d.s.Wait, Holding: holding}
	if d.s.Once || sought > 0 {
		a.Wait = 0
	}
	for _, e := range d.entries {
		e.seeking = e.sought
	}
	if len(holding) > nodeapi.MaxHolding {
		a.Holding = nil // which says nothing about them
	}
	return a
}

// forgettable returns the oldest of too many tasks that the disk needn't know of. Those whose outcome the platform has go first, as far as
// they take more than half of the room.
func (d *Desk) forgettable(now time.Time) *entry {
	var settled, other *entry
	n, m := 0, 0
	for _, e := range d.entries {
		if e.running || e.start || e.dirty || e.busy || e.rec.Phase == Restarting || e.held && e.rec.Phase != Settled {
			continue
		}
		n++
		switch {
		case e.rec.Phase != Settled:
			if other == nil {
				other = e
			}
			continue
		case settled == nil:
			settled = e
		}
		m++
	}
	oldest := other
	if m > keepRecords/2 || other == nil {
		oldest = settled
	}
	if n > keepRecords && d.due(now, oldest.save.next) {
		return oldest
	}
	return nil
}

// over tells whether everything is done that is to be done before the end.
func (d *Desk) over(now time.Time) bool {
	if !d.draining && (!d.s.Once || !d.idle || d.asking) {
		return false
	}
	if d.draining && d.due(now, d.leaveAt) {
		return true
	}
	for _, e := range d.entries {
		if e.running || e.start || e.dirty && (d.draining || e.save.failures == 0) {
			return false
		}
		if e.rec.Phase == Done && e.held && (e.busy || e.tell.failures == 0) {
			return false
		}
		if d.s.Once && !d.draining && e.held && e.rec.Phase != Done && e.rec.Phase != Settled {
			return false
		}
	}
	return true
}
