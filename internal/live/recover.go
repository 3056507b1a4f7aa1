package live

import (
	"context"
	"errors"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Recovered says what became of a change that was not finished.
type Recovered struct {
	// Journal is that of the change.
	Journal Journal
	// Forward says that it was brought to its end; else it was undone.
	Forward bool
}

// Recover brings a change to an end that somebody who is gone began: back to where it came from, or
// forward if the new generation is the current one by the store's pointer. Whoever starts to work on
// a node calls it first, under the lock for changes. ok is false where there was nothing to do.
func Recover(ctx context.Context, place Place, current uint64) (r Recovered, ok bool, err error) {
	if err := place.fill(); err != nil {
		return Recovered{}, false, err
	}
	j, err := ReadJournal(place.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return Recovered{}, false, nil
	}
	if err != nil {
		return Recovered{}, false, err
	}
	r = Recovered{Journal: j, Forward: current == j.To.Generation}
	base, err := mount.At(place.Root)
	if err != nil {
		return Recovered{}, false, err
	}
	if !base.ID.Same(j.Base) {
		return Recovered{}, false, Finish(place.RunDir, place.Hook)
	}
	return r, true, settle(ctx, place, r)
}

// Undo takes back a change that Swap made, before Finish.
func Undo(ctx context.Context, place Place) error {
	if err := place.fill(); err != nil {
		return err
	}
	j, err := ReadJournal(place.RunDir)
	if err != nil {
		return err
	}
	return settle(ctx, place, Recovered{Journal: j})
}

func settle(ctx context.Context, place Place, r Recovered) error {
	w, err := begin(Spec{Place: place, From: r.Journal.From, To: r.Journal.To, Changes: r.Journal.Changes})
	if err != nil {
		return err
	}
	defer w.close()
	if r.Forward {
		_, err = w.forward(ctx)
		w.tidy()
	} else {
		err = w.back(ctx)
	}
	if err != nil {
		return err
	}
	return removeJournal(w.dir)
}

// Recoverable reports whether there is a change to recover from.
func Recoverable(runDir string) bool {
	dir, err := durable.OpenDir(runDir, nil)
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = readJournal(dir)
	return !errors.Is(err, fs.ErrNotExist)
}
