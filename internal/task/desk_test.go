package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// play is a Desk under a test's hand: saves are done at once, everything else waits for the test.
type play struct {
	t    *testing.T
	now  time.Time
	desk *Desk
	disk map[string]Record
	// full fails every save.
	full bool
	// done is what Next asked for since it was looked at, but for saves.
	done []Action
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newPlay(t *testing.T, s Settings, records ...Record) *play {
	t.Helper()
	if s.Handlers == nil {
		s.Handlers = modelHandlers
	}
	if s.Boot == "" {
		s.Boot = "this"
	}
	s.Chance = func() float64 { return 0.5 }
	p := &play{t: t, now: epoch, disk: map[string]Record{}}
	for _, r := range records {
		p.disk[r.Task.ID] = r
	}
	p.desk = NewDesk(p.now, s, records)
	p.pass(time.Second)
	return p
}

// step has the Desk say everything that is to be done now, and returns when it wants to be asked again.
func (p *play) step() time.Time {
	p.t.Helper()
	for range 200 {
		a := p.desk.Next(p.now)
		switch a.Do {
		case Wait:
			return a.At
		case Stop:
			p.done = append(p.done, a)
			return time.Time{}
		case Save:
			if p.full {
				p.desk.Saved(p.now, a.Record.Task.ID, false, errors.New("the disk is full"))
				continue
			}
			p.disk[a.Record.Task.ID] = a.Record
			p.desk.Saved(p.now, a.Record.Task.ID, false, nil)
		case Forget:
			delete(p.disk, a.Record.Task.ID)
			p.desk.Saved(p.now, a.Record.Task.ID, true, nil)
		default:
			p.done = append(p.done, a)
		}
	}
	p.t.Fatal("the Desk never comes to rest")
	return time.Time{}
}

// pass lets time pass, with everything that is due in it.
func (p *play) pass(d time.Duration) {
	p.t.Helper()
	for until := p.now.Add(d); ; {
		at := p.step()
		if at.IsZero() || at.After(until) {
			p.now = until
			p.step()
			return
		}
		if at.Before(p.now) {
			p.t.Fatalf("it wants to be asked in the past: %s, now %s", at, p.now)
		}
		p.now = at
	}
}

// take returns what was asked for of one sort, of any task where id is "", and forgets everything.
func (p *play) take(do Do, id string) []Action {
	var found []Action
	for _, a := range p.done {
		if a.Do == do && (id == "" || a.Record.Task.ID == id) {
			found = append(found, a)
		}
	}
	p.done = nil
	return found
}

// want checks that exactly one thing of the sort was asked for.
func (p *play) want(do Do, id string) Action {
	p.t.Helper()
	all := p.done
	found := p.take(do, id)
	if len(found) != 1 {
		p.t.Fatalf("%d times %d for %q in %s", len(found), do, id, told(all))
	}
	return found[0]
}

func (p *play) never(do Do) {
	p.t.Helper()
	if all := p.done; len(p.take(do, "")) > 0 {
		p.t.Errorf("%d in %s", do, told(all))
	}
}

func told(all []Action) string {
	var s []string
	for _, a := range all {
		s = append(s, fmt.Sprintf("%d:%s", a.Do, a.Record.Task.ID))
	}
	return strings.Join(s, " ")
}

func (p *play) lease(tasks ...Task) {
	p.t.Helper()
	for i := range tasks {
		if tasks[i].Attempt == 0 {
			tasks[i].Attempt = 1
		}
		if tasks[i].LeaseTime == 0 {
			tasks[i].LeaseTime = time.Minute
		}
	}
	if err := p.desk.Leased(p.now, p.now, tasks, Answer{Verdict: OK}); err != nil {
		p.t.Error(err)
	}
	p.step()
}

func (p *play) answer(id string, a Answer) {
	p.t.Helper()
	if a.LeaseTime == 0 {
		a.LeaseTime = time.Minute
	}
	p.desk.Answered(p.now, p.now, id, p.disk[id].Task.Lease, a)
	p.step()
}

func (p *play) report(id string, v Verdict) {
	p.t.Helper()
	p.desk.Reported(p.now, id, p.disk[id].Task.Lease, Answer{Verdict: v})
	p.step()
}

func (p *play) finish(id string, f Finish) {
	p.t.Helper()
	p.desk.Finished(p.now, id, f)
	p.step()
}

func one(id, lease string, kind nodeapi.TaskKind) Task { return Task{ID: id, Lease: lease, Kind: kind} }

// TestAtMostOnceIsConfirmed: what may be done once isn't begun before the platform has heard that it is.
func TestAtMostOnceIsConfirmed(t *testing.T) {
	p := newPlay(t, Settings{})
	if a := p.want(Lease, ""); a.Max != 5 || a.Wait != 50*time.Second || a.Holding == nil || len(a.Holding) != 0 {
		t.Errorf("%+v", a)
	}
	p.lease(one("a", "1", kindOnce))
	if p.disk["a"].Phase != Accepted {
		t.Errorf("the disk has %+v", p.disk["a"])
	}
	renew := p.want(Renew, "a")
	if renew.Record.Task.Lease != "1" {
		t.Errorf("%+v", renew)
	}
	p.answer("a", Answer{Verdict: OK})
	if p.want(Begin, "a"); p.disk["a"].Phase != Begun || p.disk["a"].Runs != 1 {
		t.Errorf("the disk has %+v", p.disk["a"])
	}
	p.finish("a", Finish{Result: json.RawMessage(`{"x":1}`)})
	r := p.want(Report, "a")
	if !r.Record.Outcome.Success || string(r.Record.Outcome.Result) != `{"x":1}` || p.disk["a"].Phase != Done {
		t.Errorf("%+v, the disk has %+v", r.Record, p.disk["a"])
	}
	// The answer is lost twice, then it isn't.
	p.report("a", Away)
	p.pass(10 * time.Second)
	p.want(Report, "a")
	p.report("a", Away)
	p.pass(10 * time.Second)
	p.want(Report, "a")
	p.report("a", OK)
	p.pass(time.Hour)
	p.never(Report)
	if p.disk["a"].Phase != Settled {
		t.Errorf("the disk has %+v", p.disk["a"])
	}
	// The platform has forgotten, as one from a backup: it is told again, and nothing is done again.
	again := one("a", "2", kindOnce)
	again.Attempt = 2
	p.lease(again)
	if r := p.want(Report, "a"); !r.Record.Outcome.Success || r.Record.Task.Lease != "2" {
		t.Errorf("%+v", r.Record)
	}
}

// TestRestartedAgent: what was begun is failed once, or begun again under another lease; what was done is told.
func TestRestartedAgent(t *testing.T) {
	record := func(seq uint64, id string, kind nodeapi.TaskKind, phase Phase, o *Outcome) Record {
		r := Record{Seq: seq, Task: one(id, "old-"+id, kind), Phase: phase, Outcome: o}
		r.Task.Attempt = 1
		if phase != Accepted {
			r.Runs, r.Boot = 1, "former"
		}
		return r
	}
	p := newPlay(t, Settings{},
		record(1, "once", kindOnce, Begun, nil), record(2, "again", kindAgain, Begun, nil), record(3, "fresh", kindLook, Accepted, nil),
		record(4, "done", kindLook, Done, &Outcome{Success: true}), record(5, "boot", kindOnce, Restarting, nil),
		Record{Task: Task{ID: "damaged"}, Phase: Begun, Runs: 1}, record(7, "gone", "forgotten-kind", Begun, nil))
	done := p.done
	if got := p.disk["once"]; got.Phase != Done || got.Outcome.Code != nodeapi.FailInterrupted {
		t.Errorf("once: %+v", got)
	}
	if got := p.disk["gone"]; got.Phase != Done || got.Outcome.Code != nodeapi.FailInterrupted {
		t.Errorf("gone: %+v", got)
	}
	if got := p.disk["boot"]; got.Phase != Done || !got.Outcome.Success || string(got.Outcome.Result) != `{"boot_id":"this","former_boot_id":"former"}` {
		t.Errorf("boot: %+v", got)
	}
	// Only what has an outcome is held and told; of the rest the platform hears that it isn't.
	ask := p.want(Lease, "")
	if strings.Join(ask.Holding, " ") != "old-done old-boot" || ask.Max != 5 {
		t.Errorf("holding %v, at most %d", ask.Holding, ask.Max)
	}
	p.done = done
	if got := p.take(Report, ""); len(got) != 2 {
		t.Errorf("reports %s", told(got))
	}
	p.report("done", OK)
	p.report("boot", Lost)
	for _, id := range []string{"once", "again", "fresh", "boot", "damaged", "gone"} {
		kind := p.disk[id].Task.Kind
		if id == "damaged" {
			kind = kindOnce
		}
		task := one(id, "new-"+id, kind)
		task.Attempt = 2
		if id == "fresh" {
			task.Attempt = 1
		}
		p.lease(task)
	}
	begun, all := map[string]int{}, p.done
	for _, a := range p.take(Begin, "") {
		begun[a.Record.Task.ID] = a.Record.Runs
	}
	if len(begun) != 2 || begun["again"] != 2 || begun["fresh"] != 1 {
		t.Errorf("begun %v", begun)
	}
	p.done = all
	outcomes := map[string]Outcome{}
	for _, a := range p.take(Report, "") {
		outcomes[a.Record.Task.ID] = *a.Record.Outcome
	}
	if len(outcomes) != 4 || outcomes["once"].Code != nodeapi.FailInterrupted || outcomes["damaged"].Code != nodeapi.FailInterrupted || !outcomes["boot"].Success {
		t.Errorf("outcomes %+v", outcomes)
	}
}

// TestLeases: work goes on while the platform is away, and ends when it says that the lease is lost and doesn't give the task again.
func TestLeases(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindResume))
	p.done = nil
	p.answer("a", Answer{Verdict: OK}) // the renewal that says that it was begun
	p.pass(21 * time.Second)
	p.want(Renew, "a")
	for range 20 {
		p.answer("a", Answer{Verdict: Away})
		p.pass(renewMost)
		if len(p.take(Renew, "a")) != 1 {
			t.Fatal("not renewed any more")
		}
		p.never(End)
	}
	p.answer("a", Answer{Verdict: Lost})
	p.lease() // of the call that was under way
	p.never(End)
	p.pass(leasePace)
	p.lease()
	if a := p.want(End, "a"); !errors.Is(a.Cause, ErrLeaseLost) {
		t.Errorf("%+v", a)
	}
	p.finish("a", Finish{Err: ErrLeaseLost})
	p.pass(time.Minute)
	p.never(Report)
	again := one("a", "2", kindResume)
	again.Attempt = 2
	p.lease(again)
	if a := p.want(Begin, "a"); a.Record.Runs != 2 || a.Record.Task.Attempt != 2 {
		t.Errorf("%+v", a.Record)
	}
	p.answer("a", Answer{Verdict: OK})
	p.finish("a", Finish{})
	// The lease of the report is lost: nothing is told until there is another, and nothing is done again.
	p.want(Report, "a")
	p.report("a", Lost)
	p.pass(time.Hour)
	p.never(Report)
	third := one("a", "3", kindResume)
	third.Attempt = 3
	p.lease(third)
	if a := p.want(Report, "a"); !a.Record.Outcome.Success || a.Record.Task.Lease != "3" {
		t.Errorf("%+v", a.Record)
	}
}

