package retain

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

func root(n uint64) fsverity.Digest { return fsverity.SumBytes(fmt.Append(nil, "root", n)) }

// made returns generations 1 to count, each with its own root and module.
func made(count uint64) []store.Generation {
	var list []store.Generation
	for n := uint64(1); n <= count; n++ {
		list = append(list, store.Generation{Number: n, RootDigest: root(n), Modules: []store.GenerationModule{{Name: "app", ManifestDigest: fmt.Sprint(n)}}})
	}
	return list
}

func mountedRoots(numbers ...uint64) map[fsverity.Digest]struct{} {
	roots := make(map[fsverity.Digest]struct{})
	for _, n := range numbers {
		roots[root(n)] = struct{}{}
	}
	return roots
}

// unreadable is what the store says of a trial whose record is damaged.
func unreadable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	history(t, dir, 1)
	if err := os.WriteFile(filepath.Join(dir, "generations", "1.trial"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	trial, err := openStore(t, dir, store.Options{}).Trial(1)
	if err == nil || !trial.Unreadable() {
		t.Fatalf("%+v, %v", trial, err)
	}
	return trial.Failed
}

func TestDecide(t *testing.T) {
	ten := trial.Input{Current: 10, Previous: 9, Generations: made(10)}
	good := func(numbers ...uint64) (trials []store.Trial) {
		for _, n := range numbers {
			trials = append(trials, store.Trial{Generation: n, Good: noon})
		}
		return trials
	}
	for _, c := range []struct {
		name   string
		change func(in *Input)
		kept   []uint64
		why    map[uint64]string
	}{
		{"the newest three", func(*Input) {}, []uint64{8, 9, 10}, map[uint64]string{
			10: "current, one of the newest 3", 9: "previous, one of the newest 3", 8: "one of the newest 3", 7: "untested, nothing names it, and 3 are newer",
		}},
		{"as many as are wanted", func(in *Input) { in.Newest = 5 }, []uint64{6, 7, 8, 9, 10}, nil},
		{"only one", func(in *Input) { in.Newest = 1 }, []uint64{9, 10}, map[uint64]string{10: "current, the newest"}},
		{"more than there are", func(in *Input) { in.Newest = 50 }, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
		{"pointers to old ones", func(in *Input) { in.Current, in.Previous, in.Staged = 2, 4, 6 }, []uint64{2, 4, 6, 8, 9, 10}, map[uint64]string{6: "staged", 4: "previous", 2: "current"}},
		{"pinned", func(in *Input) { in.Pins = []store.Pin{{Generation: 1}, {Generation: 77}} }, []uint64{1, 8, 9, 10}, map[uint64]string{1: "pinned"}},
		{"asked for", func(in *Input) { in.Trials = []store.Trial{{Generation: 5, Asked: true}} }, []uint64{5, 8, 9, 10}, nil},
		{"running", func(in *Input) { in.Running = 3 }, []uint64{3, 8, 9, 10}, map[uint64]string{3: "runs"}},
		{"mounted somewhere", func(in *Input) { in.Mounted = mountedRoots(2, 10, 99) }, []uint64{2, 8, 9, 10}, map[uint64]string{2: "mounted"}},
		{"beneath a writable layer", func(in *Input) {
			in.Beneath = map[fsverity.Digest][]fsverity.Digest{root(9): {root(4)}, root(10): {root(8), root(77)}, root(4): {root(3)}, root(1): {root(2)}}
		}, []uint64{4, 8, 9, 10}, map[uint64]string{4: "a writable layer was used over it", 8: "one of the newest 3"}},
		{"mounted, with the same root in two", func(in *Input) {
			in.Generations[4].RootDigest = root(2)
			in.Mounted = mountedRoots(2)
		}, []uint64{5, 8, 9, 10}, nil},
		{"the last good, where the pointers say nothing", func(in *Input) {
			in.Previous, in.Trials = 0, good(3, 5)
		}, []uint64{5, 8, 9, 10}, map[uint64]string{5: "last good", 3: "good, nothing names it, and 7 are newer"}},
		{"went live over one that is good", func(in *Input) {
			in.Previous, in.Lives, in.Trials = 0, []store.Live{{Generation: 10, At: noon}}, good(2)
		}, []uint64{2, 8, 9, 10}, nil},
		{"failed ones are no way back", func(in *Input) {
			in.Previous, in.Trials = 0, []store.Trial{{Generation: 6, Good: noon, Failed: "silent"}, {Generation: 4, Good: noon}}
		}, []uint64{4, 8, 9, 10}, map[uint64]string{6: "failed, nothing names it, and 4 are newer"}},
		{"perhaps good, by damaged records", func(in *Input) {
			in.Previous, in.Trials = 0, append(good(2), store.Trial{Generation: 4, Failed: unreadable(t)}, store.Trial{Generation: 5, Good: noon})
			in.Lefts = []store.Left{{Generation: 5}, {Generation: 3, At: noon}}
		}, []uint64{2, 4, 5, 8, 9, 10}, map[uint64]string{
			5: "perhaps the last good: a record that says so is damaged", 4: "perhaps the last good: a record that says so is damaged", 2: "last good", 3: "untested, nothing names it, and 7 are newer",
		}},
		{"a damaged record of one that is older than the last good", func(in *Input) {
			in.Trials = []store.Trial{{Generation: 4, Failed: unreadable(t)}}
		}, []uint64{8, 9, 10}, nil},
		{"damaged", func(in *Input) {
			in.Generations, in.Damaged = append(in.Generations[:2:2], in.Generations[3:9]...), []uint64{3, 10}
		}, []uint64{8, 9, 10}, map[uint64]string{3: "damaged, nothing names it, and 7 are newer"}},
		{"none at all", func(in *Input) { *in = Input{} }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Input: ten}
			in.Generations = slices.Clone(ten.Generations)
			c.change(&in)
			keep := Decide(in)
			if got := keep.Kept(); !slices.Equal(got, c.kept) {
				t.Errorf("kept %v, want %v", got, c.kept)
			}
			if len(keep.Kept())+len(keep.Gone()) != len(in.numbers()) {
				t.Errorf("kept %v, gone %v", keep.Kept(), keep.Gone())
			}
			for n, why := range c.why {
				if got := strings.Join(keep.Of(n).Reasons, ", "); got != why {
					t.Errorf("%d: %q, want %q", n, got, why)
				}
			}
			if !keep.Of(4).Keep && slices.Contains(c.kept, 4) || keep.Of(1000).Keep {
				t.Error("verdicts by number")
			}
		})
	}
}

