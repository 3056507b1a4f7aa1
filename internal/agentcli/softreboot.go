package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// softReboot makes the root of a staged generation beside the one that runs, counts the attempt, has a
// guard watch it, and tells systemd to go on in it.
func (f *updateFlags) softReboot(ctx context.Context, generation uint64) error {
	if err := atHome("/", f.stateDir); err != nil {
		return err
	}
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return err
	}
	st, unlock, err := f.open()
	if err != nil {
		return err
	}
	defer unlock()
	facts, err := boot.ReadFacts("/")
	if err != nil {
		return err
	}
	g, candidate, err := provenCandidate(ctx, st, trust, facts, generation)
	if err != nil {
		return err
	}
	spec := rootfs.Spec{
		Store: st, RootDigest: g.RootDigest, Level: facts.Level, Persist: boot.PersistInRoot, PersistReadOnly: facts.Persist.ReadOnly,
		Upper: rootfs.Upper{Kind: facts.Root.Upper, Size: facts.Root.UpperSize}, Etc: facts.Root.Etc,
		Derived: aftercare.Derived,
	}
	next := nextFacts(facts, g, candidate)
	spec.Remark = func(text, hint string) {
		if hint != "" {
			text += "; " + hint
		}
		next.Remarks = append(next.Remarks, text)
	}
	root, err := rootfs.MakeNext(ctx, boot.RunDir, spec, func(r *rootfs.Root) ([]byte, error) {
		// A persistent /etc is that of the root that runs, too.
		report, err := change.AtBoot(ctx, st, rootfs.NextRoot, g.RootDigest, false)
		if err != nil {
			spec.Remark(err.Error(), "")
		}
		for _, s := range report.Failed() {
			spec.Remark(s.String(), "run it by hand once the node is up")
		}
		next.Mount, next.Root = r.ID(), r.Facts()
		return json.MarshalIndent(next, "", "  ")
	})
	attempt := candidate.Begin(time.Now(), facts.Journal.BootID)
	if unfit, ok := errors.AsType[*rootfs.Unfit](err); ok {
		attempt.Failed, attempt.FailedAt = fault.OneLine(unfit.Error()), time.Now().UTC()
		return errors.Join(fault.New(fault.Refuse, fault.Service, fault.HintOf(err), "generation %d can't run: %w", generation, err), st.PutTrial(attempt))
	}
	if err != nil {
		return err
	}
	if err := st.PutTrial(attempt); err != nil {
		root.Unmake()
		return errors.Join(err, rootfs.DropNext(boot.RunDir))
	}
	// Its /run goes along, with the units of the modules' services. Its system loads profiles of its own, and what comes back if it doesn't go on was
	// judged before.
	care := change.Care{Store: st, Root: "/", Run: filepath.Dir(boot.RunDir), Agent: boot.AgentPath, Privileged: trust.PrivilegedServices, Next: true}
	// A module whose units somebody else's file keeps out goes without them, as in a boot; the status says so.
	if err := care.Place(g); err != nil && fault.AreaOf(err) != fault.Partial {
		root.Unmake()
		return errors.Join(err, rootfs.DropNext(boot.RunDir))
	}
	err = goOn(ctx, facts, generation)
	if running, readErr := st.Generation(facts.Generation); err != nil && readErr == nil {
		err = errors.Join(err, care.Place(running))
	}
	return err
}

// provenCandidate returns a staged generation and the attempt that the next start is at it, once its
// modules are proven and it is known that they make the root that its record names: the record itself
// isn't signed, and a boot proves all of it too.
func provenCandidate(ctx context.Context, st *store.Store, trust boot.Trust, facts boot.Facts, generation uint64) (store.Generation, trial.Candidate, error) {
	g, err := st.Generation(generation)
	if err != nil {
		return g, trial.Candidate{}, err
	}
	candidate, err := candidateOf(st, facts.Health.Tries, generation)
	if err != nil {
		return g, candidate, err
	}
	r, err := newReconciler(st, trust, facts.Level, reconcile.Config{})
	if err != nil {
		return g, candidate, err
	}
	defer r.Close()
	_, err = r.Heal(ctx, g)
	return g, candidate, err
}

// goOn has systemd go on in the next root. Where it doesn't, everything is as before, but that the
// attempt was counted, and that nobody but the gate watches what runs.
func goOn(ctx context.Context, facts boot.Facts, generation uint64) error {
	// What the gate said of the root that runs is no word on the next one.
	_ = os.Remove(boot.RunDir + "/" + health.ReportName)
	_, err := guard.Start(guard.Spec{
		Agent: boot.AgentPath, RunDir: boot.RunDir, Generation: generation, After: facts.Health.Timeout() + guard.Margin,
	})
	if err == nil && facts.Generation != generation {
		// The guard of a root that goes while it is on trial would restart the next one.
		err = guard.Say(boot.RunDir, facts.Generation, guard.Stays, fmt.Sprintf("a soft-reboot leads to generation %d", generation))
	}
	if err == nil {
		err = restart.Machine{}.Now(ctx, restart.Soft)
	}
	if err != nil {
		_ = guard.Say(boot.RunDir, generation, guard.Stays, "the soft-reboot didn't begin")
		err = errors.Join(err, rootfs.DropNext(boot.RunDir))
	}
	return err
}

// candidateOf returns the attempt that the next start is at a staged generation, which has so many tries.
func candidateOf(st *store.Store, tries int, generation uint64) (trial.Candidate, error) {
	in, err := trial.Read(st)
	in.Limit = tries
	for _, c := range trial.Order(in) {
		if c.Generation == generation && c.IsTrial {
			return c, nil
		}
	}
	return trial.Candidate{}, errors.Join(fault.New(fault.Refuse, fault.Service, "run powernode-agent update --retry",
		"generation %d isn't staged to be tried", generation), err)
}

// nextFacts are the facts of the boot once it goes on in the next root.
func nextFacts(f boot.Facts, g store.Generation, c trial.Candidate) boot.Facts {
	f.BootedAt, f.Generation, f.RootDigest = time.Now().UTC(), g.Number, g.RootDigest
	f.Refused, f.Remarks, f.Pulled, f.ExpectedRootDigest = "", nil, boot.Pulled{}, fsverity.Digest{}
	f.Files, f.Shared, f.Conflict = 0, 0, 0
	f.Base = fsverity.Digest{}
	f.Journal.Generation = g.Number
	f.Health.Trial, f.Health.Attempt, f.Health.Attempts = true, c.Attempt, c.Attempts
	f.Health.HandedOverSeconds, f.Health.PlatformReached = int64(health.Uptime()/time.Second), true
	if !strings.HasPrefix(f.StateDir, boot.PersistInRoot) {
		f.StateDir = boot.StateDir(boot.PersistInRoot)
	}
	return f
}
