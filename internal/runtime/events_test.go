package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/task"
)

// tell runs the loop in a bubble.
func tell(t *testing.T, do func(t *testing.T, p *tasking, q *event.Queue, log *journal, stop func())) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q, err := event.Open(dir, event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		p, log := newTasking(), &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		promised, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			Events{Queue: q, Platform: p, Rand: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(log, nil))}.Run(ctx, func(d time.Duration) {
				if late := time.Since(promised); late > 0 {
					t.Errorf("late by %s", late)
				}
				promised = time.Now().Add(d)
			})
		}()
		do(t, p, q, log, func() { cancel(); <-ended })
		cancel()
		<-ended
	})
}

func (p *tasking) told() (texts string, calls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, e := range p.events {
		all = append(all, e.Text)
	}
	return strings.Join(all, " "), p.calls
}

func say(t *testing.T, q *event.Queue, kind, text string) {
	t.Helper()
	if err := q.Put(event.Event{Kind: kind, Text: text}); err != nil {
		t.Error(err)
	}
}

// TestEvents: they are told soon, together, and at the end.
func TestEvents(t *testing.T) {
	tell(t, func(t *testing.T, p *tasking, q *event.Queue, _ *journal, stop func()) {
		time.Sleep(time.Minute + time.Second)
		p.with(func() {
			if p.calls != 0 {
				t.Errorf("%d calls for nothing", p.calls)
			}
		})
		for i := range 5 {
			say(t, q, "test", fmt.Sprint(i))
		}
		time.Sleep(2 * time.Second)
		if told, calls := p.told(); told != "0 1 2 3 4" || calls != 1 {
			t.Errorf("told %q in %d calls", told, calls)
		}
		for i := range 250 {
			say(t, q, "test", fmt.Sprint(5+i))
		}
		time.Sleep(2 * time.Second)
		if told, calls := p.told(); strings.Count(told, " ") != 254 || calls != 4 {
			t.Errorf("told %q in %d calls", told, calls)
		}
		say(t, q, "test", "the end")
		stop()
		if told, _ := p.told(); !strings.HasSuffix(told, "the end") {
			t.Errorf("told %q", told)
		}
	})
}

// TestEventsOutage: nothing is lost, answers that are lost make no duplicates, and calls are few.
func TestEventsOutage(t *testing.T) {
	tell(t, func(t *testing.T, p *tasking, q *event.Queue, log *journal, stop func()) {
		p.with(func() { p.down = away(503, 0) })
		for i := range 24 {
			say(t, q, "test", fmt.Sprint(i))
			time.Sleep(time.Hour)
		}
		p.with(func() {
			if p.calls < 24*30 || p.calls > 24*130 {
				t.Errorf("%d calls in a day of outage", p.calls)
			}
			p.down, p.calls = away(429, 5*time.Minute), 0
		})
		time.Sleep(time.Hour)
		p.with(func() {
			if p.calls < 8 || p.calls > 14 {
				t.Errorf("%d calls in an hour of a platform that asks to wait for five minutes", p.calls)
			}
			p.down, p.lose = nil, 2
		})
		time.Sleep(time.Hour)
		p.with(func() {
			if len(p.events) != 24 || p.events[23].Text != "23" {
				t.Errorf("%d told", len(p.events))
			}
			p.down = away(503, 0)
		})
		say(t, q, "test", "late")
		time.Sleep(time.Minute)
		stop()
		if b, err := q.Next(100); err != nil || len(b.Events) != 1 {
			t.Errorf("left: %+v, %v", b, err)
		}
		if n := strings.Count(log.String(), "doesn't know of this node's events"); n < 2 || n > 6 {
			t.Errorf("the log:\n%s", log)
		}
	})
}

// TestEventThatIsRefused: it costs itself, is counted, and keeps no other.
func TestEventThatIsRefused(t *testing.T) {
	tell(t, func(t *testing.T, p *tasking, q *event.Queue, log *journal, _ func()) {
		p.with(func() { p.refuse = "bad" })
		for i := range 20 {
			kind := "test"
			if i == 13 {
				kind = "bad"
			}
			say(t, q, kind, fmt.Sprint(i))
		}
		time.Sleep(5 * time.Minute)
		p.with(func() {
			if len(p.events) != 20 || p.events[19].Kind != event.DroppedKind || p.events[19].Fields["info"] != "1" {
				t.Errorf("%d told: %+v", len(p.events), p.events)
			}
		})
		if strings.Count(log.String(), "it is given up") != 1 {
			t.Errorf("the log:\n%s", log)
		}
	})
}

// notOurs is what somebody before the platform says: no envelope, no code.
func notOurs(status int) error {
	return fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: status})
}

