package agentcli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/store"
)

// pendingDoc is what is yet to come.
type pendingDoc struct {
	// Staged is the generation that the next boot tries.
	Staged uint64 `json:"staged_generation,omitempty"`
	// Confirm is a live change that is taken back unless the platform is reached in time.
	Confirm *confirmDoc `json:"confirm,omitempty"`
}

type confirmDoc struct {
	Generation  uint64 `json:"generation"`
	Back        uint64 `json:"back_to_generation"`
	LeftSeconds int64  `json:"left_seconds"`
}

// localDoc is what the administrator said on the node itself.
type localDoc struct {
	// Attached and Detached are names of modules.
	Attached []string `json:"attached,omitempty"`
	Detached []string `json:"detached,omitempty"`
}

// pending adds what the next boot will do, what waits for a confirmation, and in what the node differs from the platform's list by
// its administrator's word.
func (d *statusDoc) pending(st *store.Store, stateDir, runDir string, running uint64) {
	var p pendingDoc
	// A pointer that can't be read has been told of.
	if staged, err := st.Pointer(store.Staged); err == nil && staged != running && (d.LastFailed == nil || d.LastFailed.Generation != staged) {
		p.Staged = staged
	}
	switch waiting, ok, err := change.Waiting(runDir); {
	case err != nil:
		d.Remarks = append(d.Remarks, err.Error())
	case ok:
		p.Confirm = &confirmDoc{Generation: waiting.Generation, Back: waiting.Back, LeftSeconds: int64(max(waiting.Left, 0) / time.Second)}
		d.Reasons = append(d.Reasons, fmt.Sprintf("generation %d isn't confirmed yet: generation %d comes back unless the platform is reached within %d s", waiting.Generation, waiting.Back, p.Confirm.LeftSeconds))
	}
	if p != (pendingDoc{}) {
		d.Pending = &p
	}
	local, err := desired.ReadLocal(stateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.Reasons = append(d.Reasons, err.Error())
	case len(local.Attached)+len(local.Detached) > 0:
		d.Local = &localDoc{Detached: local.Detached}
		for _, a := range local.Attached {
			d.Local.Attached = append(d.Local.Attached, a.Name)
		}
	}
}

// pendingRows are the lines of the table about that.
func (d statusDoc) pendingRows() [][2]string {
	var rows [][2]string
	if p := d.Pending; p != nil && p.Staged != 0 {
		rows = append(rows, [2]string{"staged", fmt.Sprintf("generation %d, which the next boot tries", p.Staged)})
	}
	if l := d.Local; l != nil {
		if len(l.Attached) > 0 {
			rows = append(rows, [2]string{"attached here", strings.Join(l.Attached, ", ")})
		}
		if len(l.Detached) > 0 {
			rows = append(rows, [2]string{"detached here", strings.Join(l.Detached, ", ")})
		}
	}
	return rows
}
