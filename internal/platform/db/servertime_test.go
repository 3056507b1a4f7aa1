package db

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/lease"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// TestLookOffset goes through what a look at the server's clock says.
func TestLookOffset(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	base := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		trip, server, before, want time.Duration
	}{
		"the same":               {10 * ms, 4 * ms, 0, 0},
		"the same, by an edge":   {0, -ms / 2, 0, 0},
		"behind by a minute":     {10 * ms, 61*s + 5*ms, 0, 61 * s},
		"ahead by a minute":      {10 * ms, -61*s + 5*ms, 0, -61 * s},
		"as before":              {10 * ms, 61*s + 9*ms, 61 * s, 61 * s},
		"as before, slower":      {900 * ms, 61 * s, 60*s + 500*ms, 60*s + 500*ms},
		"put right in between":   {10 * ms, 5 * ms, 61 * s, 0},
		"slowly out of the edge": {10 * ms, 12 * ms, 0, 7 * ms},
	} {
		l := look{
			asked: instant{wall: base, run: s}, answered: instant{wall: base.Add(c.trip), run: s + c.trip}, server: base.Add(c.server),
		}
		if got := l.offset(c.before); got != c.want || !l.usable() {
			t.Errorf("%s: %s, not %s; usable: %t", name, got, c.want, l.usable())
		}
	}
	for name, l := range map[string]look{
		"slow":                {asked: instant{wall: base}, answered: instant{wall: base.Add(2 * s), run: 2 * s}},
		"set forth meanwhile": {asked: instant{wall: base}, answered: instant{wall: base.Add(2 * s), run: ms}},
		"set back meanwhile":  {asked: instant{wall: base}, answered: instant{wall: base.Add(-s), run: ms}},
	} {
		if l.usable() {
			t.Errorf("%s: it counts", name)
		}
	}
}

// machineClock is a machine's clock that is off.
type machineClock struct {
	mu  sync.Mutex
	off time.Duration
}

func (m *machineClock) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.off)
}

func (m *machineClock) set(off time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = off
}

// offBy returns how far a clock is from this process's own, 0 within maxRoundTrip.
func offBy(now func() time.Time) time.Duration {
	before := time.Now()
	got := now()
	switch after := time.Now(); {
	case got.Before(before.Add(-maxRoundTrip)):
		return got.Sub(before)
	case got.After(after.Add(maxRoundTrip)):
		return got.Sub(after)
	}
	return 0
}

// at opens a database at a machine whose clock is off by so much.
func at(t *testing.T, o Options, off time.Duration) (*DB, *machineClock, *bytes.Buffer) {
	t.Helper()
	m, said := &machineClock{off: off}, new(bytes.Buffer)
	o.Now, o.Machine, o.Logger = m.now, m.now, slog.New(slog.NewTextHandler(said, nil))
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, m, said
}

// TestReplicasSkewed: platforms whose clocks are minutes apart agree about leases, about how long tokens are good, and about the time.
func TestReplicasSkewed(t *testing.T) {
	overPostgres(t)
	ctx := t.Context()
	for _, off := range []time.Duration{-5 * time.Minute, -61 * time.Second, 61 * time.Second, 5 * time.Minute} {
		o := place(t)
		right, _, _ := at(t, o, 0)
		wrong, _, said := at(t, o, off)
		if !strings.Contains(said.String(), "clock isn't the database server's") {
			t.Errorf("%s: nobody was told: %s", off, said)
		}
		before := right.Now()
		if now, after := wrong.Now(), right.Now(); now.Before(before.Add(-maxRoundTrip)) || now.After(after.Add(maxRoundTrip)) {
			t.Errorf("%s: it is %s for one between %s and %s for the other", off, now, before, after)
		}
		n := first(right.CreateNode(ctx, "web-1", "amd64"))
		for i, pair := range [][2]*DB{{right, wrong}, {wrong, right}} {
			one, other := pair[0], pair[1]
			made := first(one.CreateTask(ctx, Task{Task: lease.Task{Kind: "sync"}, ID: NewID(), NodeID: n.ID, Options: "{}"}))
			got := first(one.LeaseTasks(ctx, n.ID, nil, 1))
			if len(got.Tasks) != 1 || got.Tasks[0].ID != made.ID {
				t.Fatalf("%s: %+v", off, got)
			}
			if again := first(other.LeaseTasks(ctx, n.ID, nil, 1)); len(again.Tasks) != 0 {
				t.Errorf("%s, %d: the other gives it once more: %+v", off, i, again.Tasks)
			}
			before := one.Now()
			renewed, err := other.RenewTask(ctx, n.ID, made.ID, got.Tasks[0].Lease)
			if err != nil {
				t.Errorf("%s, %d: the other doesn't renew it: %v", off, i, err)
			}
			begun := renewed.Expires.Add(-lease.Life)
			if after := one.Now(); begun.Before(before.Add(-2*maxRoundTrip)) || begun.After(after.Add(2*maxRoundTrip)) {
				t.Errorf("%s, %d: renewed between %s and %s it lives until %s", off, i, before, after, renewed.Expires)
			}
			if _, err := one.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: got.Tasks[0].Lease}); err != nil {
				t.Errorf("%s, %d: %v", off, i, err)
			}
		}
	}
}