// TestLeaseOfWhatRuns: another lease for a task that runs is taken over, and an answer about the old one changes nothing.
func TestLeaseOfWhatRuns(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindAgain))
	p.want(Begin, "a")
	again := one("a", "2", kindAgain)
	again.Attempt = 2
	p.lease(again)
	p.never(Begin)
	p.desk.Answered(p.now, p.now, "a", "1", Answer{Verdict: Lost})
	p.step()
	if a := p.want(Renew, "a"); a.Record.Task.Lease != "2" {
		t.Errorf("%+v", a.Record.Task)
	}
	p.finish("a", Finish{})
	p.answer("a", Answer{Verdict: OK})
	if a := p.want(Report, "a"); a.Record.Task.Lease != "2" || a.Record.Runs != 1 {
		t.Errorf("%+v", a.Record)
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  nodeapi.TaskKind
		bring func(p *play)
		cause error
		f     Finish
		want  nodeapi.FailCode // "" is success, "-" none
	}{
		{"cancelled", kindAgain, func(p *play) { p.answer("a", Answer{Verdict: OK, Cancel: true}) }, ErrCancelled, Finish{Err: ErrCancelled}, nodeapi.FailCancelled},
		{"cancelled, and done all the same", kindAgain, func(p *play) { p.answer("a", Answer{Verdict: OK, Cancel: true}) }, ErrCancelled, Finish{}, ""},
		{"too long", kindAgain, func(p *play) { p.pass(10 * time.Minute) }, ErrTimeout, Finish{Err: errors.New("killed")}, nodeapi.FailTimeout},
		{"drained", kindAgain, func(p *play) { p.desk.Drain(p.now, time.Minute); p.pass(time.Minute) }, ErrEnding, Finish{Err: ErrEnding}, "-"},
		{"drained, at most once", kindOnce, func(p *play) { p.desk.Drain(p.now, time.Minute); p.pass(time.Minute) }, ErrEnding, Finish{Err: ErrEnding}, nodeapi.FailInterrupted},
		{"gone", kindAgain, func(p *play) { p.answer("a", Answer{Verdict: Gone}) }, ErrLeaseLost, Finish{Err: ErrLeaseLost}, "-"},
		{"failed", kindAgain, func(*play) {}, nil, Finish{Err: Fail("NO_MODULE", errors.New("there is none"))}, "NO_MODULE"},
		{"refused", kindAgain, func(*play) {}, nil, Finish{Err: fault.New(fault.Refuse, fault.Policy, "", "no")}, nodeapi.FailRefused},
		{"unavailable", kindAgain, func(*play) {}, nil, Finish{Err: fault.New(fault.Retry, fault.Platform, "", "no")}, CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlay(t, Settings{})
			p.lease(one("a", "1", c.kind))
			if c.kind == kindOnce {
				p.answer("a", Answer{Verdict: OK})
			}
			p.want(Begin, "a")
			p.desk.Answered(p.now, p.now, "a", "1", Answer{Verdict: OK, LeaseTime: time.Hour})
			c.bring(p)
			if c.cause != nil {
				if a := p.want(End, "a"); !errors.Is(a.Cause, c.cause) {
					t.Errorf("%v", a.Cause)
				}
			}
			p.finish("a", c.f)
			switch r := p.disk["a"]; {
			case c.want == "-" && r.Phase != Begun, c.want != "-" && r.Phase != Done:
				t.Errorf("%+v", r)
			case c.want != "-" && (r.Outcome.Code != c.want || r.Outcome.Success != (c.want == "")):
				t.Errorf("%+v", r.Outcome)
			}
		})
	}
}

