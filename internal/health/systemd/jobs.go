package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"
)

// Verb is what a job does with a unit.
type Verb string

// The verbs; org.freedesktop.systemd1(5) has a method for each.
const (
	Start Verb = "StartUnit"
	Stop  Verb = "StopUnit"
	// Restart starts what isn't running, too; TryRestart leaves it.
	Restart    Verb = "RestartUnit"
	TryRestart Verb = "TryRestartUnit"
	// Reload has a unit read its configuration again, and restarts one that can't; one that isn't
	// running is left.
	Reload Verb = "ReloadOrTryRestartUnit"
	// ReloadOrRestart is Reload, and starts what isn't running.
	ReloadOrRestart Verb = "ReloadOrRestartUnit"
)

// JobDone is the result of a job that did what was asked. Others are "failed", "dependency" (a unit that it needs
// failed), "timeout", "canceled", "skipped", and what Outcome adds.
const JobDone = "done"

// The results that systemd doesn't know.
const (
	// JobRefused says that systemd took no job; Outcome.Err says why.
	JobRefused = "refused"
	// JobUnfinished says that the time to wait was over first.
	JobUnfinished = "unfinished"
)

// reloadTimeout bounds the reading of all units: generators run, too.
const reloadTimeout = time.Minute

// Outcome is what became of one job.
type Outcome struct {
	Unit string
	// Result is JobDone, or why it isn't done.
	Result string
	// Err is there where systemd refused the job.
	Err error
}

// Done reports whether the job did what was asked.
func (o Outcome) Done() bool { return o.Result == JobDone }

// Jobs has systemd do the same with several units, and waits for all of them, at most the time given. The jobs are queued in
// the order given, and systemd carries them out in the order that the units ask for; a unit that fails keeps no other back but those that
// need it. What was stopped doesn't count as failed any more, however it ended. There is an outcome for each unit, in the same order. The error is that systemd can't be asked at all, or that ctx ended.
func (m Manager) Jobs(ctx context.Context, verb Verb, units []string, within time.Duration) ([]Outcome, error) {
	outcomes := make([]Outcome, len(units))
	err := m.connected(ctx, within, func(ctx context.Context, conn *dbus.Conn) error {
		manager := conn.Object(busName, managerPath)
		signals := make(chan *dbus.Signal, 64)
		conn.Signal(signals)
		defer conn.RemoveSignal(signals)
		if err := manager.CallWithContext(ctx, managerIface+".Subscribe", 0).Err; err != nil {
			return fmt.Errorf("ask systemd to tell of jobs: %w", err)
		}
		queued := make(map[dbus.ObjectPath]int)
		for i, unit := range units {
			outcomes[i] = Outcome{Unit: unit, Result: JobUnfinished}
			var job dbus.ObjectPath
			err := manager.CallWithContext(ctx, managerIface+"."+string(verb), 0, unit, "replace").Store(&job)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				outcomes[i].Result, outcomes[i].Err = JobRefused, err
			default:
				queued[job] = i
			}
		}
		await(ctx, signals, queued, outcomes)
		if verb == Stop {
			forget(ctx, manager, outcomes)
		}
		return nil
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return outcomes, err
}

// forget has systemd forget that units failed that were stopped: a program that ends by a signal in its own way, and a unit whose
// file is about to go, would count as failed for good.
func forget(ctx context.Context, manager dbus.BusObject, outcomes []Outcome) {
	for _, o := range outcomes {
		if o.Done() {
			// One that systemd has forgotten already is an error, and as it should be.
			_ = manager.CallWithContext(ctx, managerIface+".ResetFailedUnit", 0, o.Unit).Err
		}
	}
}

// await reads the ends of jobs until all have one. A job that another one replaced ends as "canceled", and
// two units may be given the same job, by an alias.
func await(ctx context.Context, signals <-chan *dbus.Signal, queued map[dbus.ObjectPath]int, outcomes []Outcome) {
	for len(queued) > 0 {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-signals:
			if !ok {
				return
			}
			var id uint32
			var job dbus.ObjectPath
			var unit, result string
			if s.Name != managerIface+".JobRemoved" || dbus.Store(s.Body, &id, &job, &unit, &result) != nil {
				continue
			}
			if i, ours := queued[job]; ours {
				outcomes[i].Result = result
				delete(queued, job)
			}
		}
	}
}

// Reload has systemd read all its units again.
func (m Manager) Reload(ctx context.Context) error {
	return m.connected(ctx, reloadTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		if err := conn.Object(busName, managerPath).CallWithContext(ctx, managerIface+".Reload", 0).Err; err != nil {
			return fmt.Errorf("have systemd read its units: %w", err)
		}
		return nil
	})
}
