package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// rootDir returns where the union is mounted until it becomes "/". In an initramfs that can't be
// below /run, which is moved into the new root: no mount moves below itself. In namespaces of an
// ordinary system it is below their own /run, so that the system's "/" gets no directory.
func (b *boot) rootDir() string {
	switch b.mode {
	case Namespace:
		return filepath.Join(RunDir, "root")
	case Sysroot:
		return b.config.Sysroot
	default:
		return "/newroot"
	}
}

// mount makes the composition a generation, counts the attempt where it isn't known to be good, and
// only then makes its root: the union of the proven root image, the objects and a writable layer. A
// root that can't be had, or can't run, gives way to a generation that ran before. An error leaves
// nothing mounted.
func (b *boot) mount(ctx context.Context) (string, error) {
	err := b.bounded(ctx, 0, b.mountPlan)
	if errors.Is(err, unix.EIO) && ctx.Err() == nil {
		reason := err
		err = b.bounded(ctx, 0, func(ctx context.Context) error { return b.mountWhole(ctx, reason) })
	}
	if err != nil {
		err = b.insteadOf(ctx, err, b.prove, b.composePlan, b.mountPlan)
	}
	if err != nil {
		return "", err
	}
	b.runPrograms(ctx)
	b.state()
	said := fmt.Sprintf("generation %d, integrity level %s", b.generation.Number, b.level)
	if b.running.IsTrial {
		said += ", " + b.running.Why
	}
	return said, nil
}