// TestStuckWork: what doesn't end is given up, but takes its place on.
func TestStuckWork(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindAgain))
	p.desk.Answered(p.now, p.now, "a", "1", Answer{Verdict: OK, LeaseTime: time.Hour})
	p.pass(10*time.Minute + stuckAfter)
	if a := p.want(Report, "a"); a.Record.Outcome.Code != nodeapi.FailTimeout || !strings.Contains(a.Record.Outcome.Error, "still goes on") {
		t.Errorf("%+v", a.Record.Outcome)
	}
	p.report("a", OK)
	p.lease(one("b", "2", kindAgain))
	p.pass(10 * time.Second)
	p.never(Begin)
	p.finish("a", Finish{})
	p.want(Begin, "b")
	if r := p.disk["a"]; r.Phase != Settled || r.Outcome.Success {
		t.Errorf("%+v", r)
	}
}

// TestRestart: the platform has heard of it before, it is told once, and nothing else is begun.
func TestRestart(t *testing.T) {
	begin := func(t *testing.T) *play {
		p := newPlay(t, Settings{})
		p.lease(one("a", "1", kindOnce))
		p.answer("a", Answer{Verdict: OK})
		p.want(Begin, "a")
		p.lease(one("b", "2", kindAgain))
		p.finish("a", Finish{Restart: true, Output: "syncing disks", More: true})
		if r := p.disk["a"]; r.Phase != Restarting || r.Boot != "this" {
			t.Errorf("%+v", r)
		}
		return p
	}
	t.Run("acknowledged", func(t *testing.T) {
		p := begin(t)
		done := p.done
		p.never(Restart)
		p.done = done
		if a := p.want(Tell, "a"); a.Message == "" {
			t.Errorf("%+v", a)
		}
		p.answer("a", Answer{Verdict: Away, Told: true})
		p.never(Restart)
		p.pass(10 * time.Second)
		p.want(Tell, "a")
		p.answer("a", Answer{Verdict: OK, Told: true})
		p.want(Restart, "a")
		p.desk.Restarted(p.now, "a", nil)
		p.pass(time.Minute)
		for _, do := range []Do{Begin, Restart, Lease, Report} {
			done := p.done
			p.never(do)
			p.done = done
		}
		// The machine goes down: the agent doesn't wait for anything.
		p.desk.Drain(p.now, time.Minute)
		p.done = nil
		p.step()
		p.want(Stop, "")
		next := newPlay(t, Settings{Boot: "next"}, p.disk["a"])
		if a := next.want(Tell, "a"); a.Record.Output != "syncing disks" {
			t.Errorf("%+v", a.Record)
		}
		next.answer("a", Answer{Verdict: OK, Told: true})
		if a := next.want(Report, "a"); !a.Record.Outcome.Success {
			t.Errorf("%+v", a.Record.Outcome)
		}
	})
	t.Run("lost before", func(t *testing.T) {
		p := begin(t)
		p.answer("a", Answer{Verdict: Lost, Told: true})
		p.never(Restart)
		if r := p.disk["a"]; r.Phase != Done || r.Outcome.Code != nodeapi.FailInterrupted {
			t.Errorf("%+v", r)
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		p := begin(t)
		p.answer("a", Answer{Verdict: OK, Told: true, Cancel: true})
		p.never(Restart)
		if r := p.disk["a"]; r.Phase != Done || r.Outcome.Code != nodeapi.FailCancelled {
			t.Errorf("%+v", r)
		}
	})
	t.Run("impossible", func(t *testing.T) {
		p := begin(t)
		p.answer("a", Answer{Verdict: OK, Told: true})
		p.desk.Restarted(p.now, "a", errors.New("no such unit"))
		p.step()
		if r := p.disk["a"]; r.Phase != Done || r.Outcome.Success || !strings.Contains(r.Outcome.Error, "no such unit") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("never", func(t *testing.T) {
		p := begin(t)
		p.answer("a", Answer{Verdict: OK, Told: true, LeaseTime: 24 * time.Hour})
		p.desk.Restarted(p.now, "a", nil)
		p.pass(restartWithin)
		if r := p.disk["a"]; r.Phase != Done || r.Outcome.Success {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the agent was killed before", func(t *testing.T) {
		p := begin(t)
		same := newPlay(t, Settings{}, p.disk["a"])
		if r := same.disk["a"]; r.Phase != Done || r.Outcome.Code != nodeapi.FailInterrupted {
			t.Errorf("%+v", r)
		}
	})
}

// TestUnknownKinds: they are refused once, with an answer that says why.
func TestUnknownKinds(t *testing.T) {
	p := newPlay(t, Settings{})
	for kind, code := range map[nodeapi.TaskKind]nodeapi.FailCode{
		"dance": nodeapi.FailUnknownKind, "ssh_command": nodeapi.FailRefused, "custom": nodeapi.FailRefused, "terminate": nodeapi.FailRefused,
	} {
		id := "task-" + string(kind)
		p.lease(one(id, "1", kind))
		if a := p.want(Report, id); a.Record.Outcome.Code != code || a.Record.Outcome.Error == "" {
			t.Errorf("%s: %+v", kind, a.Record.Outcome)
		}
		p.report(id, OK)
		p.pass(time.Hour)
		p.never(Report)
	}
}

// TestRefusedResult: what the platform doesn't take is told without its result, and then given up.
func TestRefusedResult(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindLook))
	p.answer("a", Answer{Verdict: OK})
	p.finish("a", Finish{Result: json.RawMessage(`{"x":1}`)})
	p.want(Report, "a")
	p.report("a", Refused)
	if a := p.want(Report, "a"); a.Record.Outcome.Result != nil {
		t.Errorf("%+v", a.Record.Outcome)
	}
	p.report("a", Refused)
	p.pass(time.Hour)
	p.never(Report)
}

// TestRefusedResultComesAgain: another lease gets the whole result.
func TestRefusedResultComesAgain(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindLook))
	p.answer("a", Answer{Verdict: OK})
	p.finish("a", Finish{Result: json.RawMessage(`{"x":1}`)})
	p.want(Report, "a")
	p.report("a", Refused)
	p.want(Report, "a")
	p.report("a", Refused)
	p.pass(time.Hour)
	again := one("a", "2", kindLook)
	again.Attempt = 2
	p.lease(again)
	p.step()
	if a := p.want(Report, "a"); string(a.Record.Outcome.Result) != `{"x":1}` {
		t.Errorf("%+v", a.Record.Outcome)
	}
}

