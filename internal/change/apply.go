package change

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// plan finds out what the change means, and puts it into the result.
func (w *work) plan(ctx context.Context, c *composed) (*Step, error) {
	var building sync.WaitGroup
	building.Go(func() { _, _ = c.image() }) // who needs it gets the error
	defer building.Wait()
	s := &Step{From: w.from, FromTree: tree.NewDir(0o755), ToTree: c.result.Root, Modules: c.modules, Replace: w.request.LocalChanges == ReplaceLocal}
	s.BreakLocks = w.request.BreakLocks || w.request.exact != nil // what is taken back isn't kept by a lock
	if w.from.Number != 0 {
		var err error
		if s.FromTree, err = w.fromTree(); err != nil {
			return nil, fmt.Errorf("read the root image of generation %d: %w", w.from.Number, err)
		}
	}
	s.To = store.Generation{Modules: records(w.parts)}
	s.Difference = difference.Compare(s.FromTree, s.ToTree)
	s.Owner = w.owners(c)
	in := planInput{
		difference: s.Difference, contested: c.result.Report.Conflicts, owner: s.Owner, all: w.request.AllFiles, reasons: w.notLive(s),
	}
	for _, ch := range w.result.Changes {
		in.changed = append(in.changed, ch.Name)
	}
	for _, p := range w.parts {
		if p.offer != nil && !p.offer.Here {
			in.pull += p.offer.Size
		}
	}
	if w.c.System != nil && w.from.Number != 0 {
		var err error
		if in.findings, err = w.c.System.Examine(ctx, *s); err != nil {
			return nil, err
		}
		w.remark(in.findings.Remarks...)
	}
	if text := varRemark(s.Difference); text != "" {
		w.remark(text)
	}
	w.findings = in.findings
	if len(in.reasons)+len(in.findings.Obstacles) > 0 {
		in.notSoft = w.notSoft(ctx, s)
	}
	image, err := c.image()
	if err != nil {
		return nil, err
	}
	s.To.RootDigest = image.RootDigest
	w.expect(image.RootDigest)
	w.result.Plan = plan(in)
	if err := w.cantReplace(w.result.Plan); err != nil && !w.request.DryRun {
		return nil, err
	} else if err != nil {
		w.wouldBeRefused(err)
	}
	if w.request.DryRun {
		w.result.Outcome = WouldStage
		if w.result.Plan.Way == Live {
			w.result.Outcome = WouldGoLive
		}
	}
	return s, nil
}

// notSoft returns why a soft-reboot isn't enough for a change that can't go live.
func (w *work) notSoft(ctx context.Context, s *Step) string {
	switch soft := w.c.Running.NotSoft; {
	case aboutKernel(s.Difference, kernelRelease()):
		return "the kernel, or its modules, change"
	case soft == nil:
		return "nothing runs here"
	default:
		return soft(ctx)
	}
}

// notLive returns why the change can't go live, but for what the system itself says.
func (w *work) notLive(s *Step) []string {
	switch {
	case w.request.Stage:
		return []string{"it was asked for"}
	case w.base.Number != w.from.Number && !w.held:
		return []string{fmt.Sprintf("generation %d is staged, and this is a change of what it holds", w.base.Number)}
	case w.c.Running.NotLive != "":
		return []string{w.c.Running.NotLive}
	case w.c.System == nil, w.from.Number == 0:
		return []string{"nothing runs here that could be changed"}
	}
	var reasons []string
	for _, m := range s.Modules {
		p := slices.IndexFunc(w.parts, func(p part) bool { return p.want == m.Wanted })
		if p >= 0 && !w.runs(w.parts[p]) && (m.Manifest.RebootRequired || w.parts[p].assigned.RebootRequired) {
			reasons = append(reasons, fmt.Sprintf("module %s asks for a restart (reboot_required)", m.Wanted))
		}
	}
	for _, reason := range w.goneNeedReboot() {
		if !slices.Contains(reasons, reason) { // of the same version, with another priority
			reasons = append(reasons, reason)
		}
	}
	return append(reasons, obstacles(s.Difference, kernelRelease())...)
}

