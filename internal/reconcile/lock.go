package reconcile

import (
	"errors"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// LockName is the file in the directory of record that whoever changes what the node is going to run
// holds locked: a boot, an update, the service while it mends. Its lock ends with its process.
const LockName = "boot.lock"

// Lock takes that lock for as long as the caller works, or says who has it.
func Lock(stateDir string) (*durable.Lock, error) {
	dir, err := durable.OpenDir(stateDir, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := dir.TryLock(LockName, durable.Exclusive)
	if _, busy := errors.AsType[*durable.LockedError](err); busy {
		return nil, fault.New(fault.Retry, fault.General, "wait for it to end", "only one change at a time: %w", err)
	}
	return lock, err
}