// TestDeniedOutput: a renewal finds out whether the output is what isn't taken; the lease and the outcome outlast it.
func TestDeniedOutput(t *testing.T) {
	for name, everything := range map[string]bool{"the output": false, "everything": true} {
		p := newPlay(t, Settings{})
		p.lease(one("a", "1", kindLook))
		tells, reported := 0, false
		for range 600 {
			done := p.done
			p.done = nil
			for _, a := range done {
				v := OK
				if everything {
					v = Denied
				}
				switch a.Do {
				case Tell:
					tells++
					p.desk.Answered(p.now, p.now, "a", "1", Answer{Verdict: Denied, LeaseTime: time.Minute, Told: true, More: true})
				case Renew:
					p.desk.Answered(p.now, p.now, "a", "1", Answer{Verdict: v, LeaseTime: time.Minute})
				case Report:
					reported = true
					p.report("a", v)
				}
			}
			p.desk.Wrote("a")
			p.pass(time.Second)
			if p.now.Sub(epoch) == 5*time.Minute {
				break
			}
		}
		e := p.desk.find("a")
		if everything {
			if e.mute || tells < 10 {
				t.Errorf("%s: told %d times, mute: %t", name, tells, e.mute)
			}
			continue
		}
		if !e.mute || tells != mostDoubts || !e.held || reported {
			t.Errorf("%s: told %d times, mute: %t, held: %t", name, tells, e.mute, e.held)
		}
	}
}

