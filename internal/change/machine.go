package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/store"
)

// Machine is the system that runs at a place: the one that package boot made.
type Machine struct {
	Place live.Place
	// EtcUpper is the directory of a persistent /etc, which is a layer of its own; "" where /etc is part of the union.
	EtcUpper string
	// Care is what the system needs beside its mounts; nil for one that needs nothing.
	Care *Care
	// Swapped is told of each swap, how long it took among the rest; nil for nobody.
	Swapped func(live.Result)

	// others are the units that somebody else had started before the step did.
	others []string
	// tidies is the step whose root was mounted last, until it is finished or taken back.
	tidies *Step
}

// spec is a step as package live takes it.
func (m *Machine) spec(s Step) live.Spec {
	return live.Spec{
		Place: m.Place, Tree: s.ToTree, Changes: live.Changes(s.Difference.Top),
		From: live.Side{Generation: s.From.Number, RootDigest: s.From.RootDigest}, To: live.Side{Generation: s.To.Number, RootDigest: s.To.RootDigest},
	}
}

// Examine implements System.
func (m *Machine) Examine(ctx context.Context, s Step) (Findings, error) {
	var f Findings
	report, err := live.Check(m.spec(s))
	if err != nil {
		return f, err
	}
	for _, o := range report.Obstacles {
		if o.Name != "boot" { // said already
			f.Obstacles = append(f.Obstacles, fault.OneLine(o.Why))
		}
	}
	for _, e := range report.Elsewhere {
		f.Remarks = append(f.Remarks, fmt.Sprintf("%s goes on showing the old files until it is mounted anew", e.Point))
	}
	held, remarks := heldBy(report.Namespaces)
	f.Remarks = append(f.Remarks, remarks...)
	local := func(string) bool { return false }
	upper, err := live.OpenUpper(m.Place)
	switch {
	case err == nil:
		defer upper.Close()
		if local, err = f.delta(ctx, upper, s, m.covered()); err != nil {
			return f, err
		}
		if m.EtcUpper != "" {
			if local, err = f.deltaOfEtc(ctx, m.EtcUpper, s, local); err != nil {
				return f, err
			}
		}
	case len(f.Obstacles) == 0:
		f.Obstacles = append(f.Obstacles, fault.OneLine(err.Error()))
	}
	f.Replaced = f.replaced(s)
	if m.EtcUpper != "" && slices.ContainsFunc(f.Replaced, func(p string) bool { return strings.HasPrefix(p, inEtc) }) {
		f.Obstacles = append(f.Obstacles, "local changes of a persistent /etc can't be replaced in the running system")
	}
	if kept := local; len(f.Replaced) > 0 {
		local = func(path string) bool {
			return kept(path) && !slices.ContainsFunc(f.Replaced, func(r string) bool { return path == r || strings.HasPrefix(path, r+"/") })
		}
	}
	ties, err := m.ties(ctx, report.Directories, f.fifos)
	if err != nil {
		return f, err
	}
	if m.Care != nil {
		f.Aftercare, remarks, err = m.Care.plan(ctx, s, local, append(held, tiedUnits(ties)...))
		f.Remarks = append(f.Remarks, remarks...)
	}
	f.tied(ties, s.BreakLocks)
	return f, err
}

// covered are the top-level directories in which nobody sees what the union's upper holds.
func (m *Machine) covered() []string {
	if m.EtcUpper == "" {
		return nil
	}
	return []string{"etc"}
}

// delta looks at what was changed locally, and returns what tells whether a path was.
func (f *Findings) delta(ctx context.Context, upper *os.File, s Step, covered []string) (func(path string) bool, error) {
	d, err := delta.Scan(ctx, upper, delta.Limits{})
	if err != nil {
		return nil, err
	}
	f.fifos = f.fifos || d.FIFOs()
	for _, c := range delta.Conflicts(d, s.FromTree, s.ToTree) {
		if !aftercare.Derived(c.Path) {
			f.Conflicts = append(f.Conflicts, c)
		}
	}
	f.Settle = delta.Settle(d.Without(covered...), s.FromTree, s.ToTree, nil)
	for _, t := range f.Settle.Unsettled {
		f.Obstacles = append(f.Obstacles, fmt.Sprintf("the local change of %s can't be taken along: %s", t.Path, t.Why))
	}
	return func(path string) bool { return d.Changed(path) && !aftercare.Derived(path) }, nil
}

