package boot

import (
	"fmt"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/trial"
)

// upName is the file beside the journals that holds the kernel's ID of the last boot whose system came as
// far as the agent's service, and upMax bounds it in bytes.
const (
	upName = "came-up"
	upMax  = 64
)

// CameUp writes down that the system of the boot with this ID came as far as the agent's service. The
// next boot of a system that didn't reads every byte of it: what is damaged may be what it died of.
func CameUp(stateDir, bootID string) error {
	dir, err := durable.OpenDir(filepath.Join(stateDir, bootsName), nil)
	if err == nil {
		defer dir.Close()
		err = dir.WriteFile(upName, []byte(bootID), 0o600, "came-up")
	}
	if err != nil {
		return fmt.Errorf("write down that the system came up: %w", err)
	}
	return nil
}

// silence is how often in a row, up to the last boot, a generation was handed over to and nothing was heard of
// its system.
type silence struct {
	generation uint64
	times      int
	// known says that systems of this disk were heard of before: else they may have no service.
	known bool
}

// silent returns the silence before the boot with this ID; zero where the last boot was heard of, or didn't come to
// hand over.
func silent(stateDir, bootID string) silence {
	var s silence
	up := ""
	if dir, err := durable.OpenDir(filepath.Join(stateDir, bootsName), nil); err == nil {
		data, err := dir.ReadFile(upName, upMax)
		up, s.known = string(data), err == nil
		dir.Close()
	}
	journals, _ := ReadJournals(stateDir) // one that can't be read says nothing
	for _, j := range journals {
		switch {
		case j.BootID == bootID:
			continue
		case j.Outcome != HandedOver && s.times > 0:
			continue // cut off before it could show anything
		case j.Outcome != HandedOver, j.BootID == up, s.times > 0 && j.Generation != s.generation:
			return s
		}
		s.generation = j.Generation
		s.times++
	}
	return s
}

// listen finds out whether the systems of the last boots were heard of. A generation that was good and has been silent
// as often as one on trial may be makes way for another, if there is one, in this boot's first try.
func (b *boot) listen() {
	if b.config.Health != ByService || b.listened {
		return
	}
	b.listened = true
	b.silence = silent(b.store.Path(), b.voice.journal.doc.BootID)
	s := b.silence
	limit := b.settings.Tries
	if limit <= 0 {
		limit = trial.DefaultLimit
	}
	if !s.known || s.times < limit || s.generation == b.settings.Generation {
		return
	}
	good, others := false, 0
	for _, c := range b.candidates() {
		if c.Generation != s.generation {
			others++
		} else {
			good = !c.IsTrial
		}
	}
	if good && others > 0 {
		b.reject(s.generation, s.err())
	}
}

func (s silence) err() error {
	return fault.New(fault.Refuse, fault.Service, "look at its console and its disk; the next boot tries it again",
		"the systems of the last %d boots, of generation %d, weren't heard of", s.times, s.generation)
}

// passedOver returns why the platform's list can't be followed in this boot, where it is that of a generation that
// listen had make way.
func (b *boot) passedOver(wanted []assemble.Wanted) error {
	if n := b.silence.generation; n != 0 && b.plan.unfit[n] != "" {
		if its, err := assemble.WantedOf(b.store, b.generationOf(n)); err == nil && assemble.Same(its, wanted) {
			return b.silence.err()
		}
	}
	return nil
}
