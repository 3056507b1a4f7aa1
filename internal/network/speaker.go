package network

import (
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// speaker talks to the console at a pace that a person can follow: what is waited for when it changes,
// twice a second at most and once a minute after a while, the last word of each such time, so that a
// network which is up at once is one line; and each remark once.
type speaker struct {
	to      func(string)
	last    string
	at      time.Time
	pending string
	lines   int // said by say
	said    []string
}

const (
	pace = 500 * time.Millisecond
	// After so many lines something flaps, or somebody plays; a person at the console wants to work.
	chatty   = 30
	slowPace = time.Minute
	// maxRemarks bounds what a hostile server can fill a console with.
	maxRemarks = 64
)

func (s *speaker) pace() time.Duration {
	if s.lines > chatty {
		return slowPace
	}
	return pace
}

// say speaks line now or when the pace allows. urgent lines don't wait.
func (s *speaker) say(now time.Time, line string, urgent bool) {
	switch {
	case line == s.last || line == "":
		s.pending = ""
	case urgent || now.Sub(s.at) >= s.pace():
		s.last, s.at, s.pending = line, now, ""
		s.lines++
		s.to(fault.OneLine(line))
	default:
		s.pending = line
	}
}

// due speaks a line whose time has come, and returns how long the one that still waits has to; 0 for none.
func (s *speaker) due(now time.Time) time.Duration {
	if s.pending == "" {
		return 0
	}
	if wait := s.pace() - now.Sub(s.at); wait > 0 {
		return wait
	}
	s.flush(now)
	return 0
}

func (s *speaker) flush(now time.Time) {
	if s.pending != "" {
		s.say(now, s.pending, true)
	}
}

func (s *speaker) remark(line string) {
	if len(s.said) < maxRemarks && len(appendNew(s.said, maxRemarks, line)) > len(s.said) {
		s.said = append(s.said, line)
		s.to(fault.OneLine(line))
	}
}
