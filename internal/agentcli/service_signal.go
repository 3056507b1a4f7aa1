package agentcli

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// hangup is the signal by which a service is told to read its configuration again.
const hangup = syscall.SIGHUP

// onSignal calls do for each signal until ctx ends or stop is called.
func onSignal(ctx context.Context, which os.Signal, do func()) (stop func()) {
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, which)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-over:
				return
			case <-signals:
				do()
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
	}
}

// serviceLock is the file in the directory of record that a node's service holds locked: two of them would do each task, and keep each
// other's journal.
const serviceLock = "service.lock"

// lockService takes the lock. On a disk that can't be written to, nothing is kept that two could spoil.
func lockService(stateDir string, log *slog.Logger) (unlock func(), err error) {
	nothing := func() {}
	dir, err := durable.OpenDir(stateDir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil // what is missing is said by who needs it
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := dir.TryLock(serviceLock, durable.Exclusive)
	if locked, busy := errors.AsType[*durable.LockedError](err); busy {
		return nil, fault.New(fault.Retry, fault.General, "stop the other one first", "one agent serves a node: %w", locked)
	}
	if err != nil {
		log.Warn("the service goes on without a lock", "error", err)
		return nothing, nil
	}
	return func() { _ = lock.Unlock() }, nil
}