// TestForgettable: what the platform has the outcome of goes before what it hasn't.
func TestForgettable(t *testing.T) {
	records := []Record{{Seq: 1, Task: one("lost", "1", kindLook), Phase: Done, Known: true, Outcome: &Outcome{Success: true}}}
	for i := range keepRecords + 10 {
		records = append(records, Record{Seq: uint64(i + 2), Task: one(fmt.Sprint("t", i), fmt.Sprint(i), kindLook), Phase: Settled, Known: true, Outcome: &Outcome{Success: true}})
	}
	p := newPlay(t, Settings{}, records...)
	p.report("lost", Lost)
	p.pass(time.Hour)
	if _, ok := p.disk["lost"]; !ok || len(p.disk) != keepRecords {
		t.Errorf("%t, %d records", ok, len(p.disk))
	}
}

// TestFullDisk: what can't be written down isn't begun, and not told either.
func TestFullDisk(t *testing.T) {
	p := newPlay(t, Settings{})
	p.full = true
	p.lease(one("a", "1", kindLook))
	p.pass(20 * time.Second)
	done := p.done
	p.never(Begin)
	p.done = done[1:] // the first call for tasks was made before
	p.never(Lease)
	p.full = false
	p.pass(saveMost)
	p.want(Begin, "a")
	p.answer("a", Answer{Verdict: OK})
	p.full = true
	p.finish("a", Finish{})
	p.pass(20 * time.Second)
	p.never(Report)
	p.full = false
	p.pass(saveMost)
	p.want(Report, "a")
}

