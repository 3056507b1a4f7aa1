package change

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/mount"
)

// The records of changes, in the directory of this boot: what they tell of doesn't outlive the boot either.
const (
	// JournalName is of a live change that isn't at its end.
	JournalName = "change.json"
	// ConfirmName is of one that is to be taken back unless the platform is reached.
	ConfirmName = "confirm.json"
	recordMax   = 16 << 20
)

// journal says what is being changed.
type journal struct {
	From uint64 `json:"from_generation"`
	To   uint64 `json:"to_generation"`
	// Points says that nothing of it is live: Staged is what the pointer of that name is to name, 0 for nothing.
	Points bool   `json:"points,omitempty"`
	Staged uint64 `json:"staged,omitempty"`
	// Root is the mount of the root that was changed: a soft-reboot leaves the journal, and not that.
	Root mount.ID `json:"root"`
	// Before is what the directory of record said.
	Before before `json:"before"`
	// Aftercare is what the running system needs for it.
	Aftercare *aftercare.Plan `json:"aftercare,omitempty"`
}

// journal has whoever comes next know what is begun.
func (w *work) journal(j journal) error {
	var err error
	if j.Root, err = w.c.System.Root(); err != nil {
		return err
	}
	return w.c.writeRun(JournalName, j)
}

// confirmation is a live change that isn't confirmed yet.
type confirmation struct {
	// Generation went live, Back ran before.
	Generation uint64 `json:"generation"`
	Back       uint64 `json:"back_to_generation"`
	// Local is the administrator's word as it was before.
	Local desired.Local `json:"local_before"`
	// Deadline is by the time since the machine started, in nanoseconds: its clock may be set meanwhile.
	Deadline time.Duration `json:"deadline_uptime_ns"`
}

func (c *Changer) writeRun(name string, v any) error {
	dir, err := durable.MakeDir(c.RunDir, 0o755, c.Hook)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.WriteJSON(name, v, 0o600, name[:len(name)-len(".json")])
}

// readRun reads a record of the directory of this boot; ok is false where there is none. One that can't be read is as good as
// none, and err says so.
func readRun(runDir, name string, v any) (ok bool, err error) {
	dir, err := durable.OpenDir(runDir, nil)
	if err == nil {
		defer dir.Close()
		err = dir.ReadJSON(name, recordMax, v)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the record of a change: %w", err)
	}
	return true, nil
}

func removeRun(runDir, name string, hook durable.Hook) error {
	dir, err := durable.OpenDir(runDir, hook)
	if err == nil {
		defer dir.Close()
		err = dir.Remove(name, name[:len(name)-len(".json")])
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
