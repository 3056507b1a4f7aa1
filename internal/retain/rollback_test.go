package retain

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

func TestBack(t *testing.T) {
	good := func(n uint64) store.Trial { return store.Trial{Generation: n, Good: noon} }
	for _, c := range []struct {
		name   string
		change func(in *Input)
		want   uint64
	}{
		{"the previous", func(*Input) {}, 4},
		{"the current, while another runs on trial", func(in *Input) { in.Running = 6 }, 5},
		{"not what runs", func(in *Input) { in.Running, in.Trials = 4, []store.Trial{{Generation: 5, Failed: "x"}} }, 5},
		{"an older one that was good", func(in *Input) { in.Previous, in.Trials = 0, []store.Trial{good(1), good(3)} }, 3},
		{"a newer one, where no older is good", func(in *Input) { in.Previous, in.Trials = 0, []store.Trial{good(6)} }, 6},
		{"not one that went live and was never booted", func(in *Input) {
			in.Lives, in.Trials = []store.Live{{Generation: 4, At: noon}}, []store.Trial{good(2)}
		}, 2},
		{"not the same again", func(in *Input) {
			in.Generations[4].RootDigest, in.Generations[4].Modules = in.Generations[3].RootDigest, in.Generations[3].Modules
			in.Trials = []store.Trial{good(2)}
		}, 2},
		{"the same root of other modules is another", func(in *Input) { in.Generations[4].RootDigest = root(4) }, 4},
		{"further back than what was left", func(in *Input) {
			in.Lefts, in.Trials = []store.Left{{Generation: 4, For: 5}}, []store.Trial{good(1)}
		}, 1},
		{"not a failed one", func(in *Input) { in.Previous, in.Trials = 0, []store.Trial{{Generation: 3, Good: noon, Failed: "x"}} }, 0},
		{"not a damaged one", func(in *Input) {
			in.Generations, in.Damaged = in.Generations[4:], []uint64{4}
		}, 0},
		{"nothing", func(in *Input) { *in = Input{} }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Input: trial.Input{Current: 5, Previous: 4, Generations: made(6)}}
			c.change(&in)
			if got := Back(in); got != c.want {
				t.Errorf("back to %d, want %d", got, c.want)
			}
		})
	}
}

func TestRenew(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 3)
	st := openStore(t, dir, store.Options{})
	old, err := st.Generation(1)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Renew(t.Context(), st, 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	if g.Number != 4 || g.Cause != "rollback to 1" || g.RootDigest != old.RootDigest || len(g.Modules) != 2 || g.Modules[1] != old.Modules[1] || g.Created != noon {
		t.Errorf("%+v", g)
	}
	if got, err := st.Generation(4); err != nil || got.Cause != g.Cause {
		t.Errorf("%+v, %v", got, err)
	}
	if n, _ := st.Pointer(store.Current); n != 3 {
		t.Errorf("current is %d: nothing is to change yet", n)
	}
	// From here on nobody collects what it refers to.
	other := openStore(t, dir, store.Options{})
	if _, err := other.Collect(t.Context()); fault.KindOf(err) != fault.Retry {
		t.Errorf("a collection meanwhile: %v", err)
	}
	whole(t, st)
}

func TestRenewRefusesWhatIsNotWhole(t *testing.T) {
	app := version{name: "app", version: "1"}
	object := fsverity.SumBytes(app.parts()[0])
	for name, c := range map[string]struct {
		spoil func(st *store.Store, g store.Generation) error
		word  string
	}{
		"an object":  {func(st *store.Store, _ store.Generation) error { return st.RemoveObject(object) }, "app 1: 1 of its 4 objects"},
		"the image":  {func(st *store.Store, g store.Generation) error { return st.RemoveObject(g.Modules[1].Seal) }, "app 1: 1 of its 4 objects"},
		"the module": {func(st *store.Store, _ store.Generation) error { return st.RemoveModule(app.digest()) }, "isn't in the store"},
		"its record": {func(st *store.Store, _ store.Generation) error {
			return spoil(st, "modules/"+app.digest()[7:]+"/module.json")
		}, "is damaged"},
		"the root": {func(st *store.Store, g store.Generation) error { return st.RemoveObject(g.RootDigest) }, "root image isn't in the store"},
		"a bit of it": {func(st *store.Store, g store.Generation) error {
			return spoil(st, "objects/"+g.RootDigest.ObjectPath())
		}, "root image: "},
		"the record":    {func(st *store.Store, _ store.Generation) error { return spoil(st, "generations/1.json") }, "is damaged"},
		"all but a nod": {func(st *store.Store, _ store.Generation) error { return st.RemoveGeneration(1) }, "isn't in the store"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			history(t, dir, 3)
			st := openStore(t, dir, store.Options{})
			g, err := st.Generation(1)
			if err == nil {
				err = c.spoil(st, g)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := len(numbersIn(t, st))
			_, err = Renew(t.Context(), st, 1, noon)
			if err == nil || !strings.Contains(err.Error(), c.word) || !strings.HasPrefix(err.Error(), "go back to generation 1: ") || fault.HintOf(err) == "" {
				t.Errorf("%v; %s", err, fault.HintOf(err))
			}
			if after := len(numbersIn(t, st)); after != before {
				t.Errorf("%d generations, then %d", before, after)
			}
		})
	}
	st := openStore(t, t.TempDir(), store.Options{})
	if _, err := Renew(t.Context(), st, 1, noon); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that isn't here: %v", err)
	}
}

// spoil flips a bit of a file.
func spoil(st *store.Store, name string) error {
	path := filepath.Join(st.Path(), name)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600))
}
