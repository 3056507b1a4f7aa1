package retain

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// today is when the collections of these tests run.
var today = noon.Add(30 * 24 * time.Hour)

// listing returns every file below a store with its size, but for locks.
func listing(t testing.TB, dir string) map[string]int64 {
	t.Helper()
	list := make(map[string]int64)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "lock") {
			return err
		}
		info, err := e.Info()
		if err == nil {
			list[path] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// litter adds what a collection is for: a module that no generation has, an object that nothing refers to, an old and a
// new partial download.
func litter(t testing.TB, st *store.Store) {
	t.Helper()
	stray := version{name: "stray", version: "1"}
	err := errors.Join(stray.pull(st), commit(st, contents("garbage", 40_000)), st.Sync())
	for i, age := range []time.Duration{8 * 24 * time.Hour, 6 * 24 * time.Hour} {
		digest := stray.record().Layers[0].Digest
		digest = digest[:len(digest)-1] + string("0123"[i])
		p, openErr := st.Partial(digest)
		if openErr != nil {
			t.Fatal(openErr)
		}
		_, writeErr := p.Write(contents("blob", 20_000))
		when := today.Add(-age)
		err = errors.Join(err, writeErr, p.Close(), os.Chtimes(filepath.Join(st.Path(), "partial", digest[7:]), when, when))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 8)
	st := openStore(t, dir, store.Options{})
	litter(t, st)
	if err := st.PutPin(store.Pin{Generation: 2, Note: "before the move", Since: noon}); err != nil {
		t.Fatal(err)
	}
	var uppers []bool
	o := Options{Now: today, Uppers: func(_ context.Context, keep map[fsverity.Digest]struct{}, dryRun bool) (Amount, error) {
		if len(keep) != 4 {
			t.Errorf("writable layers of %d roots are kept", len(keep))
		}
		uppers = append(uppers, dryRun)
		return Amount{1, 1000}, nil
	}}

	before := listing(t, dir)
	reader := openStore(t, dir, store.Options{ReadOnly: true})
	would, err := Plan(t.Context(), reader, o)
	if err != nil {
		t.Fatal(err)
	}
	if after := listing(t, dir); !reflect.DeepEqual(before, after) {
		t.Errorf("a dry run changed something: %d files, then %d", len(before), len(after))
	}
	if !would.DryRun || !slices.Equal(keepOf(would.Generations).all(), []uint64{1, 3, 4, 5}) || !slices.Equal(keepOf(would.Kept).all(), []uint64{2, 6, 7, 8}) {
		t.Errorf("%+v", would)
	}
	// Four versions of app go with 2 objects and an image each, and 4 root images; of the stray module the same, and the garbage.
	if len(would.Modules) != 5 || would.Objects.Count != 4*4+3+1 || would.Partials.Count != 1 || would.Records.Count != 9 || would.Uppers.Bytes != 1000 {
		t.Errorf("%+v", would)
	}

	room, _ := st.Room()
	done, err := Collect(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	would.DryRun = false
	if !reflect.DeepEqual(done, would) {
		t.Errorf("did %+v\nand would have done %+v", done, would)
	}
	if after, _ := st.Room(); after.AvailableBytes < room.AvailableBytes {
		t.Logf("room %+v, then %+v: others are at work on this disk", room, after)
	}
	if sum := done.Records.Bytes + done.Objects.Bytes + done.Partials.Bytes + done.Uppers.Bytes; sum != done.FreedBytes || done.Objects.Bytes < 4*6000 || done.Partials.Bytes < 20_000 || done.Records.Bytes == 0 {
		t.Errorf("%+v", done)
	}
	if !slices.Equal(uppers, []bool{true, false}) {
		t.Errorf("writable layers: %v", uppers)
	}
	whole(t, st)
	if got := numbersIn(t, st); !slices.Equal(got, []uint64{2, 6, 7, 8}) {
		t.Errorf("left: %v", got)
	}
	if partials, _ := st.Partials(); len(partials) != 1 {
		t.Errorf("left: %+v", partials)
	}
	if floors, err := st.Floors(); err != nil || floors["app"].Version != "8" {
		t.Errorf("floors %+v, %v", floors, err)
	}
	again, err := Collect(t.Context(), st, Options{Now: today})
	if err != nil || again.FreedBytes != 0 || len(again.Generations)+len(again.Modules)+again.Objects.Count != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
}

type keepOf []Verdict

func (k keepOf) all() []uint64 {
	var numbers []uint64
	for _, v := range k {
		numbers = append(numbers, v.Generation)
	}
	return numbers
}

// TestCollectRemembersVersions: the floor of a version stays when the last generation that had it goes.
func TestCollectRemembersVersions(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, dir, store.Options{})
	high := version{name: "app", version: "10"}
	err := high.pull(st)
	if n, putErr := generate(st, high); err == nil && putErr == nil {
		err = st.Pass(n, noon, nil)
	}
	for i := range 4 {
		low := version{name: "app", version: "9." + string("0123"[i])}
		err = errors.Join(err, low.pull(st))
		n, putErr := generate(st, low)
		err = errors.Join(err, putErr, st.Pass(n, noon, nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(t.Context(), st, Options{Now: today}); err != nil {
		t.Fatal(err)
	}
	if got := numbersIn(t, st); slices.Contains(got, 1) {
		t.Fatalf("left: %v", got)
	}
	floors, err := st.Floors()
	if err != nil || CheckFloor(floors, "app", "9.9", false) == nil {
		t.Errorf("floors %+v, %v", floors, err)
	}
}

func TestCollectSpares(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 5)
	st := openStore(t, dir, store.Options{})
	stray := version{name: "stray", version: "1"}
	if err := stray.pull(st); err != nil {
		t.Fatal(err)
	}
	o := Options{Now: noon.Add(time.Hour), SpareModules: 2 * time.Hour}
	if r, err := Collect(t.Context(), st, o); err != nil || len(r.Generations) != 2 || len(r.Modules) != 0 || !st.HasModule(stray.digest()) {
		t.Errorf("%+v, %v", r, err)
	}
	whole(t, st)
	o.Now = o.Now.Add(2 * time.Hour)
	if r, err := Collect(t.Context(), st, o); err != nil || len(r.Modules) != 3 || st.HasModule(stray.digest()) {
		t.Errorf("%+v, %v", r, err)
	}
	whole(t, st)
}

// TestCollectKeepsWhatRuns: also where no pointer names it, or only a service's mount namespace has it.
func TestCollectKeepsWhatRuns(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 8)
	st := openStore(t, dir, store.Options{})
	first, err := st.Generation(1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := st.Generation(2)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Now: today, Running: 2, Root: second.RootDigest, Mounted: map[fsverity.Digest]struct{}{first.RootDigest: {}, second.RootDigest: {}}}
	if r, err := Collect(t.Context(), st, o); err != nil || len(r.Generations) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := numbersIn(t, st); !slices.Equal(got, []uint64{1, 2, 6, 7, 8}) {
		t.Errorf("left: %v", got)
	}
	whole(t, st)
}

// TestCollectRefuses: where it can't be told what is needed, nothing goes.
func TestCollectRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(st *store.Store, o *Options) error
		kind   fault.Kind
		word   string
	}{
		"a pointer":                 {func(st *store.Store, _ *Options) error { return write(st, "generations/current", "x") }, fault.Broken, "current is damaged"},
		"a generation that is kept": {func(st *store.Store, _ *Options) error { return write(st, "generations/6.json", "x") }, fault.Broken, "generation 6 is kept"},
		"the current generation":    {func(st *store.Store, _ *Options) error { return write(st, "generations/8.json", "x") }, fault.Broken, "generation 8 is kept (current)"},
		"a module that is kept":     {func(st *store.Store, _ *Options) error { return write(st, moduleFile("app", "7"), "x") }, fault.Broken, "module app 7"},
		"its list of objects": {func(st *store.Store, _ *Options) error {
			return write(st, filepath.Dir(moduleFile("app", "7"))+"/objects", "x")
		}, fault.Broken, "module app 7"},
		"what runs isn't of this store": {func(_ *store.Store, o *Options) error { o.Root = root(99); return nil }, fault.Refuse, "what runs"},
		"nor the generation":            {func(_ *store.Store, o *Options) error { o.Running = 99; return nil }, fault.Refuse, "what runs"},
		"the floors":                    {func(st *store.Store, _ *Options) error { return write(st, "floors.json", "x") }, fault.Broken, "floors.json is damaged"},
		"another is at work": {func(st *store.Store, _ *Options) error {
			other, err := store.Open(st.Path(), store.Options{})
			if err == nil {
				t.Cleanup(func() { other.Close() })
				err = other.Hold()
			}
			return err
		}, fault.Retry, "locked by process"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			history(t, dir, 8)
			st := openStore(t, dir, store.Options{})
			litter(t, st)
			o := Options{Now: today}
			if err := c.change(st, &o); err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			r, err := Collect(t.Context(), st, o)
			if fault.KindOf(err) != c.kind || err == nil || !strings.Contains(err.Error(), c.word) || fault.HintOf(err) == "" {
				t.Errorf("%v, %v; %s", fault.KindOf(err), err, fault.HintOf(err))
			}
			if r.FreedBytes != 0 || !reflect.DeepEqual(before, listing(t, dir)) {
				t.Errorf("something went: %+v", r)
			}
		})
	}
}