// TestEventsBehindAProxy: whatever somebody before the platform answers, and the platform on anything but an event, costs no event.
func TestEventsBehindAProxy(t *testing.T) {
	for _, down := range []error{
		notOurs(400), notOurs(409), notOurs(413), notOurs(422),
		fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: 400, Code: nodeapi.CodeValidation}), // of a certificate in a header
		fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: 422, Code: nodeapi.CodeValidation}),
	} {
		tell(t, func(t *testing.T, p *tasking, q *event.Queue, log *journal, _ func()) {
			p.with(func() { p.down = down })
			for i := range 100 {
				if err := q.Put(event.Event{Kind: "audit", Audit: true, Text: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(24 * time.Hour)
			p.with(func() {
				if p.calls > 24*60 {
					t.Errorf("%v: %d calls in a day", down, p.calls)
				}
				p.down = nil
			})
			time.Sleep(2 * time.Hour)
			p.with(func() {
				if len(p.events) != 100 {
					t.Errorf("%v: %d arrived: %+v", down, len(p.events), p.events)
				}
			})
			if strings.Contains(log.String(), "given up") {
				t.Errorf("%v: the log:\n%s", down, log)
			}
		})
	}
}

// TestEventsThatAreAllRefused: a platform that refuses every event, also the one that says how many were given up, empties no queue before somebody could look,
// and hears of each that it cost.
func TestEventsThatAreAllRefused(t *testing.T) {
	tell(t, func(t *testing.T, p *tasking, q *event.Queue, _ *journal, _ func()) {
		p.with(func() {
			p.down = fault.New(fault.Refuse, fault.Platform, "", "call: %w", &nodehttp.StatusError{Status: 422, Code: nodeapi.CodeEventRefused})
		})
		for i := range 40 {
			say(t, q, "test", fmt.Sprint(i))
		}
		time.Sleep(24 * time.Hour)
		left, _, err := q.Size()
		if err != nil || left == 0 || left == 40 {
			t.Errorf("%d left, %v", left, err)
		}
		time.Sleep(48 * time.Hour) // it is refused alone as well
		p.with(func() { p.down = nil })
		time.Sleep(2 * time.Hour)
		p.with(func() {
			if len(p.events) != 1 || p.events[0].Kind != event.DroppedKind || p.events[0].Fields["info"] != "40" {
				t.Errorf("%+v", p.events)
			}
		})
	})
}

// TestEventsOnce: one round finds the event that isn't taken, and tells the others.
func TestEventsOnce(t *testing.T) {
	dir := t.TempDir()
	q, err := event.Open(dir, event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	p := newTasking()
	p.refuse = "bad"
	for i := range 9 {
		say(t, q, "test", fmt.Sprint(i))
	}
	say(t, q, "bad", "x")
	err = Events{Queue: q, Platform: p, Log: slog.New(slog.DiscardHandler)}.Once(t.Context())
	if len(p.events) != 9 || err != nil {
		t.Errorf("%d arrived, %v", len(p.events), err)
	}
}

// TestAuditOptions: a record holds the options that there are, of the older platform's commands too, and nothing else that somebody has sent.
func TestAuditOptions(t *testing.T) {
	for _, c := range []struct {
		kind          nodeapi.TaskKind
		options, want string
	}{
		{nodeapi.TaskAttach, `{"password":"x","modules":["nginx"]}`, `attach {"modules":["nginx"]}`},
		{nodeapi.TaskAttach, `{"modules":"x"}`, `attach (options that can't be read)`},
		{nodeapi.TaskGC, `{}`, `gc`},
		{nodeapi.TaskGC, ``, `gc`},
		{"stop", `{"unit":"nginx.service"}`, `stop {"unit":"nginx.service"}`},
		{"restart", `{"modules":["nginx"],"token":"x"}`, `restart {"modules":["nginx"]}`},
		{"custom", `{"modules":["x"],"command":"x"}`, `custom`},
		{"dance", `{"modules":["x"]}`, `dance`},
	} {
		if a := auditOf(task.Record{Task: task.Task{ID: "t", Kind: c.kind, Options: []byte(c.options)}, Phase: task.Begun}); a.Command != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.options, a.Command, c.want)
		}
	}
}

// TestAuditTasks: who asked for what, and what came of it, in the log and in the queue; a full disk doesn't keep it from the log.
func TestAuditTasks(t *testing.T) {
	var got []event.Event
	var fail error
	log := &journal{}
	hear := AuditTasks(func(e event.Event) error { got = append(got, e); return fail },
		func(t task.Task) bool { return t.Kind != nodeapi.TaskIntrospect }, slog.New(slog.NewTextHandler(log, nil)))
	begun := time.Unix(1000, 5)
	r := task.Record{
		Task:  task.Task{ID: "t1", Kind: nodeapi.TaskAttach, Options: []byte(`{"modules":["nginx"]}`), RequestedBy: "ops"},
		Phase: task.Begun, Runs: 1, BegunAt: begun,
	}
	hear(r)
	hear(r)
	r.Phase, r.EndedAt, r.Outcome = task.Done, begun.Add(time.Second), &task.Outcome{Code: nodeapi.FailFailed, Error: "no space"}
	fail = errors.New("the disk is full")
	hear(r)
	hear(task.Record{Task: task.Task{ID: "t2", Kind: nodeapi.TaskIntrospect}, Phase: task.Begun})
	hear(task.Record{Task: task.Task{ID: "t3", Kind: "dance", Options: []byte(`{"password":"x"}`)}, Phase: task.Done, Outcome: &task.Outcome{Code: nodeapi.FailUnknownKind}})
	if len(got) != 4 || got[0].Key != got[1].Key || got[0].Key == got[2].Key || !got[2].Audit || got[2].Severity != nodeapi.SeverityWarning ||
		got[2].Text != `ops: attach {"modules":["nginx"]}: failed: FAILED: no space` || got[2].At != r.EndedAt || strings.Contains(got[3].Text, "password") {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(log.String(), "msg=audit"); n != 4 || !strings.Contains(log.String(), "in this log alone") {
		t.Errorf("the log:\n%s", log)
	}
}
