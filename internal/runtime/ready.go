package runtime

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A service that isn't ready keeps everything back that waits for it, and a node that lacks credentials is none to be kept back: after
// this long it is ready all the same, and says why it isn't whole.
const (
	readyPatience = 30 * time.Second
	readyLook     = time.Second
)

// ready has Load do its work, and tells systemd. What doesn't work at once is tried again in a goroutine that ends with ctx.
func (s *Service) ready(ctx context.Context) {
	err := s.load(ctx)
	if err == nil {
		s.notify("READY=1\nSTATUS=Before the first heartbeat")
		return
	}
	s.c.Log.Warn("the service isn't ready yet", "error", err)
	s.notify("STATUS=" + oneLine("Not ready: "+err.Error()))
	go func() {
		deadline := time.After(readyPatience)
		tick := time.NewTicker(readyLook)
		defer tick.Stop()
		for err != nil {
			select {
			case <-ctx.Done():
				return
			case <-deadline:
				s.c.Log.Warn("the service goes on without all that it goes by", "error", err)
				err = nil
			case <-tick.C:
				err = s.load(ctx)
			}
		}
		s.notify("READY=1")
	}()
}

func (s *Service) load(ctx context.Context) error {
	if s.c.Load == nil {
		return nil
	}
	return s.c.Load(ctx)
}

// Reload says that what the service goes by may be another: the platform hears of the node as soon as it lets it, and systemd that it is done.
func (s *Service) Reload(ctx context.Context) {
	s.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic().Microseconds()))
	if err := s.load(ctx); err != nil {
		s.c.Log.Warn("what the service goes by can't be read again", "error", err)
	}
	if c := s.c.Certificate; c != nil {
		signal(c.wake)
	}
	signal(s.hurry)
	s.notify("READY=1")
	s.c.Log.Info("the service has read its configuration again")
}

// Beat asks for a heartbeat as soon as may be: within a second of the last, or when a wait after a failure, or one that the platform asked
// for, is over. What was asked for until then is told by that one.
func (s *Service) Beat() { signal(s.now) }

// Say tells systemd how the service is, as before, with what it does now.
func (s *Service) Say() {
	s.mu.Lock()
	text := s.said
	s.mu.Unlock()
	if text == "" {
		text = "Before the first heartbeat"
	}
	s.status("%s", text)
}

// status tells systemd in one line how the service is, what it does, and how its certificate is where that is worth a word.
func (s *Service) status(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.said = text
	s.mu.Unlock()
	if s.c.Doing != nil {
		if doing := s.c.Doing(); len(doing) > 0 {
			text += "; " + strings.Join(doing, ", ")
		}
	}
	if s.c.Certificate != nil {
		if n := s.c.Certificate.Notice(); n != "" {
			text += "; " + n
		}
	}
	s.notify("STATUS=" + oneLine(text))
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

func (s *Service) notify(message string) {
	if s.c.Notifier == nil {
		return
	}
	if err := s.c.Notifier.Notify(message); err != nil {
		s.c.Log.Warn("systemd can't be told", "error", err)
	}
}
