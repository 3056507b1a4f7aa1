package change

import (
	"fmt"
	"slices"
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
	// Undone are the steps that failed after the last change that went live, whatever it was.
	Undone []string `json:"undone,omitempty"`
}

// LastModule is a module of that list.
type LastModule struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// ReadLast returns the record of the last update from the directory of this boot; ok is false where the platform answered none.
func ReadLast(runDir string) (last Last, ok bool, err error) {
	ok, err = readRun(runDir, LastName, &last)
	return last, ok && !last.At.IsZero(), err
}

// Remarks says of the modules that couldn't be used why that is, and what wasn't done, each in a sentence. They are good for a
// record that isn't of an update, too.
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
	for _, text := range l.Undone {
		remarks = append(remarks, "the last change is done in part: "+text)
	}
	return remarks
}

// keepUndone keeps which steps failed of a change that somebody else had begun. That it can't be kept is a remark.
func (c *Changer) keepUndone(failed []string) []string {
	last, _, _ := ReadLast(c.RunDir) // one that can't be read is replaced
	if slices.Equal(last.Undone, failed) {
		return nil
	}
	last.Undone = failed
	if err := c.writeRun(LastName, last); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// keepLast keeps what became of an update, and which steps failed of any change. That it can't be kept is a remark: nothing hangs on it.
func (w *work) keepLast(err error) {
	if w.request.DryRun || w.c.RunDir == "" {
		return
	}
	before, _, _ := ReadLast(w.c.RunDir) // one that can't be read is replaced
	last := before
	if w.request.Kind == Update {
		last = Last{At: w.c.Now().UTC(), Assigned: []LastModule{}, Failed: w.result.Failed}
		for _, a := range w.wanted.assigned {
			if a.Origin == reconcile.ByPlatform {
				last.Assigned = append(last.Assigned, LastModule{a.Name, a.Version})
			}
		}
		if err != nil {
			last.Refused = fault.OneLine(err.Error())
		}
	}
	// What failed then is still to be done where nothing was done since.
	last.Undone = before.Undone
	if w.result.Outcome == WentLive || len(w.result.Undone) > 0 {
		last.Undone = w.result.Undone
	}
	if w.request.Kind != Update && slices.Equal(last.Undone, before.Undone) {
		return
	}
	if err := w.c.writeRun(LastName, last); err != nil {
		w.remark(err.Error())
	}
}
