package change

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
	"github.com/powernode/powernode-agent/internal/trial"
)

// Config is what a change works with. Store and Reconciler must be given, and belong together.
type Config struct {
	// Store is open for writing, but for a dry run.
	Store      *store.Store
	Reconciler *reconcile.Reconciler
	// Running is what runs.
	Running Running
	// System is what can go live; nil where nothing can, because of Running.NotLive.
	System System
	// RunDir is the directory of this boot, for the journal of a change; "" where System is nil.
	RunDir string
	// Now is the clock; nil is time.Now. Wait waits, and is for tests; nil waits indeed.
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration)
	// Hook sees the label of every durable write; for tests.
	Hook durable.Hook
}

// Running says what runs on this machine.
type Running struct {
	// Generation is 0 on a machine that runs none: there, current stands for it.
	Generation uint64
	// BootID is the kernel's ID of the boot.
	BootID string
	// NotLive is why nothing can go live here: "" where it may.
	NotLive string
	// NotSoft says why the system can't be soft-rebooted: "" where it can. nil is one that can't.
	NotSoft func(ctx context.Context) string
	// Live makes a generation the one that runs in whatever the boot has written down; nil where nothing is.
	Live func(g store.Generation) error
}

// Changer changes what a node runs. Whoever uses it holds the lock of package reconcile, but for a dry run. It does one
// change, and is not safe for concurrent use.
type Changer struct {
	Config
	// earlier is what it has brought to an end of changes before.
	earlier earlier
}

