package runtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// ReconcileView is everything that it follows from whether the node is to be brought in step now.
type ReconcileView struct {
	// Begun says that it was since the boot.
	Begun bool
	// Asked says that the platform has said, since the last attempt began, that its list is another.
	Asked bool
	// Config is the digest of the configuration that the platform has, "" where it doesn't say; Known what that was when the last attempt
	// began, and Tried the one that it came to.
	Config, Known, Tried string
	// Reached says that the platform has answered: before that there is nobody to ask.
	Reached bool
	// Hand says that somebody asked for it on the machine, since the last attempt began.
	Hand bool
	// Again is how many attempts in a row had the platform ask for another at once.
	Again int
	// Last is when the last attempt ended, Failures how many failed in a row, and Refused says that the last one was told no.
	Last     time.Time
	Failures int
	Refused  bool
}

// The rhythm of reconciling: an attempt that failed follows within these, which double, and of one that was told no within the longer ones; and
// how often the node looks whether it is in step though nobody says that it isn't.
const (
	reconcileFirst    = 10 * time.Second
	reconcileMost     = 5 * time.Minute
	reconcileNoFirst  = 5 * time.Minute
	reconcileNoMost   = time.Hour
	reconcileAnyway   = 6 * time.Hour
	reconcileTime     = 2 * time.Hour
	reconcileNotReady = 5 * time.Second
	// A platform that asks again within reconcileCalm of an attempt, each time, isn't followed in a circle: the pauses double within these.
	reconcileCalm      = 10 * time.Second
	reconcileAgain     = time.Second
	reconcileAgainMost = 5 * time.Minute
)

// NextReconcile returns whether the node is to be brought in step now, or how long to wait before it is asked again; chance, of [0,1),
// spreads the fleet.
func NextReconcile(now time.Time, v ReconcileView, chance float64) (due bool, wait time.Duration) {
	if !v.Reached {
		return false, reconcileAnyway // an answer ends the wait
	}
	at := v.Last.Add(time.Duration(float64(reconcileAnyway) * (0.75 + 0.5*chance)))
	switch {
	case v.Failures > 0:
		first, most := reconcileFirst, reconcileMost
		if v.Refused {
			first, most = reconcileNoFirst, reconcileNoMost
		}
		pause := most
		if v.Failures <= 16 {
			pause = min(first<<(v.Failures-1), most)
		}
		pause = time.Duration(float64(pause) * (0.5 + 0.5*chance))
		// What is new may work where the last attempt didn't; it isn't tried in a circle.
		if v.wanted() {
			pause = min(pause, max(reconcileFirst, v.pause()))
		}
		at = v.Last.Add(pause)
	case v.Hand:
		at = now
	case v.wanted():
		// A clock that was set back makes no pause longer.
		at = now.Add(min(v.Last.Add(v.pause()).Sub(now), v.pause()))
	}
	if wait = at.Sub(now); wait > 0 {
		return false, wait
	}
	return true, 0
}

// wanted tells whether there is a reason that the last attempt didn't know.
func (v ReconcileView) wanted() bool {
	return !v.Begun || v.Asked || v.Hand || v.another(v.Config)
}

// another tells whether a configuration is one that the last attempt neither knew of nor came to.
func (v ReconcileView) another(config string) bool {
	return config != "" && config != v.Tried && config != v.Known
}

// pause returns how long after an attempt a reason for another counts.
func (v ReconcileView) pause() time.Duration {
	switch {
	case v.Again == 0:
		return 0
	case v.Again > 16:
		return reconcileAgainMost
	}
	return min(reconcileAgain<<v.Again, reconcileAgainMost)
}

// Reconcile is the loop that brings the node in step with what the platform says of it. It is made by NewReconcile.
type Reconcile struct {
	c    ReconcileConfig
	wake chan struct{}

	mu   sync.Mutex
	view ReconcileView
	busy bool
	// ended says that an attempt has ended here: Last is when.
	ended bool
}

