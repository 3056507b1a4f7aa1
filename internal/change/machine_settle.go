package change

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
	// over is when from has been beneath the layer, where another root was before.
	over delta.Span
	// but are top-level directories that show what is to come already.
	but []string
	// left are paths that, with all that is in them, mean the right thing already.
	left []string
}

func (s settling) drop(path string) bool {
	return slices.ContainsFunc(s.left, func(l string) bool { return path == l || strings.HasPrefix(path, l+"/") })
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
func (m *Machine) layer(over delta.Span) (delta.Live, func(), error) {
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return delta.Live{}, nil, err
	}
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), m.Place.Hook)
	if err != nil {
		return delta.Live{}, nil, err
	}
	l := delta.Live{Upper: upper, View: delta.Running(m.Place.Root), Over: over, Mends: true}
	if objects, ok := m.Place.Images.(delta.Objects); ok {
		l.Objects = objects
	}
	return l, func() { upper.Close() }, nil
}

// settle makes what the upper holds mean the same over the root that is to come.
func (m *Machine) settle(ctx context.Context, s settling) error {
	l, closing, err := m.layer(s.over)
	if err != nil {
		return err
	}
	defer closing()
	troubles, err := l.Settle(ctx, s.from, s.to, append(m.covered(), s.but...), s.drop)
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

// settleHalfWay is for the way back of a swap that was cut off: what was changed over the new root, where that is seen.
func (m *Machine) settleHalfWay(ctx context.Context, s Step) error {
	back := settling{from: s.ToTree, to: s.FromTree}
	j, err := live.ReadJournal(m.Place.RunDir)
	if err == nil {
		back.but, err = m.showsOld(j)
	}
	if err == nil {
		err = m.settle(ctx, back)
	}
	return err
}

// errMeanwhile says that a local change can't be mended which was made in the moment of a swap.
var errMeanwhile = errors.New("local changes were made in the very moment in which the root changed")

// mendAfter mends what was changed over the old root after it was settled for the last time, and before ended. What is mended means
// what it meant over the old root.
func (m *Machine) mendAfter(ctx context.Context, s Step, ended time.Time) error {
	pastTick(ctx, ended)
	troubles, err := m.mend(ctx, settling{from: s.FromTree, to: s.ToTree, over: delta.Span{Until: ended}})
	if err != nil || len(troubles) == 0 {
		return err
	}
	return fault.New(fault.Retry, fault.Mount, "try again, or let the change be made at the next boot: --stage", "%w: %w", errMeanwhile, troubled(troubles))
}

// mendBack is mendAfter for a way back, which doesn't depend on it.
func (m *Machine) mendBack(ctx context.Context, s settling) []string {
	troubles, err := m.mend(ctx, s)
	if err == nil {
		err = troubled(troubles)
	}
	if err != nil {
		return []string{notAllBack(err)}
	}
	return nil
}

func (m *Machine) mend(ctx context.Context, s settling) ([]delta.Trouble, error) {
	l, closing, err := m.layer(s.over)
	if err != nil {
		return nil, err
	}
	defer closing()
	troubles, err := l.Mend(ctx, s.from, s.to, m.covered())
	return slices.DeleteFunc(troubles, func(t delta.Trouble) bool { return s.drop(t.Path) }), err
}

// pastTick waits, for some milliseconds at most, until what is changed now has a later stamp than what was changed at a time: the
// kernel stamps files with the time of its last tick.
func pastTick(ctx context.Context, at time.Time) {
	for range 50 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil || time.Unix(now.Unix()).After(at) || ctx.Err() != nil {
			return
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// goBack puts local changes back that were replaced, and then the old root in the place of the new one, whose unions see them. What
// was changed since refers to the root that goes, and is settled; the way back doesn't depend on that.
func (m *Machine) goBack(ctx context.Context, s Step, f Findings) ([]string, error) {
	var remarks []string
	back := settling{from: s.ToTree, to: s.FromTree}
	if j, err := live.ReadJournal(m.Place.RunDir); err == nil {
		back.over.After = j.Ended
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
	if err := live.Undo(ctx, place); err != nil {
		return remarks, err
	}
	back.over.Until = time.Now()
	return append(remarks, m.mendBack(ctx, back)...), nil
}
