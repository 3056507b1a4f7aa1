package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// Keeper mends what is damaged of the generation that runs, when the kernel's log tells of it.
type Keeper struct {
	// StateDir is the directory of record. Generation returns the one that runs, which may be another one later.
	StateDir   string
	Generation func() uint64
	// New returns a Reconciler for a store that is open for writing; it is closed after use.
	New func(st *store.Store) (*Reconciler, error)
	Log *slog.Logger

	// KernelLog is the kernel's log; "" is /dev/kmsg.
	KernelLog string
	// Settle is how long to wait for more of the same after the first word of damage, 0 is two seconds.
	// Again is how long to wait before another attempt at what couldn't be mended, 0 is ten minutes.
	Settle, Again time.Duration

	mu      sync.Mutex
	remarks []string
}

// Remarks says what is damaged and couldn't be mended so far, each in a sentence.
func (k *Keeper) Remarks() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.remarks...)
}

func (k *Keeper) remark(remarks []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remarks = remarks
}

// beat is how often a Keeper that waits shows that it is alive.
const beat = 20 * time.Second

// Run follows the kernel's log until ctx ends. It calls alive with the time within which it will
// show up again. A machine whose kernel's log can't be read has nothing to follow, which is logged.
func (k *Keeper) Run(ctx context.Context, alive func(time.Duration)) {
	path := k.KernelLog
	if path == "" {
		path = kernelLog
	}
	if k.Settle == 0 {
		k.Settle = 2 * time.Second
	}
	if k.Again == 0 {
		k.Again = 10 * time.Minute
	}
	l, err := openLog(path)
	if err != nil {
		k.Log.Warn("damage of the running system will not be noticed", "error", err)
		k.idle(ctx, alive)
		return
	}
	defer l.close()
	// A read that waits for the kernel ends with ctx, not with its own deadline.
	defer context.AfterFunc(ctx, l.close)()
	told := make(map[Corruption]bool)
	// due is when to look at what was told; zero while there is nothing to look at.
	var due time.Time
	for ctx.Err() == nil {
		alive(beat)
		wait := time.Now().Add(beat / 2)
		if !due.IsZero() && due.Before(wait) {
			wait = due
		}
		switch record, err := l.next(wait); {
		case err == nil:
			// Every read of a damaged block is told of again: what couldn't be mended waits for its time.
			if c, ok := parseCorruption(record); ok && !told[c] && len(told) < foundMax {
				told[c] = true
				due = time.Now().Add(k.Settle)
			}
		case ctx.Err() != nil:
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, io.EOF):
			// A file in the place of the device has an end.
			pause(ctx, min(beat/2, max(time.Until(wait), 10*time.Millisecond)))
		default:
			k.Log.Warn("damage of the running system will not be noticed any more", "error", err)
			k.idle(ctx, alive)
			return
		}
		if !due.IsZero() && !time.Now().Before(due) {
			due = time.Time{}
			if err := k.mend(ctx, told, alive); err != nil {
				due = time.Now().Add(k.Again)
			} else {
				clear(told)
			}
		}
	}
}

func (k *Keeper) idle(ctx context.Context, alive func(time.Duration)) {
	for ctx.Err() == nil {
		alive(beat)
		pause(ctx, beat/2)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// healTime bounds one attempt to mend.
const healTime = time.Hour

// mend looks at what the kernel told of, and mends what is damaged of it.
func (k *Keeper) mend(ctx context.Context, told map[Corruption]bool, alive func(time.Duration)) error {
	alive(healTime)
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	damage, mended, err := k.heal(ctx, told)
	if ctx.Err() != nil && err != nil {
		return err
	}
	for _, d := range damage {
		k.Log.Warn("a file of the running system is damaged", "what", d.String(), "object", d.Object)
	}
	for _, m := range mended {
		k.Log.Info("the damage was mended", "what", m.String())
	}
	var remarks []string
	if err != nil {
		k.Log.Error("the damage can't be mended", "error", err, "hint", fault.HintOf(err), "again_in", k.Again)
		for _, d := range damage {
			remarks = append(remarks, "damaged: "+d.String())
		}
		remarks = append(remarks, "it can't be mended: "+fault.OneLine(err.Error()))
	}
	k.remark(remarks)
	return err
}

func (k *Keeper) heal(ctx context.Context, told map[Corruption]bool) ([]Damage, []Mended, error) {
	lock, err := Lock(k.StateDir)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Unlock()
	st, err := store.Open(k.StateDir, store.Options{})
	if err != nil {
		return nil, nil, err
	}
	defer st.Close()
	g, err := st.Generation(k.Generation())
	if err != nil {
		return nil, nil, err
	}
	list := make([]Corruption, 0, len(told))
	for c := range told {
		list = append(list, c)
	}
	damage, err := Inspector{Store: st, Generation: g}.Suspects(ctx, list)
	if err != nil || len(damage) == 0 {
		return damage, nil, err
	}
	r, err := k.New(st)
	if err != nil {
		return damage, nil, err
	}
	defer r.Close()
	mended, err := r.HealDamage(ctx, g, damage)
	if err == nil {
		if err := DropCaches(); err != nil {
			k.Log.Warn("files that were read go on with their damaged blocks until the machine restarts", "error", fmt.Errorf("drop the kernel's caches: %w", err))
		}
	}
	return damage, mended, err
}
