package change

import (
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// LastName is of the last update that the platform answered, in the directory of this boot.
const LastName = "update.json"

// Last is what the platform assigned at the last update, and what became of it.
type Last struct {
	At time.Time `json:"at"`
	// Assigned is the platform's list, without what was detached here, and without what an attachment goes before.
	Assigned []LastModule `json:"assigned"`
	// Failed are those that couldn't be used, and what takes their places.
	Failed []Failure `json:"failed,omitempty"`
	// Refused says why the whole wasn't done; "" where it was, as far as it went.
	Refused string `json:"refused,omitempty"`
}

// LastModule is a module of that list.
type LastModule struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// ReadLast returns the record of the last update from the directory of this boot; ok is false where there is none.
func ReadLast(runDir string) (last Last, ok bool, err error) {
	ok, err = readRun(runDir, LastName, &last)
	return last, ok, err
}

// Remarks says of the modules that couldn't be used why that is, each in a sentence.
func (l Last) Remarks() []string {
	var remarks []string
	for _, f := range l.Failed {
		text := fmt.Sprintf("module %s %s can't be used: %s", f.Name, f.Version, f.Reason)
		if f.Kept != "" {
			text += "; version " + f.Kept + " stays"
		}
		remarks = append(remarks, text)
	}
	if l.Refused != "" {
		remarks = append(remarks, "the last update was refused: "+l.Refused)
	}
	return remarks
}

// keepLast keeps what became of an update. That it can't be kept is a remark: nothing hangs on it.
func (w *work) keepLast(err error) {
	if w.request.Kind != Update || w.request.DryRun || w.c.RunDir == "" {
		return
	}
	last := Last{At: w.c.Now().UTC(), Assigned: []LastModule{}, Failed: w.result.Failed}
	for _, a := range w.wanted.assigned {
		if a.Origin == reconcile.ByPlatform {
			last.Assigned = append(last.Assigned, LastModule{a.Name, a.Version})
		}
	}
	if err != nil {
		last.Refused = fault.OneLine(err.Error())
	}
	if err := w.c.writeRun(LastName, last); err != nil {
		w.remark(err.Error())
	}
}
