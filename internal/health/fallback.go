package health

import (
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// prepare finds out what there is to go back to.
func (g *Gate) prepare() bool {
	// A machine that may have nothing to go back to stays up.
	g.policy = Policy{Settings: g.c.Settings, Last: true}
	st, err := store.Open(g.c.StateDir, store.Options{})
	if err != nil {
		g.complain("the store can't be read", err)
		return false
	}
	defer st.Close()
	// What is damaged can't be gone back to; the boot has said so.
	in, _ := trial.Read(st)
	back := fallback(st, in, g.c.Generation)
	g.policy.Last = back == 0
	for _, t := range in.Trials {
		if t.Generation == back {
			g.policy.Accepted = t.FailedUnits
		}
	}
	return true
}

// fallback returns the best generation to go back to whose modules are in the store; 0 where there is none. That
// each byte of them is right, the boot proves.
func fallback(st *store.Store, in trial.Input, running uint64) uint64 {
	in.Unfit = make(map[uint64]string)
	for {
		back := trial.Fallback(in, running)
		if back == 0 {
			return 0
		}
		why := ""
		for _, generation := range in.Generations {
			if generation.Number != back {
				continue
			}
			for _, m := range generation.Modules {
				if _, err := st.GetModule(m.ManifestDigest); err != nil {
					why = err.Error()
				} else if !st.HasObject(m.Seal) {
					why = "the image of module " + m.Name + " isn't there"
				}
			}
		}
		if why == "" {
			return back
		}
		in.Unfit[back] = why
	}
}