func moduleFile(name, number string) string {
	return "modules/" + version{name: name, version: number}.digest()[7:] + "/module.json"
}

func write(st *store.Store, name, text string) error {
	return os.WriteFile(filepath.Join(st.Path(), name), []byte(text), 0o600)
}

// TestCollectDamage: what is damaged and nobody needs goes, and is no reason to keep the rest.
func TestCollectDamage(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 8)
	st := openStore(t, dir, store.Options{})
	err := errors.Join(write(st, "generations/2.json", "x"), write(st, moduleFile("app", "3"), "x"), write(st, "generations/4.trial", "x"),
		write(st, "generations/5.pin", "x"), st.RemoveModule(version{name: "app", version: "6"}.digest()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Collect(t.Context(), st, Options{Now: today})
	if err != nil {
		t.Fatal(err)
	}
	if got := numbersIn(t, st); !slices.Equal(got, []uint64{5, 6, 7, 8}) {
		t.Errorf("left: %v", got)
	}
	if !slices.Contains(r.Modules, GoneModule{ManifestDigest: version{name: "app", version: "3"}.digest()}) {
		t.Errorf("modules %+v", r.Modules)
	}
	all := strings.Join(r.Remarks, "\n")
	for _, word := range []string{"2.json is damaged", "4.trial is damaged", "5.pin is damaged", "module app 6 is part of a generation that is kept, and isn't here"} {
		if !strings.Contains(all, word) {
			t.Errorf("no remark says %q:\n%s", word, all)
		}
	}
	data, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(data), `"generations":[{"generation":1,"reasons":["good, nothing names it, and 7 are newer"]}`) {
		t.Errorf("%s, %v", data, err)
	}
}

