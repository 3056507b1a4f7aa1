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
	// Kept are the mount namespaces that were cut off by the change, or by its way back, as those of a Result beside an error.
	Kept []Namespace
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
	result, err := settle(ctx, place, r)
	r.Kept = cut(Result{Late: j.Kept}, result).all()
	return r, true, err
}

// Undo takes back a change that Swap made, before Finish. The Result has the mount namespaces that were cut off for the way back, beside an
// error, too.
func Undo(ctx context.Context, place Place) (Result, error) {
	if err := place.fill(); err != nil {
		return Result{}, err
	}
	j, err := ReadJournal(place.RunDir)
	if err != nil {
		return Result{}, err
	}
	result, err := settle(ctx, place, Recovered{Journal: j})
	return cut(result), err
}

func settle(ctx context.Context, place Place, r Recovered) (result Result, err error) {
	w, err := begin(Spec{Place: place, From: r.Journal.From, To: r.Journal.To, Changes: r.Journal.Changes})
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	w.journal = r.Journal
	if r.Forward {
		result, err = w.forward(ctx)
		w.tidy()
	} else {
		result, err = w.back(ctx)
	}
	if err != nil {
		return result, err
	}
	return result, removeJournal(w.dir)
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
