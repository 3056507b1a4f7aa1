package retain

import (
	"fmt"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// longHistory makes a store with so many generations, each with a module of its own of so many objects.
func longHistory(b *testing.B, generations, objects int) *store.Store {
	b.Helper()
	st := openStore(b, b.TempDir(), store.Options{})
	for g := range generations {
		app := version{name: "app", version: fmt.Sprint(g + 1)}
		m := app.record()
		err := app.pull(st)
		for i := 0; err == nil && i < objects; i++ {
			data := contents(fmt.Sprint(app, " file ", i), 5000)
			err = commit(st, data)
			m.Objects = append(m.Objects, fsverity.SumBytes(data))
		}
		if err == nil {
			err = st.PutModule(m, nil)
		}
		if err == nil {
			var n uint64
			if n, err = generate(st, app); err == nil {
				err = st.Pass(n, noon, nil)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return st
}

// BenchmarkPlan looks what would go of 20 generations with 2,000 objects each.
func BenchmarkPlan(b *testing.B) {
	st := longHistory(b, 20, 2000)
	for b.Loop() {
		r, err := Plan(b.Context(), st, Options{Now: today})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Objects.Count), "objects")
	}
}

// BenchmarkCollect removes 17 of 20 generations with 2,000 objects each.
func BenchmarkCollect(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		st := longHistory(b, 20, 2000)
		b.StartTimer()
		r, err := Collect(b.Context(), st, Options{Now: today})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Objects.Count), "objects")
	}
}

// BenchmarkMountedRoots looks at the mount tables of this machine.
func BenchmarkMountedRoots(b *testing.B) {
	for b.Loop() {
		if _, err := MountedRoots("/proc"); err != nil {
			b.Fatal(err)
		}
	}
}
