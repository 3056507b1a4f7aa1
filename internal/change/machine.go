package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// Care is what a running system needs when its root changes.
type Care interface {
	// Plan says what a step calls for. local reports whether the writable layer has something of its own at an absolute path.
	Plan(ctx context.Context, s Step, local func(path string) bool) (*aftercare.Plan, error)
	// Before does what has to come before the swap, After what comes after it; with the units that don't work then, and what a
	// person should know.
	Before(ctx context.Context, s Step, p *aftercare.Plan) []string
	After(ctx context.Context, s Step, p *aftercare.Plan) ([]UnitFailure, []string)
}

// Machine is the system that runs at a place: the one that package boot made.
type Machine struct {
	Place live.Place
	// Beneath says whether the kernel can put mounts beneath others.
	Beneath mount.Ability
	Care    Care
}

// Examine implements System.
func (m *Machine) Examine(ctx context.Context, s Step) (Findings, error) {
	var f Findings
	if !m.Beneath.OK {
		f.Obstacles = append(f.Obstacles, "the kernel can't put a mount beneath another: "+m.Beneath.Reason)
	}
	f.Obstacles = append(f.Obstacles, m.covered(s)...)
	local := func(string) bool { return false }
	upper, err := live.OpenUpper(m.Place)
	if err != nil {
		f.Obstacles = append(f.Obstacles, fault.OneLine(err.Error()))
	} else {
		defer upper.Close()
		d, err := delta.Scan(ctx, upper, delta.Limits{})
		if err != nil {
			return f, err
		}
		local = d.Changed
		for _, c := range delta.Conflicts(d, s.FromTree, s.ToTree) {
			if !aftercare.Derived(c.Path) {
				f.Conflicts = append(f.Conflicts, c)
			}
		}
		f.Settle = delta.Settle(d, s.FromTree, s.ToTree, nil)
		for _, t := range f.Settle.Unsettled {
			f.Obstacles = append(f.Obstacles, fmt.Sprintf("the local change of %s can't be taken along: %s", t.Path, t.Why))
		}
	}
	if m.Care != nil {
		f.Aftercare, err = m.Care.Plan(ctx, s, local)
	} else {
		err = nil
	}
	return f, err
}

// covered names the directories that differ and that something else is mounted on.
func (m *Machine) covered(s Step) []string {
	state, err := live.Mounted(m.Place.Root)
	if err != nil {
		return []string{fault.OneLine(err.Error())}
	}
	var obstacles []string
	for _, c := range live.Changes(s.Difference.Top) {
		if _, ok := state.Of(c.Name); !ok {
			obstacles = append(obstacles, fmt.Sprintf("something else is mounted on /%s", c.Name))
		}
	}
	return obstacles
}

// Swap implements System. What was settled needn't be undone: the upper means the same over the old root.
func (m *Machine) Swap(ctx context.Context, s Step, f Findings) error {
	if err := m.settle(ctx, f.Settle); err != nil {
		return err
	}
	if m.Care != nil && f.Aftercare != nil {
		for _, text := range m.Care.Before(ctx, s, f.Aftercare) {
			m.remark(text)
		}
	}
	_, err := live.Swap(ctx, live.Spec{
		Place: m.Place, From: sideOf(s.From), To: sideOf(s.To), Changes: live.Changes(s.Difference.Top),
	})
	if err != nil && m.Care != nil {
		// Units that were stopped for it are wanted again.
		m.restore(ctx, s)
	}
	return err
}

func sideOf(g store.Generation) live.Side {
	return live.Side{Generation: g.Number, RootDigest: g.RootDigest}
}

func (m *Machine) remark(text string) {
	if m.Place.Remark != nil {
		m.Place.Remark(text, "")
	}
}

// settle makes what the upper holds mean the same over the new root.
func (m *Machine) settle(ctx context.Context, p *delta.Plan) error {
	if p == nil {
		return nil
	}
	found, err := live.OpenUpper(m.Place)
	if err != nil {
		return err
	}
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), m.Place.Hook)
	if err != nil {
		return err
	}
	defer upper.Close()
	troubles, err := p.ActLive(ctx, delta.Live{Upper: upper, View: m.view})
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(troubles))
	for _, t := range troubles {
		errs = append(errs, fmt.Errorf("%s: %s", t.Path, t.Why))
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.New(fault.Refuse, fault.Mount, "let the change be made at the next boot: --stage", "local changes can't be taken along: %w", errors.Join(errs...))
}

// view opens a top-level directory of the running root without what is mounted in it.
func (m *Machine) view(top string) (*os.File, error) {
	dir, err := os.Open(filepath.Join(m.Place.Root, top))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := mount.Clone(dir, false)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.OpenDir()
}

// After implements System.
func (m *Machine) After(ctx context.Context, s Step, f Findings) ([]UnitFailure, []string) {
	if m.Care == nil || f.Aftercare == nil {
		return nil, nil
	}
	return m.Care.After(ctx, s, f.Aftercare)
}

// Undo implements System.
func (m *Machine) Undo(ctx context.Context, s Step) ([]string, error) {
	if err := live.Undo(ctx, m.Place); err != nil {
		return nil, err
	}
	return m.restore(ctx, s), nil
}

// restore gives the system what it needs for the root that it had before a step.
func (m *Machine) restore(ctx context.Context, s Step) []string {
	if m.Care == nil {
		return nil
	}
	back := s.reverse()
	plan, err := m.Care.Plan(ctx, back, func(string) bool { return false })
	if err != nil {
		return []string{fault.OneLine(err.Error())}
	}
	failures, remarks := m.Care.After(ctx, back, plan)
	for _, f := range failures {
		remarks = append(remarks, fmt.Sprintf("unit %s doesn't work: %s", f.Unit, f.Reason))
	}
	return remarks
}

// Finish implements System.
func (m *Machine) Finish() error { return live.Finish(m.Place.RunDir, m.Place.Hook) }

// Recover implements System. What a running system needs after it is left to a person or the next change: nobody knows how far
// the one before had come.
func (m *Machine) Recover(ctx context.Context, current uint64) (Recovered, bool, error) {
	r, ok, err := live.Recover(ctx, m.Place, current)
	if err != nil || !ok {
		return Recovered{}, false, err
	}
	out := Recovered{Generation: r.Journal.From.Generation, Forward: r.Forward}
	if r.Forward {
		out.Generation = r.Journal.To.Generation
	}
	return out, true, nil
}
