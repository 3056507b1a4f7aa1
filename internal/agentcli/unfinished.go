package agentcli

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/runtime"
)

// unfinished is what the service does about live changes whose command was killed: it has them brought to their end, and one
// taken back that waits in vain for the platform. It looks and asks by itself; what changes mounts is beyond its rights,
// and is done by a command that systemd runs, or by this process where there is no systemd, nor its sandbox.
type unfinished struct {
	// root is where the system's root directory is.
	root, stateDir string
	platform       reconcile.Platform
	systemd        programs
	// here does it in this process.
	here func(ctx context.Context, stateDir string) (finishDoc, error)
	log  *slog.Logger

	// owes says that a run may be under way, or have ended, whose answer nobody has read: of a service before this one, or where this one
	// hadn't the time to wait for it.
	owes bool

	// What failed is tried again after a while, which grows: pause, until after.
	pause time.Duration
	after time.Time
}

const (
	// finishTime is how long the service waits for a change to be finished: units may take long to stop and to start.
	finishTime = 30 * time.Minute
	// Between two attempts that fail.
	finishPause, finishPauseMax = 2 * time.Second, time.Minute
)

func newUnfinished(stateDir string, platform *nodePlatform, log *slog.Logger) *unfinished {
	return &unfinished{root: "/", stateDir: stateDir, platform: afresh{platform.open}, systemd: systemd.Manager{}, here: finishHere(log), log: log, owes: true}
}

// finishHere does it in this process, with its record.
func finishHere(log *slog.Logger) func(context.Context, string) (finishDoc, error) {
	return func(ctx context.Context, stateDir string) (finishDoc, error) {
		doc, err := finish(ctx, stateDir)
		if a := finished(doc, err); a.Result != "" {
			t := trail{stateDir, log, func(err error) { log.Error("an audit record is in this log alone", "error", err) }}
			t.put(a)
		}
		return doc, err
	}
}

func (u *unfinished) loop() runtime.Loop {
	return runtime.Chore{Name: "finish what a live change has left", Do: u.look, Every: 2 * time.Second, Log: u.log}
}

func (u *unfinished) runDir() string { return filepath.Join(u.root, boot.RunDir) }

// look does nothing while nothing is left, and while a command is at work: that has the lock, and does the same.
func (u *unfinished) look(ctx context.Context) (bool, error) {
	if u.owes {
		u.collect()
	}
	if toFinish(u.runDir()) {
		return false, u.finish(ctx)
	}
	u.pause, u.after = 0, time.Time{}
	p, waits, err := change.Waiting(u.runDir())
	if err != nil || !waits || !change.Ask(ctx, u.platform, p.Left) {
		return false, err
	}
	return false, u.confirm(p)
}

// finish has it done, unless that failed just now.
func (u *unfinished) finish(ctx context.Context) error {
	if time.Now().Before(u.after) {
		return nil
	}
	lock, err := reconcile.Lock(u.stateDir)
	if fault.KindOf(err) == fault.Retry {
		return nil
	}
	if err == nil {
		err = lock.Unlock() // whoever does it takes it
	}
	var doc finishDoc
	if err == nil {
		doc, err = u.elsewhere(ctx)
	}
	u.tell(doc)
	if err != nil {
		u.pause = min(max(2*u.pause, finishPause), finishPauseMax)
		u.after = time.Now().Add(u.pause)
	}
	return err
}

// collect reads the answer of a run that nobody waited for. Where nothing is to be done, and there is none, none comes.
func (u *unfinished) collect() {
	var doc finishDoc
	ok, err := privileged{systemd: u.systemd, runDir: u.runDir()}.answer(finishName, &doc)
	if ok {
		u.tell(doc)
	}
	u.owes = !ok && (err != nil || toFinish(u.runDir()))
}

func (u *unfinished) tell(doc finishDoc) {
	for _, text := range doc.said() {
		u.log.Warn(text)
	}
}

// elsewhere has systemd run the command for it.
func (u *unfinished) elsewhere(ctx context.Context) (finishDoc, error) {
	var doc finishDoc
	code, err := privileged{systemd: u.systemd, runDir: u.runDir()}.run(ctx, finishName, finishTime, &doc, finishName, "--state", u.stateDir)
	switch {
	case errors.Is(err, systemd.ErrNone):
		return u.here(ctx, u.stateDir)
	case errors.Is(err, systemd.ErrRuns):
		u.owes = true
		return doc, nil
	case errors.Is(err, context.DeadlineExceeded):
		u.owes = true
	case err == nil && code != 0 && code != cli.ExitPartial:
		err = fault.New(fault.Retry, fault.Mount, "journalctl -u "+unitOf(finishName), "powernode-agent %s ends with exit code %d", finishName, code)
	}
	return doc, err
}

// confirm confirms what waited when the platform was asked that answers.
func (u *unfinished) confirm(p change.Pending) error {
	st, unlock, err := openLocked(u.stateDir)
	if fault.KindOf(err) == fault.Retry {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	facts, err := boot.ReadFacts(u.root)
	if err != nil {
		return err
	}
	c := change.New(change.Config{Store: st, RunDir: u.runDir(), Running: change.Running{Generation: facts.Generation}})
	confirmed, err := c.Confirmed(p)
	if confirmed {
		u.log.Info("the platform answers, and so what went live stays", "generation", facts.Generation)
	}
	return err
}
