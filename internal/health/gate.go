package health

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/store"
)

// Config is what a Gate is made of.
type Config struct {
	Settings
	// Generation is the one that runs.
	Generation uint64
	// StateDir is the directory of record, RunDir that of the running boot.
	StateDir, RunDir string
	// System asks the service manager; nil is systemd.
	System func(context.Context) (systemd.System, error)
	// Restart restarts the machine.
	Restart func(context.Context) error
	// Every is how often the gate looks, 0 is 2 s.
	Every time.Duration
	// Now is the clock, and Uptime how long the machine has been up; nil are the machine's own.
	Now    func() time.Time
	Uptime func() time.Duration
	// Log takes what is decided; nil discards it.
	Log *slog.Logger
}

// Gate judges one generation in one boot.
type Gate struct {
	c      Config
	policy Policy
	// told is what was logged last of each kind, so that it is said once.
	told map[string]string
}

// New returns a gate that does nothing until Run.
func New(c Config) *Gate {
	if c.System == nil {
		c.System = systemd.Manager{}.System
	}
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Uptime == nil {
		c.Uptime = Uptime
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Gate{c: c, told: make(map[string]string)}
}

// Uptime returns how long the machine has been up, the time that it slept included.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// seldom is how often the gate looks once there is a verdict which it couldn't act upon.
const seldom = 30 * time.Second

// Run judges until there is a verdict that lasts, or ctx ends. reached says whether the platform has acknowledged
// this node since the hand-over; alive is called at each look, with the time until the next at the latest.
// It returns nothing: what goes wrong is logged where it happens, and tried again.
func (g *Gate) Run(ctx context.Context, reached func() bool, alive func(time.Duration)) {
	if !g.c.Trial {
		g.settled()
		return
	}
	begun := g.c.Now()
	if up := g.c.Uptime() - time.Duration(g.c.HandedOverSeconds)*time.Second; g.c.HandedOverSeconds > 0 && up > 0 {
		begun = begun.Add(-up)
	}
	judge := NewJudge(begun)
	g.c.Log.Info("this generation is on trial", "generation", g.c.Generation, "attempt", g.c.Attempt, "of", g.c.Attempts, "time", g.c.Timeout())
	tick := time.NewTicker(g.c.Every)
	defer tick.Stop()
	prepared, spoken := false, false
	for {
		// A look asks systemd once and may write a few records.
		alive(seldom + time.Minute)
		if !prepared {
			prepared = g.prepare()
		}
		var v Verdict
		judge, v = judge.Look(g.c.Now(), g.policy, g.look(ctx, reached))
		if ctx.Err() == nil && g.act(ctx, v) {
			return
		}
		if v.Outcome != Wait {
			spoken = true
			tick.Reset(seldom)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if !spoken && !judge.Wrong() {
				g.forgive(context.WithoutCancel(ctx))
			}
			return
		}
	}
}

// settled is the whole work where the generation is known to be good. A current pointer that is damaged is
// set right, now that it is known what it should say, and so is a trial whose end a crash kept from being recorded.
func (g *Gate) settled() {
	g.report(Verdict{Outcome: OK})
	g.say(guard.Good, "known to be good")
	st, err := store.Open(g.c.StateDir, store.Options{ReadOnly: true})
	if err != nil {
		g.complain("the current pointer can't be looked after", err)
		return
	}
	current, damage := st.Pointer(store.Current)
	t, trialErr := st.Trial(g.c.Generation)
	l, liveErr := st.Live(g.c.Generation)
	gone := current != g.c.Generation && g.c.Generation != 0 && givenUp(st, current)
	st.Close()
	trialErr = errors.Join(trialErr, liveErr)
	if open := t.Attempts > 0 && t.Good.IsZero() && t.Failed == "" && l.Generation == 0; trialErr == nil && damage == nil && current == g.c.Generation && open {
		if err := g.record(func(st *store.Store) error { return st.Pass(t.Generation, g.c.Now(), t.FailedUnits) }); err != nil {
			g.complain("that the trial is over can't be recorded", err)
		}
	}
	if damage == nil && !gone || g.c.Generation == 0 {
		return
	}
	if gone {
		g.c.Log.Warn("this generation is current again: what went live after it doesn't boot", "generation", g.c.Generation, "instead_of", current)
	} else {
		g.c.Log.Warn("the current pointer is written anew", "generation", g.c.Generation, "reason", damage)
	}
	if err := g.record(func(st *store.Store) error { return st.Promote(g.c.Generation) }); err != nil {
		g.complain("the current pointer can't be written", err)
	}
}

// givenUp reports whether a generation went live, and boots with it failed so that it isn't tried any more.
func givenUp(st *store.Store, n uint64) bool {
	l, liveErr := st.Live(n)
	t, trialErr := st.Trial(n)
	return liveErr == nil && trialErr == nil && l.Unproven(t) && t.Exhausted()
}

func (g *Gate) look(ctx context.Context, reached func() bool) Seen {
	seen := Seen{Platform: reached()}
	var err error
	if seen.System, err = g.c.System(ctx); errors.Is(err, systemd.ErrNone) {
		seen.None = true
	} else if err != nil {
		seen.Silent = err.Error()
	}
	return seen
}

// act does what follows from a verdict, and reports whether nothing is left to do.
func (g *Gate) act(ctx context.Context, v Verdict) (done bool) {
	g.report(v)
	switch {
	case v.Outcome == OK:
		return g.good(v)
	case v.Outcome == Bad && g.policy.Last:
		g.tell(slog.LevelError, "this generation isn't good, and there is nothing to go back to", v)
		g.say(guard.Stays, v.Reason())
	case v.Outcome == Bad:
		return g.bad(ctx, v)
	default:
		g.tell(slog.LevelInfo, "not good yet", v)
	}
	return false
}

func (g *Gate) good(v Verdict) (done bool) {
	err := g.record(func(st *store.Store) error { return st.Pass(g.c.Generation, g.c.Now(), v.FailedUnits) })
	if err != nil {
		g.complain("this generation is good, which can't be recorded", err)
	} else {
		g.c.Log.Info("this generation is good", "generation", g.c.Generation, "remarks", v.Reason())
	}
	// A disk that is full is no reason to restart a machine that runs.
	g.say(guard.Good, v.Reason())
	return err == nil
}

func (g *Gate) bad(ctx context.Context, v Verdict) (done bool) {
	err := g.record(func(st *store.Store) error {
		t, err := st.Trial(g.c.Generation)
		if err != nil {
			return err // it can't be read, and counts as exhausted
		}
		if v.Early && t.Attempts < t.Limit {
			g.tell(slog.LevelError, "this generation isn't good in this boot; restarting into another attempt", v)
			t.Ended = v.Reason()
			return st.PutTrial(t)
		}
		g.tell(slog.LevelError, "this generation is bad; restarting into the last good one", v)
		t.Failed, t.FailedAt = v.Reason(), g.c.Now().UTC()
		return st.PutTrial(t)
	})
	if err != nil {
		// The attempt was counted: there is an end to it all the same.
		g.complain("the verdict can't be recorded", err)
	}
	if err := g.c.Restart(ctx); err != nil {
		g.complain("the machine can't be restarted", err)
		return false
	}
	return true
}

func (g *Gate) record(do func(*store.Store) error) error {
	st, err := store.Open(g.c.StateDir, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	return do(st)
}

func (g *Gate) say(word, text string) {
	if err := guard.Say(g.c.RunDir, g.c.Generation, word, text); err != nil {
		g.complain("the guard can't be told", err)
	}
}

// report leaves the verdict for who asks for the node's status, unless it is there.
func (g *Gate) report(v Verdict) {
	if !g.news("report", string(v.Outcome)+v.Reason()) {
		return
	}
	err := WriteReport(g.c.RunDir, Report{Generation: g.c.Generation, At: g.c.Now().UTC(), Verdict: v})
	if err != nil {
		g.complain("the verdict can't be shown", err)
	}
}

// tell logs a verdict unless the last of its kind was the same.
func (g *Gate) tell(level slog.Level, text string, v Verdict) {
	if reason := v.Reason(); g.news(text, reason) {
		g.c.Log.Log(context.Background(), level, text, "generation", g.c.Generation, "reason", reason)
	}
}

// complain logs a difficulty unless the last of its kind was the same.
func (g *Gate) complain(text string, err error) {
	if g.news(text, err.Error()) {
		g.c.Log.Warn(text, "error", err)
	}
}

func (g *Gate) news(kind, text string) bool {
	last, before := g.told[kind]
	g.told[kind] = text
	return !before || last != text
}
