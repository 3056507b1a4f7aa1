package health

import (
	"context"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
)

// The bounds of what isn't counted: a unit that restarts the machine looks like an operator who does.
const (
	mostForgiven = 3
	leavingTime  = 3 * time.Second
)

// forgive gives the attempt back if the machine is being shut down in order while nothing is wrong: it says nothing
// about the generation. Only so many are.
func (g *Gate) forgive(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leavingTime)
	defer cancel()
	system, err := g.c.System(ctx)
	if err != nil || system.State != "stopping" {
		return // the service alone ends
	}
	err = g.record(func(st *store.Store) error {
		t, err := st.Trial(g.c.Generation)
		if err != nil || t.Failed != "" || t.Limit == 0 || t.Forgiven >= mostForgiven {
			return err
		}
		t.Forgiven++
		t.Limit++
		g.c.Log.Info("the machine is shut down before there was a verdict; the attempt doesn't count", "generation", g.c.Generation)
		return st.PutTrial(t)
	})
	if err != nil {
		g.complain("the attempt can't be given back", err)
	}
}