// mountWhole is mountPlan after the kernel refused to read something of the root: every byte is read, and
// what is damaged is mended.
func (b *boot) mountWhole(ctx context.Context, reason error) error {
	b.voice.say("          %v: every byte is read", reason)
	b.deep = true
	b.dropPlatform() // what proves without reading
	for _, step := range []func(context.Context) error{b.prove, b.composePlan, b.mountPlan} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// mountPlan makes the root of the plan, in the order that keeps a way back: the record, the attempt,
// the mounts; or, where being able to start is all that is asked of it, the mounts and then the record.
func (b *boot) mountPlan(ctx context.Context) error {
	if b.config.Health == ByService {
		if err := b.begin(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	root, err := rootfs.Make(ctx, b.rootSpec())
	if err != nil {
		if _, unfit := errors.AsType[*rootfs.Unfit](err); unfit && b.running.IsTrial {
			b.condemn(b.running, err)
		}
		return err
	}
	if err := b.good(); err != nil {
		root.Unmake()
		return err
	}
	b.root = root
	return nil
}

// rootSpec says what root to make, by the settings and within the trust policy.
func (b *boot) rootSpec() rootfs.Spec {
	size := b.config.UpperSize
	if size == "" {
		size = b.settings.UpperSize
	}
	kind := rootfs.UpperKind(b.settings.Upper)
	if b.persist.Kind == bootconfig.Memory || b.persist.ReadOnly {
		kind = rootfs.InMemory
	}
	return rootfs.Spec{
		At: b.rootDir(), Scratch: RunDir,
		Store: b.store, RootDigest: b.composition.RootDigest, Level: b.level,
		Current: b.generationOf(b.plan.known.Current).RootDigest == b.composition.RootDigest,
		Persist: b.persistDir, PersistReadOnly: b.persist.ReadOnly,
		Upper:   rootfs.Upper{Kind: kind, Size: size},
		Etc:     rootfs.Etc(b.settings.Etc),
		Init:    b.config.Init[0],
		Derived: aftercare.Derived,
		Remark:  b.remark,
	}
}

// begin makes sure of the generation and of its turn, and writes down that it is being tried.
func (b *boot) begin() error {
	c := b.plan.back
	fresh := c.Generation == 0
	if recorded := b.generationOf(c.Generation).RootDigest; !fresh && recorded != b.composition.RootDigest {
		// That the generation was good says nothing about another root.
		text := fmt.Sprintf("generation %d has the root %s, and its modules make %s", c.Generation, recorded, b.composition.RootDigest)
		if b.persist.ReadOnly {
			return fault.New(fault.Refuse, fault.Mount, "boot with the agent's release that made it", "%s", text)
		}
		b.remark(text+", which is tried as a generation of its own", "")
		fresh = true
	}
	if fresh {
		g, err := b.reconciler.Keep(b.composition, "boot")
		if err != nil {
			return err
		}
		if err := b.survey(); err != nil {
			b.remark(err.Error(), fault.HintOf(err))
		}
		if c, err = b.turn(g); err != nil {
			return err
		}
	}
	b.running, b.generation = c, b.generationOf(c.Generation)
	if !c.IsTrial || b.persist.ReadOnly {
		return nil
	}
	return b.store.PutTrial(c.Begin(b.config.Now(), b.voice.journal.doc.BootID))
}

// turn returns the candidate that generation g is, staging it where it isn't the current one.
func (b *boot) turn(g store.Generation) (trial.Candidate, error) {
	in := b.input()
	in.Asked = 0
	if in.Current == g.Number {
		for _, c := range trial.Order(in) {
			if c.Generation == g.Number {
				return c, nil
			}
		}
	}
	// One that was good before goes through a trial too: that is how it becomes current again.
	if in.Staged != g.Number {
		if err := b.store.SetPointer(store.Staged, g.Number); err != nil {
			return trial.Candidate{}, err
		}
		in.Staged, b.plan.known.Staged = g.Number, g.Number
	}
	for _, c := range trial.Order(in) {
		if c.Generation == g.Number {
			return c, nil
		}
	}
	return trial.Candidate{}, fault.New(fault.Refuse, fault.Service, "assign other modules", "generation %d isn't tried any more", g.Number)
}

// condemn records that a generation can't run, so that it isn't tried again.
func (b *boot) condemn(c trial.Candidate, reason error) {
	b.reject(c.Generation, reason)
	if b.persist.ReadOnly {
		return
	}
	t := c.Begin(b.config.Now(), b.voice.journal.doc.BootID)
	t.Failed, t.FailedAt = oneLine(reason), b.config.Now().UTC()
	if err := b.store.PutTrial(t); err != nil {
		b.remark(err.Error(), "")
	}
}

// good makes the mounted generation the current one where being able to start is all that is asked.
// It comes when the root is mounted and found fit to run, so that what ran before stays current
// until then.
func (b *boot) good() error {
	if b.config.Health != AtHandOver {
		return nil
	}
	g, err := b.reconciler.Keep(b.composition, "boot")
	if err != nil {
		return err
	}
	b.generation = g
	if err := b.store.Promote(g.Number); err != nil {
		return err
	}
	// The records say the same as long as they are here.
	if err := b.store.RaiseFloors(g, b.config.Now()); err != nil {
		b.remark(err.Error(), fault.HintOf(err))
	}
	return nil
}

// state writes down what is mounted, for the booted system.
func (b *boot) state() {
	c, f := b.composition, &b.facts
	f.Mount, f.Level = b.root.ID(), b.level
	f.Generation, f.RootDigest, f.ExpectedRootDigest = b.generation.Number, c.RootDigest, b.plan.expected
	f.Root = b.root.Facts()
	f.Health = health.Settings{
		Trial: b.running.IsTrial, Attempt: b.running.Attempt, Attempts: b.running.Attempts, Tries: b.settings.Tries,
		TimeoutSeconds: int(b.settings.HealthTimeout / time.Second), PlatformOptional: b.settings.Platform == bootconfig.Optional,
		PlatformReached: b.reached,
	}
	f.Files, f.Shared, f.Conflict = c.Report.Entries, c.Report.Shared, len(c.Report.Conflicts)
	b.voice.journal.change(func(d *Journal) { d.Generation = b.generation.Number })
	if e := b.plan.expected; !e.IsZero() && e != c.RootDigest {
		// Every byte is proven all the same, so this is no reason to leave the node without a root.
		b.remark(fmt.Sprintf("the platform computed another root digest, %s", e), "bring agent and platform to the same release")
	}
}
