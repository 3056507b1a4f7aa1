package live

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/mount"
)

// The journal of a change, in the directory of this boot. It needn't outlive the boot: the mounts
// don't either.
const (
	JournalName = "live.json"
	journalMax  = 4 << 20
	journalV1   = 1
)

// Phase is how far a change has come.
type Phase string

// The phases. In both the system goes back unless the new generation is the current one.
const (
	Swapping Phase = "swapping" // some of it may be done
	Swapped  Phase = "swapped"  // all of it is done, AfterReplace found nothing wrong, and the caller hasn't finished it
)

// Journal says what is being changed.
type Journal struct {
	Version int      `json:"version"`
	Phase   Phase    `json:"phase"`
	From    Side     `json:"from"`
	To      Side     `json:"to"`
	Changes []Change `json:"changes"`
	// Base is the mount at "/". After a soft reboot it is another one, and the journal about nothing.
	Base mount.ID `json:"base"`
	// Kept are the mount namespaces that were cut off for it from what is mounted here later, or were about to be.
	Kept []Namespace `json:"kept,omitempty"`
}

// ReadJournal returns the journal of a change that isn't finished; an error that wraps fs.ErrNotExist
// where there is none.
func ReadJournal(runDir string) (Journal, error) {
	dir, err := durable.OpenDir(runDir, nil)
	if err != nil {
		return Journal{}, fmt.Errorf("read the journal of a live change: %w", err)
	}
	defer dir.Close()
	return readJournal(dir)
}

func readJournal(dir *durable.Dir) (Journal, error) {
	var j Journal
	if err := dir.ReadJSON(JournalName, journalMax, &j); err != nil {
		return Journal{}, fmt.Errorf("read the journal of a live change: %w", err)
	}
	if j.Version != journalV1 {
		return Journal{}, fmt.Errorf("read the journal of a live change: version %d is unknown", j.Version)
	}
	s := Spec{From: j.From, To: j.To, Changes: j.Changes}
	for _, c := range s.Changes {
		if err := c.validate(); err != nil {
			return Journal{}, err
		}
	}
	return j, nil
}

// Finish ends a change once its new generation is the current one.
func Finish(runDir string, hook durable.Hook) error {
	dir, err := durable.OpenDir(runDir, hook)
	if err != nil {
		return fmt.Errorf("finish a live change: %w", err)
	}
	defer dir.Close()
	return removeJournal(dir)
}

func removeJournal(dir *durable.Dir) error {
	err := dir.Remove(JournalName, "live-end")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finish a live change: %w", err)
	}
	return nil
}
