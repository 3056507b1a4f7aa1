package live

import (
	"context"
	"slices"
)

// Renew puts new unions of the same root image in the place of those that Swap brought, for these top-level directories: after the
// writable layer was changed beneath them (delta.Drop), which a union that has looked there may never see. It is for
// between Swap and Finish. After an error, some are new: Undo goes back from there. The Result has the mount namespaces that were cut off
// for it, beside an error, too.
func Renew(ctx context.Context, place Place, names []string) (Result, error) {
	if err := place.fill(); err != nil {
		return Result{}, err
	}
	j, err := ReadJournal(place.RunDir)
	if err != nil {
		return Result{}, err
	}
	var changes []Change
	for _, c := range j.Changes {
		if slices.Contains(names, c.Name) && c.To.Kind == Directory {
			changes = append(changes, Change{Name: c.Name, From: c.To, To: c.To})
		}
	}
	w, err := begin(Spec{Place: place, From: j.To, To: j.To, Changes: changes})
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	w.journal, w.anew = j, true
	result, err := w.swap(ctx)
	w.tidy()
	return cut(result), err
}
