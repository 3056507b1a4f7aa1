package trial

import (
	"errors"

	"github.com/powernode/powernode-agent/internal/store"
)

// Read returns what a store holds as an Input. What is damaged makes err and is missing in it, which
// leaves the node with what can be trusted: the Input is good also when err isn't nil.
func Read(st *store.Store) (Input, error) {
	var in Input
	var errs []error
	for _, p := range []struct {
		name store.PointerName
		to   *uint64
	}{{store.Current, &in.Current}, {store.Previous, &in.Previous}, {store.Staged, &in.Staged}} {
		n, err := st.Pointer(p.name)
		*p.to, errs = n, append(errs, err)
	}
	generations, err := st.Generations()
	in.Generations, errs = generations, append(errs, err)
	in.Trials, err = st.Trials()
	errs = append(errs, err)
	in.Lives, err = st.Lives()
	errs = append(errs, err)
	in.Lefts, err = st.Lefts()
	return in, errors.Join(append(errs, err)...)
}