// goneNeedReboot names the modules that go, or change, and asked for a restart in the version that runs.
func (w *work) goneNeedReboot() []string {
	var reasons []string
	for _, ch := range w.result.Changes {
		if ch.From == "" {
			continue
		}
		p, err := assemble.Manifest(w.c.Store, ch.FromDigest)
		if err == nil && p.RebootRequired {
			reasons = append(reasons, fmt.Sprintf("module %s %s asks for a restart (reboot_required)", ch.Name, ch.From))
		}
	}
	return reasons
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// owners says which module a path comes from: of what is new by the composition, of what goes by the modules that change.
func (w *work) owners(c *composed) func(path string) string {
	old := make(map[string]*tree.Node)
	for _, ch := range w.result.Changes {
		if i := slices.IndexFunc(w.from.Modules, func(m store.GenerationModule) bool { return m.Name == ch.Name }); i >= 0 {
			// For a message only: what can't be read names nobody.
			if root, err := ReadTree(w.c.Store, w.from.Modules[i].Seal); err == nil {
				old[ch.Name] = root
			}
		}
	}
	return func(path string) string {
		path = strings.TrimPrefix(path, "/")
		if name, ok := c.result.Owner(path); ok {
			return name
		}
		for _, ch := range w.result.Changes {
			if root := old[ch.Name]; root != nil && root.Lookup(path) != nil {
				return ch.Name
			}
		}
		return ""
	}
}

// imageMax is the largest image in bytes that is read.
const imageMax = 1 << 30

// ReadTree reads an image of the store, of a module or a root, whose bytes are checked first.
func ReadTree(st *store.Store, digest fsverity.Digest) (*tree.Node, error) {
	f, err := st.OpenObject(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readImage(f, digest)
}

// readImage reads an image that must have that digest.
func readImage(f *os.File, digest fsverity.Digest) (*tree.Node, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// One byte more shows whether it grows.
	image := make([]byte, min(info.Size(), imageMax)+1)
	n, err := io.ReadFull(f, image)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n > imageMax || fsverity.SumBytes(image[:n]) != digest {
		return nil, fault.New(fault.Broken, fault.Verify, "powernode-agent status --check tells what is damaged", "the image %s is damaged", digest)
	}
	return composefs.Parse(image[:n])
}

// apply makes the generation and has it run, or staged. It returns true where a module was left out since and the whole has
// to be made anew.
func (w *work) apply(ctx context.Context, c *composed, s *Step) (again bool, err error) {
	made, err := c.image()
	if err == nil {
		err = w.c.Reconciler.Put(ctx, made)
	}
	if err != nil {
		return false, err
	}
	if s.To, err = w.keep(ctx, made); err != nil {
		return false, err
	}
	w.result.Generation, w.result.RootDigest = s.To.Number, s.To.RootDigest
	if w.result.Plan.Way == Live {
		return w.goLive(ctx, s)
	}
	return false, w.stage(s.To, len(w.findings.Obstacles) > 0 && len(w.result.Plan.Reasons) == len(w.findings.Obstacles))
}

// keep makes the generation's record. A rollback has a generation of its own, though its modules are an old one's.
func (w *work) keep(ctx context.Context, c *assemble.Composition) (store.Generation, error) {
	if w.request.Kind == Rollback {
		old := w.generation(w.request.Generation)
		switch {
		case old.RootDigest != c.RootDigest || !assemble.Same(old.Modules, records(w.parts)):
			w.remark(fmt.Sprintf("generation %d had the root %s, and its modules make %s now", old.Number, old.RootDigest, c.RootDigest))
		case w.request.exact != nil:
			return old, nil
		default:
			return retain.Renew(ctx, w.c.Store, old.Number, w.c.Now())
		}
	}
	return w.c.Reconciler.Keep(c, w.request.cause())
}

// goLive puts the generation beneath the running system. Until it is the current one, whatever goes wrong is taken back.
func (w *work) goLive(ctx context.Context, s *Step) (again bool, err error) {
	j := journal{From: s.From.Number, To: s.To.Number, Aftercare: w.findings.Aftercare, Before: w.before(s.To.Number)}
	// One that was good before stays known as such, also where that is known by its having been current alone.
	j.Anew = retain.HealthOf(retain.Input{Input: w.known}, j.To).State != retain.Good
	j.Bad = w.request.bad
	if err := w.journal(j); err != nil {
		return false, err
	}
	remarks, err := w.c.System.Swap(ctx, *s, w.findings)
	w.remark(remarks...)
	if err != nil {
		if live.Recoverable(w.c.RunDir) {
			return false, err // the way back failed, too: Recover goes it, and needs the journal for what comes after it
		}
		return false, errors.Join(err, removeRun(w.c.RunDir, JournalName, w.c.Hook))
	}
	failures, failed := w.c.System.After(ctx, *s, w.findings)
	w.undone(failed...)
	out := w.blame(failures)
	err = context.Cause(ctx)
	if err == nil && len(out) == 0 {
		err = w.commit(ctx, s, j)
	}
	if err == nil && len(out) == 0 {
		return false, nil
	}
	return err == nil, errors.Join(err, w.undo(ctx, s, out))
}

// blame returns the parts that are to be left out because of units that don't work. Units of modules that the change didn't bring
// or change are steps that failed, and so are all of a rollback. The parts are in the order of their names, with all of their units.
func (w *work) blame(failures []UnitFailure) []blamed {
	slices.SortStableFunc(failures, func(a, b UnitFailure) int {
		return cmp.Or(strings.Compare(a.Module, b.Module), strings.Compare(a.Unit, b.Unit))
	})
	var list []blamed
	for _, f := range failures {
		changed := slices.ContainsFunc(w.result.Changes, func(c Change) bool { return c.Name == f.Module && c.Kind != "removed" })
		err := fault.New(fault.Refuse, fault.Service, "systemctl status "+f.Unit, "unit %s doesn't work: %s", f.Unit, f.Reason)
		if !changed || w.request.Kind == Rollback {
			w.undone(fault.OneLine(err.Error()))
			continue
		}
		if n := len(list) - 1; n >= 0 && list[n].module == f.Module {
			list[n].reason = fmt.Errorf("%w; %w", list[n].reason, err)
			continue
		}
		list = append(list, blamed{f.Module, err})
	}
	return list
}

// blamed is a module that is to be left out, and why.
type blamed struct {
	module string
	reason error
}

// undo takes the change back, and leaves out the modules that are to blame for that.
func (w *work) undo(ctx context.Context, s *Step, out []blamed) error {
	// What was begun is brought to an end also when nobody waits any more.
	failed, err := w.c.System.Undo(context.WithoutCancel(ctx), *s, w.findings)
	w.remark(w.result.Undone...) // what failed of a change that is taken back isn't to be done any more
	w.result.Undone = nil
	w.undone(failed...)
	if err != nil {
		return fmt.Errorf("take the change back: %w", err)
	}
	if w.unrestored {
		return nil // Recover restores what couldn't be
	}
	if err := removeRun(w.c.RunDir, JournalName, w.c.Hook); err != nil {
		return err
	}
	if len(out) == 0 {
		return nil
	}
	if w.single() {
		return out[0].reason
	}
	for _, b := range out {
		if i := slices.IndexFunc(w.parts, func(p part) bool { return p.want.Name == b.module }); i >= 0 {
			w.instead(w.parts[i], b.reason)
		}
	}
	done, err := w.settled(-1)
	if done && err == nil {
		w.nothingLeft = true
	}
	return err
}

// commit makes the generation the current one. What fails before that pointer is set is undone by the caller. A power cut undoes
// nothing, so what is said before the pointer counts with it alone, and nothing is forgotten before it is set.
func (w *work) commit(ctx context.Context, s *Step, j journal) error {
	c := w.c
	if w.request.Confirm > 0 {
		if err := w.expectConfirmation(s); err != nil {
			return errors.Join(err, c.unexpect(s.To.Number))
		}
	}
	err := w.say()
	if err == nil {
		err = w.leave(s.To)
	}
	if err == nil && j.Anew {
		err = c.Store.PutLive(store.Live{Generation: s.To.Number, From: s.From.Number, At: c.Now(), BootID: c.Running.BootID})
	}
	if err == nil {
		err = c.Store.Promote(s.To.Number)
	}
	if current, _ := c.Store.Pointer(store.Current); err != nil && current == s.To.Number && current != s.From.Number {
		// It counts, as long as no power cut comes: going back would be a change of its own.
		w.remark("that the change is on the disk isn't sure: " + fault.OneLine(err.Error()))
		err = nil
	}
	if err != nil {
		restored := errors.Join(c.restore(j.Before, s.To.Number), c.unexpect(s.To.Number))
		w.unrestored = restored != nil
		return errors.Join(err, restored)
	}
	w.result.Outcome = WentLive
	if old := j.Before.Staged; old != 0 && old != s.To.Number && old != w.base.Number {
		w.remark(fmt.Sprintf("generation %d was staged, and isn't any more; powernode-agent update brings what the platform assigns", old))
	}
	// From here on it is done: what is left to do is done by Recover, at the latest.
	if w.request.Confirm > 0 {
		return w.end(ctx, s.To, j) // what may yet be taken back raises nothing: Confirmed does
	}
	if err := c.Store.RaiseFloors(s.To, c.Now()); err != nil {
		w.remark("the lowest versions that may run aren't written down: " + fault.OneLine(err.Error()))
	}
	return w.end(ctx, s.To, j)
}

// end has everybody know what runs, and the journals gone.
func (w *work) end(ctx context.Context, g store.Generation, j journal) error {
	// What was begun is brought to an end also when nobody waits any more.
	failed, err := w.c.ends(context.WithoutCancel(ctx), g, j)
	w.undone(failed...)
	if err != nil {
		w.undone(fmt.Sprintf("generation %d runs, and its change isn't finished: %s", g.Number, fault.OneLine(err.Error())))
	}
	return nil
}

// ends has the records follow from what runs now, which is where the journaled change led to, or what ran before.
func (c *Changer) ends(ctx context.Context, g store.Generation, j journal) ([]string, error) {
	if g.Number == j.To {
		if err := c.settle(j); err != nil {
			return nil, err
		}
	}
	if c.Running.Live != nil {
		if err := c.Running.Live(g); err != nil {
			return nil, err
		}
	}
	remarks, err := c.System.Finish(ctx)
	if err != nil {
		return remarks, err
	}
	c.Running.Generation = g.Number
	staged, _ := c.Store.Pointer(store.Staged) // a damaged one names nothing
	if err := c.takenUp(g.Modules, staged); err != nil {
		return remarks, err
	}
	if staged == 0 {
		if err := removeRun(c.RunDir, HeldName, c.Hook); err != nil {
			return remarks, err
		}
	}
	return remarks, removeRun(c.RunDir, JournalName, c.Hook)
}
