package change

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/tree"
)

// settling is a change of the root as far as the writable layer is concerned.
type settling struct {
	// from runs, to is to come.
	from, to *tree.Node
	// doubt says of a way back that the layer may hold what was changed over to, too, since it was last settled: what doesn't prove that it
	// was made over from stays as it is, since to comes.
	doubt bool
	// but are top-level directories that show what is to come already.
	but []string
	// unsure are paths of which nobody can tell over which root they were made: they stay as they are over to, which comes.
	unsure []string
	// left are paths that, with all that is in them, mean the right thing already.
	left []string
}

func (s settling) drop(path string) bool { return within(s.left, path) }

func within(tops []string, path string) bool {
	return slices.ContainsFunc(tops, func(l string) bool { return path == l || strings.HasPrefix(path, l+"/") })
}

// place is the machine's, with somebody who takes what a person should know.
func (m *Machine) place(remarks *[]string) live.Place {
	place := m.Place
	place.Remark = func(text, hint string) {
		if hint != "" {
			text += "; " + hint
		}
		*remarks = append(*remarks, text)
	}
	return place
}

// layer opens the writable layer for a settling.
func (m *Machine) layer(doubt bool) (delta.Live, func(), error) {
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return delta.Live{}, nil, err
	}
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), m.Place.Hook)
	if err != nil {
		return delta.Live{}, nil, err
	}
	l := delta.Live{Upper: upper, View: delta.Running(m.Place.Root), Doubt: doubt, Mends: true}
	if objects, ok := m.Place.Images.(delta.Objects); ok {
		l.Objects = objects
	}
	return l, func() { upper.Close() }, nil
}

// settle makes what the upper holds mean the same over the root that is to come.
func (m *Machine) settle(ctx context.Context, s settling) error {
	l, closing, err := m.layer(s.doubt)
	if err != nil {
		return err
	}
	defer closing()
	troubles, err := l.Settle(ctx, s.from, s.to, append(m.covered(), s.but...), func(path string) bool { return s.drop(path) || within(s.unsure, path) })
	if err != nil || len(troubles) == 0 {
		return err
	}
	return fault.New(fault.Refuse, fault.Mount, "let the change be made at the next boot: --stage", "local changes can't be taken along: %w", troubled(troubles))
}

func troubled(troubles []delta.Trouble) error {
	errs := make([]error, 0, len(troubles))
	for _, t := range troubles {
		errs = append(errs, fmt.Errorf("%s: %s", t.Path, t.Why))
	}
	return errors.Join(errs...)
}

// inDoubt reports whether what the layer holds may have been made over either root of a change. Its journal says that all is swapped only
// after a mend that found nothing: what has come since was made over the new root.
func inDoubt(j live.Journal) bool { return j.Phase != live.Swapped }

// settleHalfWay is for the way back of a swap that was cut off: what proves that it was changed over the new root, where that is seen. Once
// the layer was looked through after the swap, that is all but what was in doubt then.
func (m *Machine) settleHalfWay(ctx context.Context, s Step, looked *delta.Mended) (*settling, error) {
	back := &settling{from: s.ToTree, to: s.FromTree, doubt: looked == nil}
	if looked != nil {
		back.unsure = looked.Doubts
	}
	j, err := live.ReadJournal(m.Place.RunDir)
	if err == nil {
		back.but, err = m.showsOld(j)
	}
	if err != nil {
		return nil, err
	}
	return back, m.settle(ctx, *back)
}

// errMeanwhile says that local changes were made in the moment of a swap of which nobody can tell over which root.
var errMeanwhile = errors.New("local changes were made in the very moment in which the root changed")

// mendAfter mends what was changed over the old root after it was settled for the last time. What is mended means what it meant over
// the old root. What can't be told, or mended, has the swap go back.
func (m *Machine) mendAfter(ctx context.Context, s Step) (*delta.Mended, error) {
	mended, err := m.mend(ctx, settling{from: s.FromTree, to: s.ToTree})
	if err != nil {
		return nil, err
	}
	if len(mended.Doubts) == 0 && len(mended.Troubles) == 0 {
		return &mended, nil
	}
	cause := errMeanwhile
	if len(mended.Doubts) > 0 {
		cause = fmt.Errorf("%w: %s", errMeanwhile, few(mended.Doubts))
	}
	return &mended, fault.New(fault.Retry, fault.Mount, "try again, or let the change be made at the next boot: --stage", "%w", errors.Join(cause, troubled(mended.Troubles)))
}

// mendBack is mendAfter for a way back, which doesn't depend on it. What can't be told stays as it is over the old root.
func (m *Machine) mendBack(ctx context.Context, s settling) (remarks []string) {
	mended, err := m.mend(ctx, s)
	if err == nil {
		err = troubled(mended.Troubles)
	}
	if err != nil {
		remarks = append(remarks, notAllBack(err))
	}
	if len(mended.Doubts) > 0 {
		remarks = append(remarks, "what was changed in the very moment in which the root changed is taken for changed over the old root: "+few(mended.Doubts))
	}
	return remarks
}

func (m *Machine) mend(ctx context.Context, s settling) (delta.Mended, error) {
	l, closing, err := m.layer(s.doubt)
	if err != nil {
		return delta.Mended{}, err
	}
	defer closing()
	mended, err := l.Mend(ctx, s.from, s.to, append(m.covered(), s.but...))
	mended.Doubts = slices.DeleteFunc(mended.Doubts, s.drop)
	mended.Troubles = slices.DeleteFunc(mended.Troubles, func(t delta.Trouble) bool { return s.drop(t.Path) })
	return mended, err
}

// few lists some paths of many.
func few(paths []string) string {
	const most = 8
	if len(paths) <= most {
		return strings.Join(paths, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(paths[:most], ", "), len(paths)-most)
}

// goBack puts local changes back that were replaced, and then the old root in the place of the new one, whose unions see them. What
// was changed since refers to the root that goes, and is settled; the way back doesn't depend on that.
func (m *Machine) goBack(ctx context.Context, s Step, f Findings) ([]string, error) {
	var remarks []string
	back := settling{from: s.ToTree, to: s.FromTree, doubt: true}
	if j, err := live.ReadJournal(m.Place.RunDir); err == nil {
		back.doubt = inDoubt(j)
	}
	// The bulk first: between the last time and the swap there should be little left.
	if err := m.settle(ctx, back); err != nil {
		remarks = append(remarks, notAllBack(err))
	}
	if err := m.endReplaced(s.To.RootDigest, false); err != nil {
		return remarks, err
	}
	back.left = f.Replaced // they were made over the root that comes back
	place := m.place(&remarks)
	place.BeforeReplace = func(ctx context.Context, _ bool) error {
		if err := m.settle(ctx, back); err != nil {
			return errors.New(notAllBack(err))
		}
		return nil
	}
	result, err := live.Undo(ctx, place)
	remarks = append(remarks, f.cutOff(result)...)
	if err != nil {
		return remarks, err
	}
	return append(remarks, m.mendBack(ctx, back)...), nil
}