// TestFullDiskForLong: what couldn't be written down while its lease was good isn't begun when the disk has room again.
func TestFullDiskForLong(t *testing.T) {
	p := newPlay(t, Settings{})
	p.lease(one("a", "1", kindOnce))
	p.full = true
	p.answer("a", Answer{Verdict: OK})
	p.pass(30 * time.Second)
	p.answer("a", Answer{Verdict: Lost})
	p.full = false
	p.pass(time.Hour)
	p.never(Begin)
	if r := p.disk["a"]; r.Phase != Accepted || r.Runs != 0 {
		t.Errorf("%+v", r)
	}
	p.lease(one("b", "2", kindAgain))
	p.done = nil
	p.finish("b", Finish{})
	p.lease(one("c", "3", kindAgain))
	p.want(Begin, "c")
	p.full = true
	p.desk.Drain(p.now, time.Second)
	p.pass(time.Minute)
}

// TestAskingForTasks: with backoff, never earlier than asked, and never in a circle.
func TestAskingForTasks(t *testing.T) {
	p := newPlay(t, Settings{})
	asks := func(d time.Duration, a Answer) int {
		t.Helper()
		n := 0
		for until := p.now.Add(d); p.now.Before(until); {
			p.pass(100 * time.Millisecond)
			for range p.take(Lease, "") {
				n++
				if err := p.desk.Leased(p.now, p.now, nil, a); err != nil {
					t.Error(err)
				}
			}
		}
		return n
	}
	for _, c := range []struct {
		name        string
		a           Answer
		least, most int
	}{
		{"away", Answer{}, 80, 200},
		{"denied", Answer{Verdict: Denied}, 5, 14},
		{"asks to wait", Answer{After: 10 * time.Minute}, 4, 7},
		{"answers at once", Answer{Verdict: OK}, 600, 800},
	} {
		if n := asks(time.Hour, c.a); n < c.least || n > c.most {
			t.Errorf("a platform that %s is asked %d times in an hour", c.name, n)
		}
	}
	// A platform that says that there is something is asked at once, but for one that asked to wait.
	p.done = nil
	asks(time.Minute, Answer{})
	p.desk.Wake(p.now)
	if n := asks(time.Second, Answer{After: 5 * time.Minute}); n != 1 {
		t.Errorf("asked %d times when woken", n)
	}
	p.desk.Wake(p.now)
	if n := asks(4*time.Minute, Answer{}); n != 0 {
		t.Errorf("asked %d times when it asked to wait", n)
	}
}

