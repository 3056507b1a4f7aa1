package task

import (
	"errors"
	"testing"
	"time"
)

// TestLostLeaseIsSought: what runs goes on when its lease is lost, as long as the platform hasn't been asked for another; and it is asked at
// once, also where every place is taken, but not in a circle.
func TestLostLeaseIsSought(t *testing.T) {
	p := newPlay(t, Settings{Beside: 1})
	p.lease(one("root", "1", kindAgain), one("a", "2", kindResume))
	p.done = nil
	p.answer("root", Answer{Verdict: OK, LeaseTime: time.Hour})
	p.answer("a", Answer{Verdict: OK})
	p.pass(21 * time.Second)
	p.never(Lease) // there is no place
	p.answer("a", Answer{Verdict: Lost})
	if a := p.want(Lease, ""); a.Max != 1 || a.Wait != 0 || len(a.Holding) != 1 || a.Holding[0] != "1" {
		t.Errorf("%+v", a)
	}
	// Nobody has said that it isn't given.
	if err := p.desk.Leased(p.now, p.now, nil, Answer{Verdict: Away, After: 30 * time.Second}); err != nil {
		t.Error(err)
	}
	p.pass(29 * time.Second)
	p.never(Lease)
	p.pass(10 * time.Second)
	p.want(Lease, "")
	again := one("a", "3", kindResume)
	again.Attempt = 2
	p.lease(again)
	if a := p.want(Renew, "a"); a.Record.Task.Lease != "3" {
		t.Errorf("%+v", a.Record.Task)
	}
	// A platform that forgets at once what it has just given is asked now and then.
	p.answer("a", Answer{Verdict: Lost})
	p.never(Lease)
	p.pass(2 * leasePace)
	p.want(Lease, "")
	p.lease(one("b", "4", kindResume))
	if a := p.want(End, "a"); !errors.Is(a.Cause, ErrLeaseLost) {
		t.Errorf("%+v", a)
	}
	p.finish("a", Finish{Err: ErrLeaseLost})
	p.never(Report)
	if r := p.disk["a"]; r.Phase != Begun || r.Runs != 1 {
		t.Errorf("%+v", r)
	}
}

// TestLostLeaseOfWhatEnds: what comes to its end while the lease is sought is told under the next lease, and never under the one that was lost;
// what was cancelled before, or is too long, ends for that.
func TestLostLeaseOfWhatEnds(t *testing.T) {
	p := newPlay(t, Settings{Once: true})
	p.lease(one("a", "1", kindAgain), one("b", "2", kindLook), one("c", "3", kindLook))
	p.done = nil
	p.answer("c", Answer{Verdict: OK, Cancel: true})
	p.want(End, "c")
	p.lease() // there is nothing else, and nothing more to ask for
	p.answer("b", Answer{Verdict: OK, LeaseTime: time.Hour})
	p.pass(20 * time.Second)
	p.done = nil
	p.answer("a", Answer{Verdict: Lost})
	p.pass(2 * leasePace)
	p.want(Lease, "")
	p.finish("a", Finish{})
	p.pass(time.Minute)
	p.never(Report)
	again := one("a", "4", kindAgain)
	again.Attempt = 2
	p.lease(again)
	if a := p.want(Report, "a"); !a.Record.Outcome.Success || a.Record.Task.Lease != "4" {
		t.Errorf("%+v", a.Record)
	}
	p.answer("b", Answer{Verdict: Lost})
	p.pass(time.Hour)
	if a := p.want(End, "b"); !errors.Is(a.Cause, ErrTimeout) {
		t.Errorf("%+v", a)
	}
}
