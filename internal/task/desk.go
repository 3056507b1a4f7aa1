package task

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Settings are what a Desk is made of.
type Settings struct {
	// Handlers are what this node can do; of two for one kind the first counts.
	Handlers []Handler
	// Boot names the boot that runs: another after every restart that a handler may ask for.
	Boot string
	// Beside bounds the tasks that run beside that of nodeapi.ClassRoot; 0 is 4.
	Beside int
	// Wait is how long the platform may wait for a task; 0 is 50 s.
	Wait time.Duration
	// Once ends it as soon as there is nothing to do, and asks the platform without waiting.
	Once bool
	// Chance returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Chance func() float64
}

// The rhythm of a Desk.
const (
	// A lease that is asked for in vain is asked for again within these, one that the platform doesn't give to this
	// node, or doesn't know of, within the longer ones. An answer without a task that comes quicker than leasePace counts
	// as one of a platform that doesn't wait.
	leaseFirst  = 10 * time.Second
	leaseMost   = time.Minute
	deniedFirst = time.Minute
	deniedMost  = 15 * time.Minute
	leasePace   = 5 * time.Second
	// Renewals and reports that fail are tried again within these, writes on a disk that is full likewise.
	renewMost  = 20 * time.Second
	reportMost = time.Minute
	againFirst = 2 * time.Second
	saveMost   = 30 * time.Second
	// mostDoubts is how often output may be denied, and a renewal after it taken, before no more is told.
	mostDoubts = 5
	// outputPace is how often output is told at most.
	outputPace = time.Second
	// stuckAfter is how long work may go on whose context has ended before the task counts as failed all the same.
	stuckAfter = time.Minute
	// restartWithin is how long a machine may take to go down.
	restartWithin = 15 * time.Minute
	// windUp is how long, at the end of the agent, reports may take after the last task has ended.
	windUp = 2 * time.Second
	// Bounds of a lease's length, whatever the platform says; leaseDefault is for where it says nothing.
	leaseDefault = time.Minute
	leaseLongest = 24 * time.Hour
	// keepRecords is how many tasks are remembered that the platform has the outcome of, or whose lease was lost; mostOpen how many
	// outcomes may wait for the platform before no more tasks are taken.
	keepRecords = 64
	mostOpen    = 16
)

// Desk decides what is to be done about tasks. It is told the time, the answers of the platform, and what became of
// everything that Next asked for; nothing in it waits, reads a clock or touches a disk. It is for one goroutine.
type Desk struct {
	s       Settings
	entries []*entry // in the order of Record.Seq
	seq     uint64

	asking bool // a call for a lease is under way
	lease  pause
	idle   bool // the last answer brought nothing

	draining       bool
	endAt, leaveAt time.Time

	// at is when Next has something to do by itself, as far as it has found out.
	at time.Time
}

// entry is a task with what only this process knows of it.
type entry struct {
	rec     Record
	handler Handler
	known   bool // there is a handler

	dirty bool // the disk doesn't have rec
	save  pause

	// held says that the lease isn't known to be lost, confirmed that it has been renewed: the platform knows that
	// the task is begun. until is when it runs out.
	held, confirmed bool
	until, renewAt  time.Time
	// sought says that the lease of what runs was lost, and the platform is still to say whether it gives the task again; seeking that
	// the call for tasks under way asks that.
	sought, seeking bool

	busy  bool // a call about it is under way
	renew pause
	tell  pause

	start   bool // to be begun as soon as it is on the disk
	running bool
	limit   time.Time // of the run
	end     error     // why its context is to end
	ended   time.Time // when that was said, zero if it wasn't
	cancel  bool      // the platform wants it to stop

	output   bool // there is something to tell
	outputAt time.Time
	mute     bool // the platform doesn't take the output
	doubt    bool // the last call with output was denied: a renewal finds out whether that was about the output
	doubts   int  // how often in a row it was
	plain    bool // it doesn't take the result

	asked        bool // the call under way tells of the restart
	acknowledged bool // the platform has heard of it
	restarted    time.Time
}

// NewDesk returns a Desk for the tasks that the disk knows of.
func NewDesk(now time.Time, s Settings, records []Record) *Desk {
	if s.Beside <= 0 {
		s.Beside = 4
	}
	if s.Wait <= 0 {
		s.Wait = 50 * time.Second
	}
	if s.Chance == nil {
		s.Chance = rand.Float64
	}
	d := &Desk{s: s}
	for _, r := range records {
		d.seq = max(d.seq, r.Seq)
		e := d.entry(r)
		d.entries = append(d.entries, e)
		switch r.Phase {
		case Restarting:
			if r.Boot != s.Boot {
				d.done(e, now, Outcome{Success: true, Result: bootsResult(r.Boot, s.Boot)})
				e.held, e.output = true, r.Output != ""
				break
			}
			// Whether the restart was asked for isn't known.
			e.rec.Phase, e.dirty = Begun, true
		case Done:
			e.held, e.output = true, r.Output != ""
		case Accepted, Begun, Settled:
			// What isn't done isn't held: the platform hears of that with the next call for a lease, takes the task back, and gives it
			// again, as another attempt where it was begun.
		}
	}
	slices.SortStableFunc(d.entries, func(a, b *entry) int {
		switch {
		case a.rec.Seq < b.rec.Seq:
			return -1
		case a.rec.Seq > b.rec.Seq:
			return 1
		}
		return 0
	})
	// A fleet whose agents start together doesn't ask together.
	if !s.Once {
		d.lease.next = now.Add(time.Duration(s.Chance() * float64(time.Second)))
	}
	return d
}

func (d *Desk) entry(r Record) *entry {
	e := &entry{rec: r}
	e.handler, e.known = d.handler(r.Task.Kind)
	return e
}

func (d *Desk) handler(kind nodeapi.TaskKind) (Handler, bool) {
	for _, h := range d.s.Handlers {
		if h.Kind == kind {
			return h, true
		}
	}
	return Handler{Kind: kind}, false
}

func (d *Desk) find(id string) *entry {
	for _, e := range d.entries {
		if e.rec.Task.ID == id {
			return e
		}
	}
	return nil
}

// bootsResult is the result of a restart.
func bootsResult(from, to string) json.RawMessage {
	data, err := json.Marshal(map[string]string{"former_boot_id": from, "boot_id": to})
	if err != nil {
		return nil
	}
	return data
}

// due returns whether a time has come; one that hasn't is when Next is to be asked again.
func (d *Desk) due(now, at time.Time) bool {
	if !at.After(now) {
		return true
	}
	if d.at.IsZero() || at.Before(d.at) {
		d.at = at
	}
	return false
}

// places counts the tasks that take a place: those that run, and where waiting is true those that wait for their turn.
func (d *Desk) places(waiting bool) (root, beside int) {
	for _, e := range d.entries {
		waits := e.held && (e.rec.Phase == Accepted || e.rec.Phase == Begun)
		if !e.running && !e.start && e.rec.Phase != Restarting && (!waiting || !waits) {
			continue
		}
		if e.handler.class() == nodeapi.ClassRoot {
			root++
		} else {
			beside++
		}
	}
	return root, beside
}

// restarting returns whether the machine is to go down: nothing is begun any more.
func (d *Desk) restarting() bool {
	return slices.ContainsFunc(d.entries, func(e *entry) bool { return e.rec.Phase == Restarting })
}