// TestNoStorm: a fleet whose platform comes back, or falls for a moment, doesn't ask as one.
func TestNoStorm(t *testing.T) {
	const fleet = 2000
	rng := rand.New(rand.NewPCG(1, 2))
	var desks []*Desk
	for range fleet {
		desks = append(desks, NewDesk(epoch, Settings{Chance: rng.Float64}, nil))
	}
	// asks counts the calls of each second, and answers them all alike.
	asks := func(from time.Time, seconds int, a Answer) (most int) {
		for i := range seconds {
			n := 0
			for j := range 10 {
				now := from.Add(time.Duration(i)*time.Second + time.Duration(j)*100*time.Millisecond)
				for _, d := range desks {
					if d.Next(now).Do == Lease {
						n++
						if err := d.Leased(now, now, nil, a); err != nil {
							t.Error(err)
						}
					}
				}
			}
			most = max(most, n)
		}
		return most
	}
	asks(epoch, 2, Answer{})
	if most := asks(epoch.Add(2*time.Second), 10, Answer{}); most > fleet/4 {
		t.Errorf("%d of %d ask in one second after all failed at once", most, fleet)
	}
	if most := asks(epoch.Add(12*time.Second), 300, Answer{}); most > fleet/8 {
		t.Errorf("%d of %d ask in one second of an outage", most, fleet)
	}
	asks(epoch.Add(312*time.Second), 1, Answer{After: 30 * time.Second})
	if most := asks(epoch.Add(313*time.Second), 100, Answer{After: 30 * time.Second}); most > fleet/8 {
		t.Errorf("%d of %d ask in one second after they were all asked to wait", most, fleet)
	}
}

