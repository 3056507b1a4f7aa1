package reconcile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// LockName is the file in the directory of record that whoever changes what the node is going to run
// holds locked: a boot, a change, a collection, the service while it mends. Its lock ends with its process. What is in the file says
// who had it last, for people.
const LockName = "boot.lock"

// Lock takes that lock for as long as the caller works, or says who has it.
func Lock(stateDir string) (*durable.Lock, error) {
	dir, err := durable.OpenDir(stateDir, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := dir.TryLock(LockName, durable.Exclusive)
	if locked, busy := errors.AsType[*durable.LockedError](err); busy {
		return nil, fault.New(fault.Retry, fault.General, "wait for it to end", "only one change at a time: %w%s", err, holder(dir, locked))
	}
	if err == nil {
		sign(dir, os.Getpid(), os.Args)
	}
	return lock, err
}

// signatureMax bounds what the file says, in bytes.
const signatureMax = 256

// sign writes down who has the lock. That it can't be is no reason not to have it.
func sign(dir *durable.Dir, pid int, args []string) {
	f, err := dir.Root().OpenFile(LockName, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	defer f.Close()
	words := slices.Clone(args)
	if len(words) > 0 {
		words[0] = filepath.Base(words[0])
	}
	text := fmt.Sprintf("%d %s", pid, fault.OneLine(strings.Join(words, " ")))
	_, _ = io.WriteString(f, text[:min(len(text), signatureMax-1)]+"\n")
}

// holder returns what the holder has written down, in brackets, where it is the one that the kernel names, or where the
// kernel doesn't tell: of a process in another PID namespace.
func holder(dir *durable.Dir, locked *durable.LockedError) string {
	text, err := dir.ReadFile(LockName, signatureMax)
	if err != nil {
		return ""
	}
	number, command, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	if !ok || command == "" {
		return ""
	}
	named := slices.ContainsFunc(locked.Holders, func(h durable.Holder) bool { return fmt.Sprint(h.PID) == number })
	if len(locked.Holders) > 0 && !named {
		return ""
	}
	return " (" + fault.OneLine(command) + ")"
}
