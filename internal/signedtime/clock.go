package signedtime

import (
	"context"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Again is the age of a signed time after which it is due to be asked for again: the kernel's clock drifts, and
// stands still while a virtual machine is stopped.
const Again = 12 * time.Hour

// Options are the settings of a Clock. The zero value is usable.
type Options struct {
	// Floor are moments that are known to be past, such as the date of this program's source. They must not come
	// from this machine's clock, which may once have been years ahead. Zero ones count for nothing.
	Floor []time.Time
	// Local says that the node was told to judge by this machine's clock, because its platform signs no time.
	Local bool
	// Wall is this machine's clock; nil is time.Now. Elapsed is a clock that nobody can set; nil is the kernel's time
	// since power-on.
	Wall    func() time.Time
	Elapsed func() time.Duration
	// Hook sees every operation on the disk before it happens (package durable); nil for none.
	Hook durable.Hook
}

// Clock says what time it is, as well as can be known. It may be used by several goroutines.
type Clock struct {
	dir     string
	options Options

	mu sync.Mutex
	// source is the latest of the options' floor; floor is that, or the last signed time.
	source  time.Time
	floor   time.Time
	reading Reading
	known   bool
	doubted bool
	remarks []string
}

// Open returns the Clock whose last platform time is kept in dir, a directory that need not exist and is made by
// the first answer; "" keeps nothing. A file there that can't be read raises no floor, and is remarked; nothing
// makes the floor lower than o's.
func Open(dir string, o Options) *Clock {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Elapsed == nil {
		o.Elapsed = sincePowerOn
	}
	c := &Clock{dir: dir, options: o}
	for _, t := range o.Floor {
		c.source = later(c.source, t)
	}
	c.floor = c.source
	if dir == "" {
		return c
	}
	seen, err := readSeen(dir, o.Hook)
	if err != nil {
		c.remarks = append(c.remarks, "the last time of the platform isn't known: "+err.Error())
	}
	c.floor = later(c.floor, seen)
	return c
}

// Now returns the signed time as it has run on since, or where there is none this machine's clock, and the floor
// where that lies before it.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		return c.reading.Now(c.options.Elapsed())
	}
	return later(c.options.Wall(), c.floor)
}

// Judges reports whether Now may decide that a platform's certificate is good: a signed time is known, or the
// node was told to judge by this machine's clock.
func (c *Clock) Judges() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known || c.options.Local
}

// Signed returns the last signed reading, and whether there is one.
func (c *Clock) Signed() (Reading, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading, c.known
}

// Floor returns the latest moment that is known to be past; zero where none is.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// Remarks returns what went wrong with the file, in sentences.
func (c *Clock) Remarks() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.remarks...)
}

// Doubt has a signed time be due: a certificate wasn't valid by this clock, which may have stood still with the
// whole machine.
func (c *Clock) Doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubted = true
}

// Due reports whether a signed time is to be asked for: there is none, or it is in doubt or older than Again. A node
// that was told to judge by its own clock never asks.
func (c *Clock) Due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.options.Local && (!c.known || c.doubted || c.options.Elapsed()-c.reading.At >= Again)
}

// Ask makes one attempt to learn the time from m's platform, with the settings o of the connection, whose clock
// doesn't count. It does nothing for a node that was told to judge by its own clock. The errors are those of the
// function Ask, and fault.Refuse for a time that contradicts what is known to be past. After an error Now goes on as
// before. That the file couldn't be written, or that the platform's time went back, is a remark and no error.
func (c *Clock) Ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options) error {
	if c.options.Local {
		return nil
	}
	reading, err := ask(ctx, m, o, c.options.Elapsed)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	said := sense(reading, c.source, c.floor)
	if said == contradicts {
		return fault.New(fault.Refuse, fault.Platform, "set the platform's clock", "ask for the time at %s: the platform says %s, and %s is past",
			m.PlatformURL, stamp(reading.Time), stamp(c.floor))
	}
	c.remarks = nil
	if said == wentBack {
		c.remarks = append(c.remarks, "the platform's time went back: it was "+stamp(c.floor)+" once and is "+stamp(reading.Time)+" now")
	}
	c.reading, c.known, c.doubted = reading, true, false
	if said == goesOn && !reading.Time.After(c.floor) {
		return nil
	}
	c.floor = later(c.source, reading.Time)
	if c.dir == "" {
		return nil
	}
	if err := writeSeen(c.dir, reading.Time, said == wentBack, c.options.Hook); err != nil {
		c.remarks = append(c.remarks, "the platform's time can't be kept: "+err.Error())
	}
	return nil
}
