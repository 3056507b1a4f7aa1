package change

import (
	"context"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// registriesTries is for how many modules in a row a registry that can't be reached is asked: one may be all that is wrong with it,
// and the patience that each takes isn't spent for all that it has.
const registriesTries = 2

// outage reports whether a module can't be had now, and perhaps another time: its registry can't be reached, or isn't well. That says nothing
// of the module, nor of those of other registries.
func outage(ctx context.Context, err error) bool { return ctx.Err() == nil && unreached(err) }

func unreached(err error) bool {
	return err != nil && fault.KindOf(err) == fault.Retry && fault.AreaOf(err) == fault.Platform
}

// ask does what takes a module's registry, unless that couldn't be reached for others.
func (w *work) ask(ctx context.Context, repository string, do func() error) error {
	host, _, _ := strings.Cut(repository, "/")
	if w.silent[host] >= registriesTries {
		return fault.New(fault.Retry, fault.Platform, "check that "+host+" can be reached", "%s couldn't be reached for other modules, and isn't asked any more", host)
	}
	err := do()
	if w.silent == nil {
		w.silent = make(map[string]int)
	}
	if outage(ctx, err) {
		w.silent[host]++
	} else {
		w.silent[host] = 0
	}
	return err
}