// TestHostileLeases: what isn't a task isn't taken, and the others are.
func TestHostileLeases(t *testing.T) {
	p := newPlay(t, Settings{})
	good := Task{ID: "good", Lease: "1", Kind: kindLook, Attempt: 1, LeaseTime: time.Minute}
	bad := []Task{{}, {ID: "../../etc/passwd", Lease: "1", Kind: "gc", Attempt: 1}, {ID: "x", Lease: "1", Kind: "gc", Attempt: 1, Options: json.RawMessage(`[]`)}}
	if err := p.desk.Leased(p.now, p.now, append(bad, good), Answer{Verdict: OK}); err == nil {
		t.Error("no complaint")
	}
	p.step()
	p.want(Begin, "good")
	var many []Task
	for i := range 1000 {
		many = append(many, Task{ID: fmt.Sprint("m", i), Lease: "1", Kind: kindLook, Attempt: 1, LeaseTime: time.Minute})
	}
	if err := p.desk.Leased(p.now, p.now, many, Answer{Verdict: OK}); err == nil {
		t.Error("no complaint")
	}
	p.step()
	if n := len(p.take(Begin, "")); n != 3 || len(p.disk) != 1+nodeapi.MaxLeased {
		t.Errorf("%d begun, %d on the disk", n, len(p.disk))
	}
}

// TestForgetting: the journal doesn't grow for ever.
func TestForgetting(t *testing.T) {
	p := newPlay(t, Settings{})
	for i := range 3 * keepRecords {
		id := fmt.Sprint("t", i)
		p.lease(one(id, "1", kindLook))
		p.finish(id, Finish{})
		p.done = nil
		if i%3 == 0 {
			p.answer(id, Answer{Verdict: Lost})
			p.report(id, Lost)
		} else {
			p.answer(id, Answer{Verdict: OK})
			p.report(id, OK)
		}
	}
	p.step()
	if len(p.disk) != keepRecords {
		t.Errorf("%d records", len(p.disk))
	}
	lost := 0
	for _, r := range p.disk {
		if r.Phase != Settled {
			lost++
		}
	}
	if _, ok := p.disk["t0"]; ok || lost != keepRecords/2 {
		t.Errorf("the oldest is still there: %t, with %d that were lost", ok, lost)
	}
}

// TestOnce ends when there is nothing to do any more, or nobody to ask.
func TestOnce(t *testing.T) {
	p := newPlay(t, Settings{Once: true})
	if a := p.want(Lease, ""); a.Wait != 0 {
		t.Errorf("%+v", a)
	}
	p.lease(one("a", "1", kindLook))
	done := p.done
	p.want(Begin, "a")
	p.done = done
	p.want(Lease, "")
	p.lease()
	p.never(Stop)
	p.finish("a", Finish{})
	p.never(Stop)
	p.answer("a", Answer{Verdict: OK})
	p.report("a", OK)
	p.want(Lease, "")
	p.lease()
	p.want(Stop, "")

	away := newPlay(t, Settings{Once: true})
	if err := away.desk.Leased(away.now, away.now, nil, Answer{}); err != nil {
		t.Error(err)
	}
	away.step()
	away.want(Stop, "")
}
