package change

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/live"
)

// Tie is something that a process holds in a directory that is replaced, and that doesn't cross over to the new one.
type Tie struct {
	live.Tie
	// Ends says that it ends by the change itself, which stops or restarts the process's unit.
	Ends bool `json:"ends,omitempty"`
}

// Locks of files are held for a moment all the time, as of the list of users while one is added: those count that are still held
// after tiesLooks more looks.
const (
	tiesLooks = 3
	tiesPause = 100 * time.Millisecond
)

// ties finds what processes hold in these top-level directories.
func (m *Machine) ties(ctx context.Context, directories []string, fifos bool) ([]live.Tie, error) {
	ties, err := live.Ties(m.Place, directories, fifos)
	for range tiesLooks {
		if err != nil || !slices.ContainsFunc(ties, isLock) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(tiesPause):
		}
		var again []live.Tie
		again, err = live.Ties(m.Place, directories, fifos)
		ties = slices.DeleteFunc(again, func(t live.Tie) bool { return isLock(t) && !slices.Contains(ties, t) })
	}
	return ties, err
}

func isLock(t live.Tie) bool { return t.Kind == live.LockTie }

// tiedUnits are the units that nobody reaches any more until they are restarted. A lock is no reason for that: who holds one
// is in the middle of something.
func tiedUnits(ties []live.Tie) []aftercare.Held {
	var held []aftercare.Held
	for _, t := range ties {
		if t.Unit != "" && !isLock(t) {
			held = append(held, aftercare.Held{Unit: t.Unit, Why: t.String() + ", where nobody reaches it by the new root"})
		}
	}
	return held
}

// tied sorts what processes hold, once it is known what the change does with their units. A lock that is held in a tree
// that goes would be free for others: two would write who believe to be alone.
func (f *Findings) tied(ties []live.Tie, breakLocks bool) {
	for _, t := range ties {
		tie := Tie{Tie: t, Ends: t.Unit != "" && f.Aftercare != nil && (has(f.Aftercare.Stop, t.Unit) || has(f.Aftercare.Restart, t.Unit))}
		f.Ties = append(f.Ties, tie)
		switch {
		case tie.Ends:
		case isLock(t) && !breakLocks:
			f.Obstacles = append(f.Obstacles, t.String()+", which wouldn't keep out who comes by the new root (--break-locks goes on all the same)")
		case isLock(t):
			f.Remarks = append(f.Remarks, t.String()+", which doesn't keep out who comes by the new root")
		case t.Unit == "" || f.Aftercare == nil:
			f.Remarks = append(f.Remarks, fmt.Sprintf("%s, where nobody reaches it by the new root until it is started anew", t))
		}
	}
}

func has(steps []aftercare.UnitStep, unit string) bool {
	return slices.ContainsFunc(steps, func(s aftercare.UnitStep) bool { return s.Unit == unit })
}
