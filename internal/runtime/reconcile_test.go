package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// TestNextReconcile: when the node is brought in step, and when it isn't.
func TestNextReconcile(t *testing.T) {
	now := time.Unix(1e9, 0)
	const chance = 1.0 // the longest pauses
	for name, c := range map[string]struct {
		v    ReconcileView
		due  bool
		wait time.Duration
	}{
		"nobody answers":              {ReconcileView{}, false, reconcileAnyway},
		"the first answer":            {ReconcileView{Reached: true}, true, 0},
		"in step":                     {ReconcileView{Reached: true, Begun: true, Last: now, Config: "a", Tried: "a"}, false, reconcileAnyway * 5 / 4},
		"a long time ago":             {ReconcileView{Reached: true, Begun: true, Last: now.Add(-8 * time.Hour)}, true, 0},
		"another list":                {ReconcileView{Reached: true, Begun: true, Last: now, Asked: true}, true, 0},
		"another configuration":       {ReconcileView{Reached: true, Begun: true, Last: now, Config: "b", Tried: "a"}, true, 0},
		"no word on it":               {ReconcileView{Reached: true, Begun: true, Last: now, Tried: "a"}, false, reconcileAnyway * 5 / 4},
		"it failed":                   {ReconcileView{Reached: true, Begun: true, Last: now, Failures: 1}, false, reconcileFirst},
		"it failed often":             {ReconcileView{Reached: true, Begun: true, Last: now, Failures: 99}, false, reconcileMost},
		"it was refused":              {ReconcileView{Reached: true, Begun: true, Last: now, Failures: 1, Refused: true}, false, reconcileNoFirst},
		"refused often":               {ReconcileView{Reached: true, Begun: true, Last: now, Failures: 17, Refused: true}, false, reconcileNoMost},
		"refused, and another list":   {ReconcileView{Reached: true, Begun: true, Last: now, Failures: 9, Refused: true, Asked: true}, false, reconcileFirst},
		"the pause is over":           {ReconcileView{Reached: true, Begun: true, Last: now.Add(-reconcileFirst), Failures: 1}, true, 0},
		"a clock that was set back":   {ReconcileView{Reached: true, Begun: true, Last: now.Add(time.Hour), Asked: true}, true, 0},
		"asked again and again":       {ReconcileView{Reached: true, Begun: true, Last: now, Asked: true, Again: 4}, false, 16 * time.Second},
		"without an end":              {ReconcileView{Reached: true, Begun: true, Last: now, Asked: true, Again: 1 << 40}, false, reconcileAgainMost},
		"and it fails":                {ReconcileView{Reached: true, Begun: true, Last: now, Asked: true, Again: 99, Failures: 9, Refused: true}, false, reconcileAgainMost},
		"the pause between is over":   {ReconcileView{Reached: true, Begun: true, Last: now.Add(-16 * time.Second), Asked: true, Again: 4}, true, 0},
		"by hand":                     {ReconcileView{Reached: true, Begun: true, Last: now, Hand: true, Again: 99}, true, 0},
		"by hand after a failure":     {ReconcileView{Reached: true, Begun: true, Last: now, Hand: true, Failures: 9}, false, reconcileFirst},
		"away again, with a new list": {ReconcileView{Begun: true, Last: now, Asked: true}, false, reconcileAnyway},
	} {
		if due, wait := NextReconcile(now, c.v, chance); due != c.due || wait != c.wait {
			t.Errorf("%s: %t, %s; want %t, %s", name, due, wait, c.due, c.wait)
		}
	}
}

// TestReconcileLoop: the loop over hours, with answers as they come.
func TestReconcileLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		var mu sync.Mutex // of what follows, and of at
		result, why := error(nil), ""
		var r *Reconcile
		r = NewReconcile(ReconcileConfig{
			Rand: func() float64 { return 1 },
			Do: func(context.Context) (string, error) {
				mu.Lock()
				at = append(at, time.Since(begun))
				mu.Unlock()
				time.Sleep(time.Second)
				if !r.Busy() {
					t.Error("it says that nothing is done")
				}
				mu.Lock()
				defer mu.Unlock()
				return "c", result
			},
			Ready: func() string {
				mu.Lock()
				defer mu.Unlock()
				return why
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.Run(ctx, func(time.Duration) {}); close(done) }()
		expect := func(what string, n int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(at) != n {
				t.Errorf("%s: it was done %d times, want %d: %v", what, len(at), n, at)
			}
		}
		time.Sleep(time.Hour)
		expect("before the first answer", 0)
		set := func(err error, reason string) {
			mu.Lock()
			defer mu.Unlock()
			result, why = err, reason
		}
		set(nil, "on trial")
		r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "c"})
		time.Sleep(time.Minute)
		expect("on trial", 0)
		set(nil, "")
		time.Sleep(10 * time.Second)
		expect("good", 1)
		r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "c"})
		time.Sleep(time.Hour)
		expect("nothing new", 1)
		set(fault.New(fault.Retry, fault.Platform, "", "away"), "")
		r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "c", Reconcile: true})
		time.Sleep(5 * time.Second)
		expect("another list", 2)
		time.Sleep(time.Minute)
		// After 10 s, and 20 s more.
		expect("it fails", 4)
		set(nil, "")
		time.Sleep(time.Minute)
		expect("it works again", 5)
		r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "d"})
		time.Sleep(time.Minute)
		// The node has come to another configuration than it was told of, and asks once.
		expect("another configuration", 6)
		time.Sleep(time.Hour)
		expect("no circle", 6)
		set(errors.New("broken"), "")
		r.Ask()
		time.Sleep(2 * time.Second)
		expect("it was asked for by hand", 7)
		cancel()
		<-done
	})
}

