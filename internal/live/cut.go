package live

import "slices"

// cut returns the namespaces that a change cut off from what is mounted here later, at "/" or in what they keep, and not those that were so before: what each of
// its ways found, forward and back.
func cut(ways ...Result) Result {
	var out Result
	for _, way := range ways {
		for _, n := range way.Kept {
			if len(n.receives) > 0 {
				out.Kept = add(out.Kept, n)
			}
		}
		for _, n := range way.Late {
			out.Late = add(out.Late, n)
		}
	}
	return out
}

// all are the namespaces that go on with old trees and those that got new ones too late.
func (r Result) all() []Namespace {
	all := slices.Clone(r.Kept)
	for _, n := range r.Late {
		all = add(all, n)
	}
	return all
}

// add adds a namespace to a list that has each of them once.
func add(list []Namespace, n Namespace) []Namespace {
	if slices.ContainsFunc(list, func(o Namespace) bool { return o.Inode == n.Inode }) {
		return list
	}
	return append(list, n)
}

// cutMax bounds how many namespaces a journal names.
const cutMax = 256

// noteCut writes the namespaces into the journal that are about to be cut off: who brings a change to its end that was killed can't see by
// the mounts whose doing it is. The way back isn't kept by a journal that can't be written.
func (w *work) noteCut(kept []Namespace) error {
	j := w.journal
	for _, n := range cut(Result{Kept: kept}).Kept {
		j.Kept = add(j.Kept, n)
	}
	j.Kept = j.Kept[:min(len(j.Kept), cutMax)]
	if len(j.Kept) == len(w.journal.Kept) {
		return nil
	}
	err := w.dir.WriteJSON(JournalName, j, 0o600, "live-hold")
	if err != nil && !w.undoing {
		return err
	}
	w.journal = j
	return nil
}