// TestClockIsSet: a clock that is set while the platform runs is put right, and meanwhile nothing is judged by it.
func TestClockIsSet(t *testing.T) {
	overPostgres(t)
	d, m, _ := at(t, place(t), 0)
	ctx := t.Context()
	// One that nobody keeps, to see each step.
	s := newServerTime(Options{Now: m.now, Machine: m.now}, d.read.pool, d.log)
	check(t, s.measure(ctx))
	if s.due() || s.known() != nil {
		t.Error("it isn't known after it was asked for")
	}
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		m.set(off)
		// Before anybody looks whether there is need to ask again.
		if s.known() == nil {
			t.Errorf("set by %s: it is believed", off)
		}
		if by := offBy(s.now); by != 0 {
			t.Errorf("set by %s: it is %s off", off, by)
		}
		if !s.due() || s.known() == nil {
			t.Errorf("set by %s: nobody asks again", off)
		}
	}
	// What was seen isn't forgotten where the clock is put right again.
	if m.set(0); s.known() == nil {
		t.Error("a clock that was set to and fro is believed")
	}
	m.set(10 * time.Minute)
	check(t, s.measure(ctx))
	if by := offBy(s.now); s.known() != nil || by != 0 {
		t.Errorf("it is %s off", by)
	}
	// The platform's own does so by itself.
	for tries := 0; d.TimeKnown() != nil; tries++ {
		if tries > 6000 {
			t.Fatal("it is never put right")
		}
		time.Sleep(lookTick / 100)
	}
	if by := offBy(d.Now); by != 0 {
		t.Errorf("the platform's own is %s off", by)
	}
}

// TestTimeUnknown: while the server's time isn't known there are no leases and no health, for now.
func TestTimeUnknown(t *testing.T) {
	overPostgres(t)
	d, m, _ := at(t, place(t), 0)
	ctx := t.Context()
	n := first(d.CreateNode(ctx, "web-1", "amd64"))
	made := first(d.CreateTask(ctx, Task{Task: lease.Task{Kind: "sync"}, ID: NewID(), NodeID: n.ID, Options: "{}"}))
	got := first(d.LeaseTasks(ctx, n.ID, nil, 1))
	check(t, d.Ping(ctx))
	d.server = newServerTime(Options{Now: m.now, Machine: m.now}, d.read.pool, d.log)
	for name, call := range map[string]func() error{
		"lease": func() error { _, err := d.LeaseTasks(ctx, n.ID, nil, 1); return err },
		"renew": func() error { _, err := d.RenewTask(ctx, n.ID, made.ID, got.Tasks[0].Lease); return err },
		"end": func() error {
			_, err := d.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: got.Tasks[0].Lease})
			return err
		},
		"cancel": func() error { _, err := d.CancelTask(ctx, made.ID, "x"); return err },
		"expire": func() error { _, err := d.ExpireTasks(ctx); return err },
		"health": func() error { return d.Ping(ctx) },
	} {
		if err := call(); fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, d.server.measure(ctx))
	if _, err := d.EndTask(ctx, n.ID, made.ID, TaskOutcome{Lease: got.Tasks[0].Lease}); err != nil {
		t.Errorf("once it is known: %v", err)
	}
}

// TestHealthOfAStandby: a database that can only be read is no healthy one.
func TestHealthOfAStandby(t *testing.T) {
	overPostgres(t)
	o := place(t)
	d, _, _ := at(t, o, 0)
	check(t, d.Ping(t.Context()))
	name := o.Postgres.Database()
	postgrestest.Administer(t, "ALTER DATABASE "+name+" SET default_transaction_read_only = on",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"'")
	err := d.Ping(t.Context())
	for tries := 0; err == nil || !strings.Contains(err.Error(), "only reads"); err = d.Ping(t.Context()) {
		if tries++; tries > 1000 {
			t.Fatal(err)
		}
	}
	if fault.KindOf(err) != fault.Retry {
		t.Error(err)
	}
}