// deltaOfEtc is delta for a persistent /etc. Nothing in its layer refers to a root image, so that nothing is to be settled. What the
// union's upper says of /etc isn't seen.
func (f *Findings) deltaOfEtc(ctx context.Context, path string, s Step, elsewhere func(string) bool) (func(path string) bool, error) {
	upper, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look through the local changes to /etc: %w", err)
	}
	defer upper.Close()
	d, err := delta.Scan(ctx, upper, delta.Limits{})
	if err != nil {
		return nil, err
	}
	f.fifos = f.fifos || d.FIFOs()
	f.Conflicts = slices.DeleteFunc(f.Conflicts, func(c delta.Conflict) bool { return strings.HasPrefix(c.Path, inEtc) })
	for _, c := range delta.ConflictsAt("/etc", d, s.FromTree, s.ToTree) {
		if !aftercare.Derived(c.Path) {
			f.Conflicts = append(f.Conflicts, c)
		}
	}
	return func(path string) bool {
		rest, below := strings.CutPrefix(path, inEtc)
		if !below {
			return elsewhere(path)
		}
		return d.Changed("/"+rest) && !aftercare.Derived(path)
	}, nil
}

const inEtc = "/etc/"

// heldBy returns the units that go on seeing the old root in mount namespaces of their own, and says which processes without a
// unit do.
func heldBy(namespaces []live.Namespace) (held []aftercare.Held, remarks []string) {
	for _, n := range namespaces {
		keeps := "/" + strings.Join(n.Keeps, ", /")
		for _, unit := range n.Units {
			held = append(held, aftercare.Held{Unit: unit, Why: "its mount namespace keeps the old " + keeps, Keeps: n.Keeps})
		}
		if len(n.Units) == 0 && len(n.PIDs) > 0 {
			remarks = append(remarks, fmt.Sprintf("process %d %s goes on with the old %s until it is restarted", n.PIDs[0], strings.Join(n.Commands, ", "), keeps))
		}
	}
	return held, remarks
}

// heldSince says who goes on with the old root that wasn't there, or not so, when the plan was made.
func (f *Findings) heldSince(r live.Result) []string {
	held, remarks := heldBy(append(slices.Clone(r.Kept), r.Late...))
	remarks = slices.DeleteFunc(remarks, func(text string) bool { return slices.Contains(f.Remarks, text) })
	for _, h := range held {
		if p := f.Aftercare; p != nil && (has(p.Stop, h.Unit) || has(p.Restart, h.Unit) || has(p.Later, h.Unit)) {
			continue
		}
		remarks = append(remarks, fmt.Sprintf("%s was started while the change was made, and is to be restarted: %s", h.Unit, h.Why))
	}
	return remarks
}

// cutOff says whose mount namespaces a swap or its way back has cut off from what is mounted later, although that brought them no new root, and
// whom no plan restarts.
func (f *Findings) cutOff(r live.Result) []string {
	return cutOff(append(slices.Clone(r.Kept), r.Late...), f.Aftercare)
}

func cutOff(namespaces []live.Namespace, care *aftercare.Plan) []string {
	var out []string
	say := func(who string) {
		out = append(out, who+" is to be restarted: its mount namespace was cut off for a swap that was taken back, and doesn't see all of what is mounted here from now on")
	}
	restarts := func(unit string) bool {
		return care != nil && (has(care.Stop, unit) || has(care.Restart, unit))
	}
	for _, n := range namespaces {
		for _, unit := range n.Units {
			if !restarts(unit) {
				say(unit)
			}
		}
		if len(n.Units) == 0 && len(n.PIDs) > 0 {
			say(fmt.Sprintf("process %d %s", n.PIDs[0], strings.Join(n.Commands, ", ")))
		}
	}
	return out
}

// Swap implements System. What was settled needn't be undone: the upper means the same over the old root. It is settled before
// anything is stopped, and once more directly before the first directory is replaced. What somebody changed over the
// old root even after that, and that proves it, is mended. What proves nothing has it go back, and try again.
func (m *Machine) Swap(ctx context.Context, s Step, f Findings) ([]string, error) {
	if err := m.settle(ctx, settling{from: s.FromTree, to: s.ToTree}); err != nil {
		return nil, err
	}
	var remarks []string
	if m.Care != nil && f.Aftercare != nil {
		remarks = m.Care.before(ctx, f.Aftercare)
	}
	more, err := tried(func() ([]string, error) { return m.swap(ctx, s, f) }, func() bool { return live.Recoverable(m.Place.RunDir) })
	remarks = append(remarks, more...)
	if err != nil && live.Recoverable(m.Place.RunDir) {
		return remarks, err // the way back failed: nothing starts on what is half-way; Recover ends it, and resumes
	}
	if err != nil {
		// Units that were stopped for it are wanted again.
		return append(remarks, m.Resume(context.WithoutCancel(ctx), s.From, back(f.Aftercare))...), err
	}
	m.tidies = &s
	return remarks, nil
}