// New returns a Changer. It does nothing yet.
func New(c Config) *Changer {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Wait == nil {
		c.Wait = wait
	}
	return &Changer{Config: c}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// work is one change under way.
type work struct {
	c       *Changer
	request Request
	known   trial.Input
	from    store.Generation
	local   desired.Local
	wanted  wish
	parts   []part
	floors  retain.FloorRule
	proven  []*assemble.Proven
	// fromTree returns the tree of from, which is read beside the composition.
	fromTree func() (*tree.Node, error)
	// base is what a module is attached to and detached from: what is staged, or else what runs.
	base store.Generation
	// held says that base is staged only because of obstacles in the running system: what is made of it goes live where they are gone.
	held bool
	// unrestored says that what was said of a change that came to nothing couldn't all be taken back.
	unrestored bool
	// silent counts for how many modules in a row a registry couldn't be reached, by its host.
	silent map[string]int
	// down is the first outage while modules were looked at, cut the first while they were pulled.
	down, cut error
	// findings are those of the plan.
	findings Findings
	// nothingLeft says that what was wrong was left out, and nothing else is to be done.
	nothingLeft bool
	result      *Result
}

// Do does what is asked for. The result is good beside an error too where it isn't nil: what was found out before.
func (c *Changer) Do(ctx context.Context, request Request) (*Result, error) {
	defer leaveGarbage(availableMemory())()
	w, err := c.begin(request)
	if err != nil {
		return nil, err
	}
	if w.wanted, err = w.wish(ctx); err != nil {
		return nil, err
	}
	result, err := w.do(ctx)
	w.keepLast(err)
	return result, err
}

// do does what was found out to be asked for.
func (w *work) do(ctx context.Context) (*Result, error) {
	request, all := w.request, w.wanted.names()
	if err := desired.Guard(w.from.Modules, all, w.request.RemoveMost || w.wanted.removeMost); err != nil {
		return nil, err
	}
	if err := w.lookAt(ctx); err != nil {
		return nil, err
	}
	if len(w.parts) == 0 {
		return nil, noneUsable(len(all), w.result)
	}
	if len(w.result.Failed) > 0 {
		if err := w.guard(); err != nil {
			return nil, err
		}
	}
	w.result.compare(w.from, w.parts)
	if done, err := w.asItIs(); done || err != nil {
		if err == nil && !request.DryRun && w.result.Generation == w.from.Number && request.Kind == Update {
			err = w.heal(ctx)
		}
		return w.result, err
	}
	if err := w.preflight(ctx); err != nil && (!request.DryRun || fault.KindOf(err) != fault.Refuse) {
		return nil, err
	} else if err != nil {
		w.wouldBeRefused(err)
	}
	return w.result, w.make(ctx)
}

// preflight refuses what wouldn't fit on the disk.
func (w *work) preflight(ctx context.Context) error {
	var offers []*assemble.Offer
	for _, p := range w.parts {
		if p.offer != nil {
			offers = append(offers, p.offer)
		}
	}
	return retain.Preflight(ctx, w.c.Store, retain.PullsOf(offers), retain.Options{Running: w.c.Running.Generation})
}

// wouldBeRefused has a dry run say so.
func (w *work) wouldBeRefused(err error) {
	text := "the change would be refused: " + fault.OneLine(err.Error())
	if hint := fault.HintOf(err); hint != "" {
		text += "; " + hint
	}
	w.remark(text)
}

// begin reads what there is.
func (c *Changer) begin(request Request) (*work, error) {
	w := &work{c: c, request: request, result: &Result{DryRun: request.DryRun, Changes: []Change{}}}
	var err error
	if w.local, err = desired.ReadLocal(c.Store.Path()); err != nil {
		return nil, err
	}
	if w.known, err = trial.Read(c.Store); err != nil {
		w.result.Remarks = append(w.result.Remarks, fault.OneLine(err.Error()))
	}
	w.known.Detached = w.local.Detached
	n := c.Running.Generation
	if n == 0 {
		n = w.known.Current
	}
	w.from = w.generation(n)
	w.base = w.from
	if request.Kind == Attach || request.Kind == Detach {
		w.base = w.staged()
		w.held = w.base.Number != w.from.Number && c.System != nil && c.isHeld(w.base.Number)
	}
	w.sweep()
	w.floors = retain.NewFloorRule(c.Store, w.from, w.generation(w.known.Staged))
	w.floors.All = request.AllowDowngrade
	w.result.From, w.result.FromRootDigest = w.from.Number, w.from.RootDigest
	return w, nil
}

// staged returns the generation that the next boot tries, or else the one that runs.
func (w *work) staged() store.Generation {
	g := w.generation(w.known.Staged)
	if g.Number == 0 || slices.ContainsFunc(w.known.Trials, func(t store.Trial) bool { return t.Generation == g.Number && t.Exhausted() }) {
		return w.from
	}
	return g
}

// generation returns the record of a generation, or a zero one.
func (w *work) generation(n uint64) store.Generation {
	i := slices.IndexFunc(w.known.Generations, func(g store.Generation) bool { return n != 0 && g.Number == n })
	if i < 0 {
		return store.Generation{}
	}
	return w.known.Generations[i]
}

// noneUsable says that each of so many modules was refused.
func noneUsable(assigned int, r *Result) error {
	reason := "no module is wanted"
	if len(r.Failed) > 0 {
		reason = r.Failed[0].Reason
	}
	if assigned == 1 {
		return fault.New(fault.Refuse, fault.Verify, "see the reason", "the assigned module can't be used: %s", reason)
	}
	return fault.New(fault.Refuse, fault.Verify, "see the reasons", "none of the %d assigned modules can be used: %s", assigned, reason)
}

// heal mends what runs where nothing else is wanted.
func (w *work) heal(ctx context.Context) error {
	mended, err := w.c.Reconciler.Heal(ctx, w.from)
	for _, m := range mended {
		w.result.Mended = append(w.result.Mended, m.String())
	}
	return err
}

// asItIs settles a change for which nothing is to be composed: what is wanted runs, or is staged, or
// was tried and found bad.
func (w *work) asItIs() (bool, error) {
	wanted, r := records(w.parts), w.result
	again := w.request.Retry || w.request.Kind != Update
	if n, reason := trial.Left(w.known, wanted); n != 0 && !again {
		return true, w.notAgain(n, reason)
	}
	if w.from.Number != 0 && assemble.Same(w.from.Modules, wanted) && w.request.Kind != Rollback {
		r.Outcome, r.Generation, r.RootDigest = InStep, w.from.Number, w.from.RootDigest
		pending := w.known.Staged != 0 && w.known.Staged != w.from.Number
		switch {
		case pending && w.outage() != nil:
			// What is staged may be what is wanted, or nearer to it.
			return true, w.outage()
		case pending && w.request.DryRun:
			r.Outcome = WouldWithdraw
		case pending:
			return true, w.withdraw()
		case !w.request.DryRun && len(w.known.Lefts) > 0:
			if err := w.c.takenUp(w.from.Modules, w.known.Staged); err != nil {
				return true, err
			}
		}
		return true, w.say()
	}
	if n, reason := trial.Refused(w.known, wanted); n != 0 && !again {
		return true, w.notAgain(n, reason)
	}
	staged := w.generation(w.known.Staged)
	if staged.Number != 0 && assemble.Same(staged.Modules, wanted) && !w.request.Retry && w.stages() {
		r.Outcome, r.Generation, r.RootDigest = AlreadyStaged, staged.Number, staged.RootDigest
		return true, w.say()
	}
	return false, nil
}

// outage returns the first, be it that a module was looked at or pulled: what is left of the wish may be something else then.
func (w *work) outage() error {
	if w.down != nil {
		return w.down
	}
	return w.cut
}

// notAgain refuses a set of modules that was found bad, unless it is that for an outage alone.
func (w *work) notAgain(n uint64, reason string) error {
	if err := w.outage(); err != nil {
		return err
	}
	return fault.New(fault.Refuse, fault.Policy, "assign another version, or try once more with --retry",
		"generation %d holds exactly these modules, and isn't tried again: %s", n, reason)
}

// stages reports whether nothing can go live, whatever the change is.
func (w *work) stages() bool {
	return w.request.Stage || w.c.System == nil || w.base.Number != w.from.Number && !w.held
}

// say keeps the administrator's word.
func (w *work) say() error {
	if w.request.DryRun || w.wanted.local.Equal(w.local) {
		return nil
	}
	return desired.WriteLocal(w.c.Store.Path(), w.wanted.local, w.c.Hook)
}

// make makes the generation, in memory only for a dry run, plans what it does, and does it.
func (w *work) make(ctx context.Context) error {
	w.fromTree = sync.OnceValues(func() (*tree.Node, error) { return ReadTree(w.c.Store, w.from.RootDigest) })
	if w.from.Number != 0 {
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = w.fromTree() }) // who needs it gets the error
		defer reading.Wait()
	}
	for {
		composed, err := w.compose(ctx)
		if err != nil || composed == nil {
			return err
		}
		step, err := w.plan(ctx, composed)
		if err != nil || w.request.DryRun {
			return err
		}
		again, err := w.apply(ctx, composed, step)
		if err != nil || !again || w.nothingLeft {
			return err
		}
	}
}

// expect remarks a root digest that isn't the platform's.
func (w *work) expect(root fsverity.Digest) {
	w.result.RootDigest, w.result.Expected = root, w.wanted.expected
	if e := w.wanted.expected; !e.IsZero() && e != root && len(w.result.Failed) == 0 {
		w.remark(fmt.Sprintf("the platform computed another root digest, %s; bring agent and platform to the same release", e))
	}
}

func (w *work) remark(texts ...string) {
	for _, text := range texts {
		if !slices.Contains(w.result.Remarks, text) {
			w.result.Remarks = append(w.result.Remarks, text)
		}
	}
}

// undone notes steps that failed after the change.
func (w *work) undone(texts ...string) {
	for _, text := range texts {
		w.result.Remarks = slices.DeleteFunc(w.result.Remarks, func(r string) bool { return r == text })
		if !slices.Contains(w.result.Undone, text) {
			w.result.Undone = append(w.result.Undone, text)
		}
	}
}

// retryable reports whether an error says nothing of a module: the whole change may go well another time.
func retryable(ctx context.Context, err error) bool {
	return ctx.Err() != nil || fault.KindOf(err) == fault.Retry || errors.Is(err, context.Canceled)
}
