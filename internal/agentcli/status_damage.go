package agentcli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// checkedDoc is how much `status --check` read.
type checkedDoc struct {
	// Modules of the generation were read whole, within Millis.
	Modules int   `json:"modules"`
	Millis  int64 `json:"duration_ms"`
}

// damage adds to the status what of generation number n is damaged: what the kernel's log tells of, as far as it
// still is, or with check all that reading every byte finds.
func (d *statusDoc) damage(ctx context.Context, st *store.Store, n uint64, check bool) error {
	g, err := st.Generation(n)
	if err != nil {
		// Of the generation that should run it has been said, but another one may run.
		if said := err.Error(); n != 0 && !slices.Contains(d.Reasons, said) {
			said = fmt.Sprintf("what of generation %d is damaged isn't known: %s", n, said)
			if check {
				d.Reasons = append(d.Reasons, said)
			} else {
				d.Remarks = append(d.Remarks, said)
			}
		}
		return nil //nolint:nilerr // it is in the status
	}
	inspector := reconcile.Inspector{Store: st, Generation: g}
	switch {
	case check:
		begun := time.Now()
		if d.Damage, err = inspector.All(ctx, true); err != nil {
			return err
		}
		d.Checked = &checkedDoc{Modules: len(g.Modules), Millis: time.Since(begun).Milliseconds()}
	case d.Level == mount.Enforced:
		// At other levels the kernel checks nothing.
		told, err := reconcile.Corruptions()
		if err != nil {
			d.Remarks = append(d.Remarks, fmt.Sprintf("what the kernel finds damaged isn't known: %v", err))
		}
		if d.Damage, err = inspector.Suspects(ctx, told); err != nil {
			return err
		}
	}
	for _, damage := range d.Damage {
		d.Reasons = append(d.Reasons, "damaged: "+damage.String())
	}
	return nil
}
