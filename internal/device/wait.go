package device

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Waiting is mostly for events. The rest is for people and for the unforeseen: sayAfter and sayEvery
// are when a person in front of the machine is told what it waits for, lookEvery is how often Wait
// looks again although nothing was heard.
const (
	sayAfter  = 2 * time.Second
	sayEvery  = 10 * time.Second
	lookEvery = 5 * time.Second
)

// Events is a source of events, as a Listener is.
type Events interface {
	Next(ctx context.Context) (Event, error)
	Close() error
}

// Wait returns the device that spec names as soon as it is there, until ctx ends: then the error is
// one to Retry that says what there was instead. A device that doesn't answer a read may keep a
// goroutine busy after Wait has returned.
func Wait(ctx context.Context, spec Spec, o Options) (Device, error) {
	if spec.IsZero() {
		return Device{}, fault.New(fault.Broken, fault.Input, "name a device", "wait for a device: none is named")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Listening comes first: what appears after the first look is heard of.
	wake := o.wake(ctx)
	say := time.NewTimer(sayAfter)
	defer say.Stop()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	started := time.Now()
	results := make(chan result, 1)
	look, looking, pending := func() { go o.look(spec, results) }, true, false
	look()
	var last result
	for {
		select {
		case <-ctx.Done():
			return Device{}, o.late(ctx, spec, last)
		case last = <-results:
			looking = false
			if last.ok {
				return last.device, nil
			}
			if pending {
				look()
				looking, pending = true, false
			}
		case <-say.C:
			o.say(fmt.Sprintf("waiting for the device %s since %d s; %s", spec, int(time.Since(started).Seconds()), seen(last)))
			say.Reset(sayEvery)
		case <-again.C:
			pending = true
		case <-wake:
			pending = true
		}
		if pending && !looking {
			look()
			looking, pending = true, false
		}
	}
}

// result is what one look found.
type result struct {
	device Device
	ok     bool
	err    error
	names  []string
}

// look finds and lists in one go; results has room for the one answer.
func (o Options) look(spec Spec, results chan<- result) {
	var r result
	r.device, r.ok, r.err = Find(spec, o)
	if !r.ok {
		if blocks, err := o.blocks(); err == nil {
			r.names = names(blocks)
		}
	}
	results <- r
}

// wake returns a channel that gets a value when the block devices may have changed. Without a source
// of events it stays silent, and looking again now and then has to do.
func (o Options) wake(ctx context.Context) <-chan struct{} {
	wake := make(chan struct{}, 1)
	listen := o.Listen
	if listen == nil {
		listen = func() (Events, error) { return Listen() }
	}
	events, err := listen()
	if err != nil {
		o.say(fmt.Sprintf("%v; looking for devices every %d s instead", err, int(lookEvery.Seconds())))
		return wake
	}
	go func() {
		defer func() { _ = events.Close() }()
		for {
			e, err := events.Next(ctx)
			if err != nil && !errors.Is(err, ErrLost) {
				return
			}
			if err == nil && e.Subsystem != "block" {
				continue
			}
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}()
	return wake
}

func (o Options) say(line string) {
	if o.Console != nil {
		o.Console(line)
	}
}

// late is the error of a device that didn't come.
func (o Options) late(ctx context.Context, spec Spec, last result) error {
	cause := context.Cause(ctx)
	if last.err != nil {
		cause = last.err
	}
	return fault.New(fault.Retry, fault.Mount, "attach the disk, load its driver or name another device",
		"wait for the device %s: %s: %w", spec, seen(last), cause)
}

func seen(r result) string {
	if len(r.names) == 0 {
		return "there are no disks"
	}
	const most = 16
	list := r.names
	if len(list) > most {
		list = append(list[:most:most], "...")
	}
	return "there are " + fault.OneLine(strings.Join(list, ", "))
}