// TestDecideKeepsWhatItMust: whatever the store holds, what runs, boots, is the way back or is pinned stays, and
// everything has a reason.
func TestDecideKeepsWhatItMust(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 3))
	for range 3000 {
		count := 1 + random.Uint64N(12)
		pick := func() uint64 { return random.Uint64N(count + 2) }
		in := Input{
			Input: trial.Input{Current: pick(), Previous: pick(), Staged: pick(), Generations: made(count)}, Running: pick(), Mounted: mountedRoots(pick(), pick()),
			Pins: []store.Pin{{Generation: pick()}}, Newest: random.IntN(5),
		}
		for range random.IntN(6) {
			tr := store.Trial{Generation: pick(), Attempts: random.IntN(4), Limit: random.IntN(4)}
			if random.IntN(2) == 0 {
				tr.Good = noon
			}
			if random.IntN(3) == 0 {
				tr.Failed = "bad"
			}
			in.Trials = append(in.Trials, tr)
		}
		if random.IntN(2) == 0 {
			in.Lives = []store.Live{{Generation: pick(), At: noon}}
			in.Lefts = []store.Left{{Generation: pick(), At: noon}}
		}
		keep := Decide(in)
		must := []uint64{in.Current, in.Previous, in.Staged, in.Running, in.Pins[0].Generation, Back(in), count}
		for _, n := range must {
			if _, ok := in.generation(n); ok && !keep.Of(n).Keep {
				t.Fatalf("%+v: %d isn't kept", in, n)
			}
		}
		for d := range in.Mounted {
			if !slices.ContainsFunc(in.Generations, func(g store.Generation) bool { return g.RootDigest == d && keep.Of(g.Number).Keep }) &&
				slices.ContainsFunc(in.Generations, func(g store.Generation) bool { return g.RootDigest == d }) {
				t.Fatalf("%+v: a mounted root isn't kept", in)
			}
		}
		for _, v := range keep {
			if len(v.Reasons) == 0 || v.Reasons[0] == "" {
				t.Fatalf("%+v: no reason", v)
			}
		}
		// What a boot would choose is never taken away.
		for _, c := range trial.Order(in.Input) {
			if n := c.Generation; (n == in.Current || n == in.Staged) && !keep.Of(n).Keep {
				t.Fatalf("%+v: the next boot wants %d", in, n)
			}
		}
	}
}

func TestHealthOf(t *testing.T) {
	in := Input{Input: trial.Input{Current: 1, Previous: 2, Generations: made(9), Trials: []store.Trial{
		{Generation: 1, Good: noon, Attempts: 1},
		{Generation: 3, Attempts: 2, Limit: 3, Begun: noon, Ended: "a unit failed"},
		{Generation: 4, Attempts: 3, Limit: 3},
		{Generation: 5, Failed: "no init", FailedAt: noon, Attempts: 1},
		{Generation: 6, Good: noon},
		{Generation: 8, Good: noon, Failed: "silent since"},
		{Generation: 9, Attempts: 1, Limit: 3, Begun: noon},
	}, Lives: []store.Live{{Generation: 7, At: noon}, {Generation: 6, At: noon}, {Generation: 9, At: noon}}}}
	for n, want := range map[uint64]string{
		1: "good", 2: "good", 3: "on trial: a unit failed", 4: "failed: 3 boots began with it, and none was found good", 5: "failed: no init", 6: "good",
		7: "live", 8: "failed: silent since", 9: "on trial", 10: "damaged", 0: "damaged",
	} {
		if got := HealthOf(in, n).String(); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	in.Current = 7
	if h := HealthOf(in, 7); h.State != Live || h.Since != noon {
		t.Errorf("current, and never booted: %+v", h)
	}
	if h := HealthOf(in, 3); h.Attempts != 2 || h.Since != noon {
		t.Errorf("%+v", h)
	}
	if h := HealthOf(Input{Input: trial.Input{Generations: made(1)}}, 1); h != (Health{State: Untested}) {
		t.Errorf("%+v", h)
	}
	if why := trial.Reason(store.Trial{Failed: "x"}); why != "x" {
		t.Error(why)
	}
}
