package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

const (
	// lookEvery is how often the server is asked for its time, and lookTick how often it is seen to that there is need to.
	lookEvery = time.Minute
	lookTick  = time.Second
	// lookLife is how long what it said is relied on: two clocks that run freely move apart by some 30 ms meanwhile.
	lookLife = 5 * time.Minute
	// maxRoundTrip bounds how long its answer may take, and so how wrong it may be taken: far less than a lease lives.
	maxRoundTrip = time.Second
	// goodRoundTrip is short enough for not asking again; looks bounds that.
	goodRoundTrip = 20 * time.Millisecond
	looks         = 5
	// noDifference is what clocks may differ by that agree: the tables hold milliseconds.
	noDifference = time.Millisecond
	// tellDifference is how far a machine's clock may be off before somebody is told.
	tellDifference = time.Second
	// stepped is by how much more than time a clock must go on, or back, between two looks at it, to have been set.
	stepped = 500 * time.Millisecond
	// torn is how long a reading of both clocks may take to be one instant. A longer one is repeated, up to so many readings in all.
	torn     = 10 * time.Millisecond
	instants = 5
)

// serverTime is the time by which platforms over one database compare what they do: the database server's, as far as this machine's own
// clock and what is known of the difference tell it.
type serverTime struct {
	// own is the clock that is put right, and machine the one that own goes by and that is compared with the server's.
	own, machine func() time.Time
	pool         *sql.DB
	log          *slog.Logger
	begun        time.Time

	mu     sync.Mutex
	offset time.Duration
	// good says that offset was measured, at the instant at.
	good bool
	at   instant
}

// instant is a moment by the machine's clock, which may be set, and by how long the process has run, which nobody sets.
type instant struct {
	wall time.Time
	run  time.Duration
}

// step is by how much the clock was set between two instants, or the machine stood still; 0 where it wasn't.
func (i instant) step(later instant) time.Duration {
	if by := later.wall.Sub(i.wall) - (later.run - i.run); by.Abs() > stepped {
		return by
	}
	return 0
}

// set reports whether the clock was set between two instants, or the machine stood still.
func (i instant) set(later instant) bool { return i.step(later) != 0 }

// look is one look at the server's clock: it was server between the two instants.
type look struct {
	asked, answered instant
	server          time.Time
}

// usable reports whether the look says enough.
func (l look) usable() bool {
	return l.answered.run-l.asked.run <= maxRoundTrip && !l.asked.set(l.answered)
}

// offset is what has to be added to the machine's clock. It stays what it was as long as that can be true, so that time doesn't go to and fro
// with each look; at first it was none.
func (l look) offset(before time.Duration) time.Duration {
	least, most := l.server.Sub(l.answered.wall), l.server.Sub(l.asked.wall)
	if least-noDifference <= before && before <= most+noDifference {
		return before
	}
	return (least + most) / 2
}

func newServerTime(o Options, pool *sql.DB, log *slog.Logger) *serverTime {
	s := &serverTime{own: o.Now, machine: o.Machine, pool: pool, log: log, begun: time.Now()}
	if s.machine == nil {
		s.machine = time.Now
	}
	return s
}

// instant is now, by both clocks. Between the looks at them the process may have to wait for a processor, for as long as would pass for a step:
// such a pair is no instant, and another is looked for.
func (s *serverTime) instant() instant {
	var best instant
	var least time.Duration
	for i := range instants {
		before := time.Since(s.begun)
		wall := s.machine().Round(0)
		after := time.Since(s.begun)
		if apart := after - before; i == 0 || apart < least {
			best, least = instant{wall: wall, run: after}, apart
		}
		if least <= torn {
			break
		}
	}
	return best
}

// now returns the server's time as well as it is known. Where the machine's clock was set since the server was asked, that is by how long the
// process has run: handshakes ask for the time, too, and can't be told that it isn't known.
func (s *serverTime) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own().Add(s.offset)
	if s.at == (instant{}) {
		return own
	}
	return own.Add(-s.at.step(s.instant()))
}

// known returns an error where it isn't known well enough to judge what others have written. That the clock was set counts from that moment on, not
// when it is next seen to.
func (s *serverTime) known() error {
	now := s.instant()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good && !s.at.set(now) && now.run-s.at.run <= lookLife {
		return nil
	}
	return fault.New(fault.Retry, fault.General, "see that the database answers within a second, and both machines' clocks",
		"the time of the database's server isn't known, by which platforms judge leases")
}

// errSlow says that the server answers, but not so that its answer says what time it is.
var errSlow = errors.New("the database takes too long to say what time it is")

// measure asks the server for its time.
func (s *serverTime) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, looks*2*maxRoundTrip)
	defer cancel()
	// The wait for a connection isn't the server's.
	c, err := s.pool.Conn(ctx)
	if err != nil {
		return err
	}
	var best *look
	for range looks {
		l := look{asked: s.instant()}
		var micros int64
		if err = c.QueryRowContext(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").Scan(&micros); err != nil {
			break
		}
		l.answered, l.server = s.instant(), time.UnixMicro(micros)
		if l.usable() && (best == nil || l.answered.run-l.asked.run < best.answered.run-best.asked.run) {
			best = &l
		}
		if best != nil && best.answered.run-best.asked.run <= goodRoundTrip {
			break
		}
	}
	if err = errors.Join(err, c.Close()); best == nil {
		if err == nil {
			err = errSlow
		}
		return err
	}
	s.take(*best)
	return nil
}

// take goes by a look from now on.
func (s *serverTime) take(l look) {
	s.mu.Lock()
	before := s.offset
	s.offset, s.good, s.at = l.offset(before), true, l.answered
	now := s.offset
	s.mu.Unlock()
	if (now - before).Abs() >= tellDifference {
		s.log.Warn("this machine's clock isn't the database server's; leases and lives go by the server's", "behind_by", now.Round(time.Millisecond),
			"hint", "have both machines' clocks set by NTP")
	}
}

// due reports whether it is time to ask again, and forgets what was known before the clock was set.
func (s *serverTime) due() bool {
	now := s.instant()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good && s.at.set(now) {
		s.good = false
	}
	return !s.good || now.run-s.at.run >= lookEvery
}

// start keeps the time until the returned function is called. It begins by asking for it; an error is that of a server that doesn't answer.
func (s *serverTime) start(ctx context.Context) (stop func() error, err error) {
	if err := s.measure(ctx); errors.Is(err, errSlow) {
		s.log.Error(noTime, "error", err)
	} else if err != nil {
		return nil, fmt.Errorf("ask the database's server for its time: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var keeping sync.WaitGroup
	keeping.Go(func() {
		again := time.NewTicker(lookTick)
		defer again.Stop()
		told := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
			if !s.due() {
				continue
			}
			err := s.measure(ctx)
			if told = told && err != nil; err != nil && !told && s.known() != nil && ctx.Err() == nil {
				told = true
				s.log.Error(noTime, "error", err)
			}
		}
	})
	return func() error {
		cancel()
		keeping.Wait()
		return nil
	}, nil
}

const noTime = "the time of the database's server isn't known; no leases until it is"

// Now returns the time: over PostgreSQL the server's, by which all platforms over it judge; else this machine's.
func (d *DB) Now() time.Time { return d.now() }

// TimeKnown returns an error, fault.Retry, where the time isn't known well enough to judge what another platform has written.
func (d *DB) TimeKnown() error {
	if d.server == nil {
		return nil
	}
	return d.server.known()
}