// ReconcileConfig is what a Reconcile is made of. Do is required.
type ReconcileConfig struct {
	// Do brings the node in step, and returns the digest of the configuration that it has come to, also beside an error.
	Do func(ctx context.Context) (config string, err error)
	// Ready says whether it may be done now, or why not: a generation that is on trial is left alone. nil is always.
	Ready func() (why string)
	// Begun says that it was done since the boot, and Config what it came to then: the service was restarted since.
	Begun  bool
	Config string
	// Told hears when it begins and ends; nil is nobody.
	Told func()
	// Rand returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Rand func() float64
	// Log takes what goes on; nil discards it.
	Log *slog.Logger
}

// NewReconcile returns the loop, which does nothing until Run.
func NewReconcile(c ReconcileConfig) *Reconcile {
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Ready == nil {
		c.Ready = func() string { return "" }
	}
	if c.Told == nil {
		c.Told = func() {}
	}
	return &Reconcile{c: c, wake: make(chan struct{}, 1), view: ReconcileView{Begun: c.Begun, Tried: c.Config, Last: time.Now()}}
}

// Answered hears what the platform answered to a heartbeat.
func (r *Reconcile) Answered(a *nodeapi.HeartbeatResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, another := a.Reconcile && !r.view.Asked, a.ConfigDigest != r.view.Config
	news := !r.view.Reached || asked || another
	if r.ended && (asked || another && r.view.another(a.ConfigDigest)) {
		if r.busy || time.Since(r.view.Last) < reconcileCalm {
			r.view.Again++
		} else {
			r.view.Again = 0
		}
	}
	r.view.Reached, r.view.Config = true, a.ConfigDigest
	// The attempt that is at work has asked for the list before, or will be told again that there is a newer one.
	r.view.Asked = r.view.Asked || a.Reconcile
	if news {
		signal(r.wake)
	}
}

// Ask has the node brought in step without a reason.
func (r *Reconcile) Ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.Hand = true
	signal(r.wake)
}

// View returns what the next attempt follows from.
func (r *Reconcile) View() ReconcileView {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// Busy tells whether it is done just now.
func (r *Reconcile) Busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy
}

// Run implements Loop.
func (r *Reconcile) Run(ctx context.Context, alive func(time.Duration)) {
	held := ""
	for chance := r.c.Rand(); ctx.Err() == nil; {
		due, wait := r.next(chance)
		if due {
			if why := r.c.Ready(); why != "" {
				if why != held {
					r.c.Log.Info("the node isn't brought in step yet", "reason", why)
				}
				held, wait = why, reconcileNotReady
			} else {
				held, chance = "", r.c.Rand()
				_ = r.once(ctx, alive) // it is logged, and follows in its time
				continue
			}
		}
		alive(wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
		timer.Stop()
	}
}

func (r *Reconcile) next(chance float64) (bool, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return NextReconcile(time.Now(), r.view, chance)
}

// once makes one attempt.
func (r *Reconcile) once(ctx context.Context, alive func(time.Duration)) error {
	r.mu.Lock()
	r.view.Asked, r.view.Hand, r.busy = false, false, true
	wanted := r.view.Config
	r.mu.Unlock()
	r.c.Told()
	alive(reconcileTime)
	limited, cancel := context.WithTimeout(ctx, reconcileTime)
	config, err := r.c.Do(limited)
	cancel()
	if ctx.Err() != nil {
		// Nothing is known of it; the next service will ask.
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
		return err
	}
	r.mu.Lock()
	r.busy, r.ended, r.view.Begun, r.view.Last = false, true, true, time.Now()
	r.view.Known, r.view.Tried = wanted, config
	r.view.Failures++
	r.view.Refused = err != nil && fault.KindOf(err) != fault.Retry
	failures := r.view.Failures
	if err == nil {
		r.view.Failures = 0
	}
	r.mu.Unlock()
	r.c.Told()
	if err != nil {
		r.c.Log.Warn("the node isn't in step with the platform", "attempt", failures, "error", err, "hint", fault.HintOf(err))
	}
	return err
}