// TestReconcileCircle: a platform that always asks for it again, or can't make up its mind on the configuration, isn't followed in a circle; a change that comes later is
// followed at once, and so is whoever asks here.
func TestReconcileCircle(t *testing.T) {
	always := func(int) *nodeapi.HeartbeatResponse {
		return &nodeapi.HeartbeatResponse{ConfigDigest: "c", Reconcile: true}
	}
	undecided := func(n int) *nodeapi.HeartbeatResponse { return &nodeapi.HeartbeatResponse{ConfigDigest: fmt.Sprint(n)} }
	for name, c := range map[string]struct {
		answer func(n int) *nodeapi.HeartbeatResponse
		err    error
	}{
		"always": {always, nil}, "undecided": {undecided, nil},
		"always, and it fails": {always, fault.New(fault.Refuse, fault.Policy, "", "no")}, "undecided, and it fails": {undecided, fault.New(fault.Retry, fault.Platform, "", "away")},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			done, calm := 0, false
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return done
			}
			var r *Reconcile
			r = NewReconcile(ReconcileConfig{
				Rand: func() float64 { return 0.5 },
				Do: func(context.Context) (string, error) {
					mu.Lock()
					defer mu.Unlock()
					done++
					time.Sleep(300 * time.Millisecond)
					if calm {
						return "c", nil
					}
					return "c", c.err
				},
				Told: func() {
					mu.Lock()
					defer mu.Unlock()
					if r.Busy() || calm {
						return
					}
					time.Sleep(5 * time.Millisecond) // of the heartbeat
					r.Answered(c.answer(done))
				},
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { r.Run(ctx, func(time.Duration) {}); close(ended) }()
			r.Answered(c.answer(-1))
			time.Sleep(10 * time.Minute)
			if n := count(); n < 4 || n > 12 {
				t.Errorf("%s: %d attempts in ten minutes", name, n)
			}
			before := count()
			time.Sleep(24 * time.Hour)
			if n := count() - before; n < 100 || n > 24*17 { // with the pauses of failures at the most
				t.Errorf("%s: %d attempts in a day", name, n)
			}
			before = count()
			r.Ask()
			time.Sleep(time.Second)
			if n := count() - before; c.err == nil && n != 1 {
				t.Errorf("%s: asked for here, and done %d times", name, n)
			}
			mu.Lock()
			calm = true
			mu.Unlock()
			time.Sleep(time.Hour)
			r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "c"})
			time.Sleep(time.Hour)
			for range 3 {
				before = count()
				r.Answered(&nodeapi.HeartbeatResponse{ConfigDigest: "c", Reconcile: true})
				time.Sleep(time.Minute)
				if n := count() - before; n != 1 {
					t.Errorf("%s: another list, and done %d times", name, n)
				}
			}
			cancel()
			<-ended
		})
	}
}

// TestReady: a service is ready once it has read what it goes by, or has tried for long enough.
func TestReady(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		ready    time.Duration
	}{
		"at once": {0, 0}, "after a while": {3, 3 * readyLook}, "never": {1 << 20, readyPatience},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun, ready, calls := time.Now(), time.Duration(-1), 0
			s := New(Config{
				Platform: nil, State: nil,
				Notifier: notifierFunc(func(m string) {
					if len(m) >= 7 && m[:7] == "READY=1" {
						ready = time.Since(begun)
					}
				}),
				Load: func(context.Context) error {
					if calls++; calls <= c.failures {
						return errors.New("nothing there")
					}
					return nil
				},
			})
			ctx, cancel := context.WithCancel(t.Context())
			s.ready(ctx)
			time.Sleep(time.Minute)
			cancel()
			synctest.Wait()
			if ready != c.ready {
				t.Errorf("%s: ready after %s, want %s", name, ready, c.ready)
			}
		})
	}
}

type notifierFunc func(string)

func (f notifierFunc) Notify(m string) error { f(m); return nil }
