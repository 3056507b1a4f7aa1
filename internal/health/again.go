package health

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// A service with Restart= and a pause between its starts never becomes failed. One that systemd has started anew againMost times, as often as it starts
// one without a pause before it gives up (DefaultStartLimitBurst= of systemd-system.conf(5)), counts as if it had, until it wasn't seen waiting for its
// next start for againQuiet.
const (
	againMost  = 5
	againQuiet = 30 * time.Second
)

// overAndOver is the state of such a unit here.
const overAndOver = "over-and-over"

// again is what is remembered of one.
type again struct {
	seen     time.Time
	restarts uint32
}

// remember returns what is seen with units that start over and over marked as such, those among them too that run at this moment, and keeps
// what it has to know of them for the next look.
func (j Judge) remember(now time.Time, s Seen) (Judge, Seen) {
	if s.None || s.Silent != "" {
		return j, s
	}
	next := maps.Clone(j.again)
	if next == nil {
		next = make(map[string]again)
	}
	s.System.Units = slices.Clone(s.System.Units)
	marked := make(map[string]bool)
	for i, u := range s.System.Units {
		switch {
		case u.State == "failed":
			delete(next, u.Name)
		case u.State == "auto-restart" && u.Restarts >= againMost:
			next[u.Name] = again{now, u.Restarts}
			s.System.Units[i].State = overAndOver
			marked[u.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		switch known := next[name]; {
		case marked[name]:
		case now.Sub(known.seen) >= againQuiet:
			delete(next, name)
		default:
			s.System.Units = slices.DeleteFunc(s.System.Units, func(u systemd.Unit) bool { return u.Name == name })
			s.System.Units = append(s.System.Units, systemd.Unit{Name: name, State: overAndOver, Restarts: known.restarts})
		}
	}
	j.again = next
	return j, s
}

// said is how a unit that doesn't run as it should is spoken of.
func said(u systemd.Unit) string {
	if u.State == overAndOver {
		return fmt.Sprintf("%s (started again %d times)", u.Name, u.Restarts)
	}
	return u.Name
}