// swapTries is how often a swap is tried where somebody renames directories of the root image in the moment that it takes.
const swapTries = 3

// tried swaps until that isn't disturbed, or was tried often enough. Where a try ends half-way, its error is what a person has to know.
func tried(swap func() ([]string, error), halfWay func() bool) (remarks []string, err error) {
	for range swapTries {
		var more []string
		more, err = swap()
		remarks = append(remarks, more...)
		if !errors.Is(err, errMeanwhile) || halfWay() {
			break
		}
	}
	return remarks, err
}

// swap is one try.
func (m *Machine) swap(ctx context.Context, s Step, f Findings) (remarks []string, err error) {
	spec := m.spec(s)
	spec.Place = m.place(&remarks)
	var halfWay *settling
	var looked *delta.Mended
	spec.BeforeReplace = func(ctx context.Context, back bool) (err error) {
		if back {
			halfWay, err = m.settleHalfWay(ctx, s, looked)
			return err
		}
		return m.settle(ctx, settling{from: s.FromTree, to: s.ToTree})
	}
	spec.AfterReplace = func(ctx context.Context) (err error) {
		looked, err = m.mendAfter(ctx, s)
		return err
	}
	result, err := live.Swap(ctx, spec)
	if err != nil {
		remarks = append(remarks, f.cutOff(result)...)
		if halfWay != nil && !live.Recoverable(m.Place.RunDir) {
			remarks = append(remarks, m.mendBack(context.WithoutCancel(ctx), *halfWay)...)
		}
		return remarks, err
	}
	if m.Swapped != nil {
		m.Swapped(result)
	}
	remarks = append(remarks, f.heldSince(result)...)
	result, err = m.replace(ctx, s.To.RootDigest, f.Replaced)
	remarks = append(remarks, f.heldSince(result)...)
	if err != nil {
		more, wentBack := m.goBack(context.WithoutCancel(ctx), s, f)
		return append(remarks, more...), errors.Join(err, wentBack)
	}
	return remarks, nil
}

func back(p *aftercare.Plan) *aftercare.Plan {
	if p == nil {
		return nil
	}
	return p.Back()
}

// After implements System.
func (m *Machine) After(ctx context.Context, s Step, f Findings) ([]UnitFailure, []string) {
	if m.Care == nil || f.Aftercare == nil {
		return nil, nil
	}
	m.others = m.Care.running(ctx, f.Aftercare.Start)
	return m.Care.after(ctx, s.To, f.Aftercare, s.Owner)
}

// Undo implements System.
func (m *Machine) Undo(ctx context.Context, s Step, f Findings) ([]string, error) {
	var remarks []string
	if m.Care != nil && f.Aftercare != nil {
		// What was started with the new files ends while they are there, but for what runs by somebody else's word.
		p := back(f.Aftercare)
		p.Stop = slices.DeleteFunc(p.Stop, func(u aftercare.UnitStep) bool { return slices.Contains(m.others, u.Unit) })
		remarks = m.Care.before(ctx, p)
	}
	more, err := m.goBack(ctx, s, f)
	remarks = append(remarks, more...)
	if err != nil {
		return remarks, err
	}
	m.tidies = nil
	remarks = append(remarks, m.tidy(ctx, s.ToTree, s.FromTree)...)
	return append(remarks, m.Resume(ctx, s.From, back(f.Aftercare))...), nil
}

// Resume implements System.
func (m *Machine) Resume(ctx context.Context, g store.Generation, p *aftercare.Plan) []string {
	if m.Care == nil || p == nil {
		return nil
	}
	failures, remarks := m.Care.after(ctx, g, p, nil)
	for _, f := range failures {
		remarks = append(remarks, fmt.Sprintf("unit %s doesn't work: %s", f.Unit, f.Reason))
	}
	return remarks
}
