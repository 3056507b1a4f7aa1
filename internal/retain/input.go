package retain

import (
	"errors"
	"slices"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// DefaultNewest is how many of the newest generations are kept.
const DefaultNewest = 3

// Input is what decisions about generations go by.
type Input struct {
	trial.Input
	// Damaged are the numbers of generations whose record can't be read.
	Damaged []uint64
	Pins    []store.Pin
	// Running is the generation that runs, 0 where that isn't known. Mounted are the root digests of all roots that
	// are mounted.
	Running uint64
	Mounted map[fsverity.Digest]struct{}
	// Beneath says for roots that boot over a writable layer on the disk which other roots' images that was used over last: it
	// is settled by what they hold.
	Beneath map[fsverity.Digest][]fsverity.Digest
	// Newest is how many of the newest are kept, whatever became of them; 0 is DefaultNewest.
	Newest int
}

// Read returns what a store holds as an Input. Remarks name records that are damaged and whose loss makes nobody
// remove or boot the wrong thing. The error says that a pointer, or the whole, can't be read; the Input holds
// the rest then.
func Read(st *store.Store) (in Input, remarks []string, err error) {
	var errs []error
	for _, p := range []struct {
		name store.PointerName
		to   *uint64
	}{{store.Current, &in.Current}, {store.Previous, &in.Previous}, {store.Staged, &in.Staged}} {
		n, err := st.Pointer(p.name)
		*p.to, errs = n, append(errs, err)
	}
	remark := func(err error) {
		if err != nil {
			remarks = append(remarks, err.Error())
		}
	}
	numbers, err := st.Numbers()
	errs = append(errs, err)
	in.Generations, err = st.Generations()
	remark(err)
	for _, n := range numbers {
		if _, ok := in.generation(n); !ok {
			in.Damaged = append(in.Damaged, n)
		}
	}
	in.Trials, err = st.Trials()
	remark(err)
	in.Pins, err = st.Pins()
	remark(err)
	in.Lives, err = st.Lives()
	remark(err)
	in.Lefts, err = st.Lefts()
	remark(err)
	return in, remarks, errors.Join(errs...)
}

// generation returns the record with that number, if it is readable.
func (in Input) generation(n uint64) (store.Generation, bool) {
	i := slices.IndexFunc(in.Generations, func(g store.Generation) bool { return g.Number == n })
	if i < 0 || n == 0 {
		return store.Generation{}, false
	}
	return in.Generations[i], true
}

// numbers returns the numbers of all generations, in order.
func (in Input) numbers() []uint64 {
	numbers := slices.Clone(in.Damaged)
	for _, g := range in.Generations {
		numbers = append(numbers, g.Number)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// trial returns what is recorded of a generation's trial, zero where nothing is.
func (in Input) trial(n uint64) store.Trial {
	return of(in.Trials, n, func(t store.Trial) uint64 { return t.Generation })
}

// Live says whether a generation went live without a boot: it is of generation 0 where it didn't.
func (in Input) Live(n uint64) store.Live {
	return of(in.Lives, n, func(l store.Live) uint64 { return l.Generation })
}

// Left says whether somebody went back from a generation: it is of generation 0 where nobody did.
func (in Input) Left(n uint64) store.Left {
	return of(in.Lefts, n, func(l store.Left) uint64 { return l.Generation })
}

// Pin returns the pin of a generation, or one of generation 0 where it has none.
func (in Input) Pin(n uint64) store.Pin {
	return of(in.Pins, n, func(p store.Pin) uint64 { return p.Generation })
}

func of[T any](records []T, n uint64, number func(T) uint64) T {
	for _, r := range records {
		if number(r) == n {
			return r
		}
	}
	var none T
	return none
}
