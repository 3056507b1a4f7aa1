package retain

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// contents returns data of its own of a size.
func contents(name string, size int) []byte {
	data := []byte(strings.Repeat(name+"\n", size/(len(name)+1)+1))
	return data[:size]
}

// commit writes an object.
func commit(st *store.Store, data []byte) error {
	w, err := st.NewObject(int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return err
	}
	_, _, err = w.Commit()
	return err
}

// version is one version of a module: two objects of its own and one that all share.
type version struct {
	name, version string
	size          int
}

func (v version) parts() [][]byte {
	size := max(v.size, 6000)
	return [][]byte{contents(v.String()+" a", size), contents(v.String()+" b", 9000), contents("shared", 5000)}
}

func (v version) String() string { return v.name + " " + v.version }

func (v version) manifest() []byte { return fmt.Appendf(nil, `{"module":%q}`, v) }

func (v version) digest() string { return fmt.Sprintf("sha256:%x", sha256.Sum256(v.manifest())) }

func (v version) image() []byte { return contents(v.String()+" image", 5000) }

func (v version) record() store.Module {
	m := store.Module{
		Name: v.name, Version: v.version, Repository: "example.org/" + v.name, ManifestDigest: v.digest(), Manifest: v.manifest(), Config: []byte("{}"),
		Seal: fsverity.SumBytes(v.image()), PulledAt: noon,
		Layers: []store.Layer{{MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(v.String()))), Size: 1 << 20}},
	}
	for _, p := range v.parts() {
		m.Objects = append(m.Objects, fsverity.SumBytes(p))
	}
	return m
}

// pull does what a pull does.
func (v version) pull(st *store.Store) error {
	for _, p := range v.parts() {
		if err := commit(st, p); err != nil {
			return err
		}
	}
	return st.PutModule(v.record(), bytes.NewReader(v.image()))
}

// generate stores a generation of these modules.
func generate(st *store.Store, modules ...version) (uint64, error) {
	var names []string
	g := store.Generation{Created: noon, Cause: "test", Level: "checked"}
	for i, v := range modules {
		names = append(names, v.String())
		g.Modules = append(g.Modules, store.GenerationModule{
			ID: v.name, Name: v.name, Version: v.version, ManifestDigest: v.digest(), Seal: fsverity.SumBytes(v.image()), EffectivePriority: 1000 + i,
		})
	}
	root := contents("root of "+strings.Join(names, ", "), 7000)
	g.RootDigest = fsverity.SumBytes(root)
	return st.PutGeneration(g, bytes.NewReader(root))
}

func openStore(t testing.TB, dir string, o store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// history makes a store with count generations, each with its own version of module app and all with the same base. The
// last is current, the one before it previous.
func history(t testing.TB, dir string, count int) {
	t.Helper()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	base := version{name: "base", version: "1"}
	if err := base.pull(st); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		app := version{name: "app", version: fmt.Sprint(i + 1)}
		err := app.pull(st)
		var n uint64
		if err == nil {
			n, err = generate(st, base, app)
		}
		if err == nil {
			err = st.Pass(n, noon.Add(time.Duration(n)*time.Hour), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// whole fails the test unless every generation that is here is whole, with its modules and their objects, and
// every pointer names one.
func whole(t testing.TB, st *store.Store) {
	t.Helper()
	generations, err := st.Generations()
	if err != nil {
		t.Error(err)
	}
	numbers := make(map[uint64]bool)
	for _, g := range generations {
		numbers[g.Number] = true
		if err := present(t.Context(), st, g); err != nil {
			t.Errorf("generation %d: %v", g.Number, err)
		}
	}
	modules, err := st.ListModules()
	if err != nil {
		t.Error(err)
	}
	for _, m := range modules {
		objects, err := st.ModuleObjects(m)
		if err == nil {
			_, err = st.VerifyObjects(t.Context(), objects)
		}
		if err != nil {
			t.Errorf("module %s %s: %v", m.Name, m.Version, err)
		}
	}
	for _, name := range []store.PointerName{store.Current, store.Previous, store.Staged} {
		if n, err := st.Pointer(name); err != nil || n != 0 && !numbers[n] {
			t.Errorf("%s is %d, %v", name, n, err)
		}
	}
}

func numbersIn(t testing.TB, st *store.Store) []uint64 {
	t.Helper()
	numbers, err := st.Numbers()
	if err != nil {
		t.Fatal(err)
	}
	return numbers
}