// TestCollectStops: a context that ends ends it, and the next goes on.
func TestCollectStops(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 8)
	st := openStore(t, dir, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Collect(ctx, st, Options{Now: today})
	if !errors.Is(err, context.Canceled) || len(r.Generations) != 5 || r.FreedBytes == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	whole(t, st)
	if r, err := Collect(t.Context(), st, Options{Now: today}); err != nil || r.Objects.Count != 20 {
		t.Errorf("%+v, %v", r, err)
	}
	whole(t, st)
}

// TestCollectUppersFail: an error of the writable layers is told, with what went before.
func TestCollectUppersFail(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 8)
	st := openStore(t, dir, store.Options{})
	sick := errors.New("the disk is sick")
	o := Options{Now: today, Uppers: func(context.Context, map[fsverity.Digest]struct{}, bool) (Amount, error) { return Amount{}, sick }}
	if _, err := Plan(t.Context(), st, o); !errors.Is(err, sick) {
		t.Errorf("%v", err)
	}
	if r, err := Collect(t.Context(), st, o); !errors.Is(err, sick) || len(r.Generations) != 5 || r.FreedBytes == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestKeepsWhatALiveChangeGoesBackTo: a change that waits to be confirmed is taken back to what ran before it, which no pointer
// names where that went live, too, and which isn't among the newest where attempts between them failed.
func TestKeepsWhatALiveChangeGoesBackTo(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 7)
	st := openStore(t, dir, store.Options{})
	goLive := func(n, from uint64) error {
		return errors.Join(st.EndTrial(n), st.PutLive(store.Live{Generation: n, From: from, At: noon}))
	}
	err := errors.Join(goLive(3, 2), goLive(7, 3), st.SetPointer(store.Previous, 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(t.Context(), st, Options{Now: today, Running: 7}); err != nil {
		t.Fatal(err)
	}
	if got := numbersIn(t, st); !slices.Equal(got, []uint64{2, 3, 5, 6, 7}) {
		t.Errorf("left: %v", got)
	}
	whole(t, st)
}

// TestCollectBesideADamagedRecordOfWhatIsMounted: a service goes on in a root whose generation can't be read any more.
func TestCollectBesideADamagedRecordOfWhatIsMounted(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 6)
	st := openStore(t, dir, store.Options{})
	g, err := st.Generation(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "generations", "2.json"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mounted := map[fsverity.Digest]struct{}{g.RootDigest: {}}
	before := listing(t, dir)
	if r, err := Collect(t.Context(), st, Options{Now: today, Running: 6, Mounted: mounted}); fault.KindOf(err) != fault.Broken {
		t.Errorf("%+v, %v", r, err)
	}
	if after := listing(t, dir); len(after) != len(before) {
		t.Errorf("%d of %d files are left", len(after), len(before))
	}
	// Where nothing is damaged, such a root is of another store.
	if r, err := Collect(t.Context(), st, Options{Now: today, Running: 6}); err != nil || len(r.Generations) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Collect(t.Context(), st, Options{Now: today, Running: 6, Mounted: mounted}); err != nil {
		t.Error(err)
	}
}
