package rootfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

func rootNo(n int) fsverity.Digest { return fsverity.SumBytes(fmt.Append(nil, "root ", n)) }

// TestLiveLayerRecord goes through many live changes of two layers, some taken back: the record always says what a model of
// it says, and is bounded.
func TestLiveLayerRecord(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var layers []*LiveLayer
	for n := range 2 {
		upper := filepath.Join(dir, uppersName, rootNo(n).String()+".checked", upperName)
		must(t, os.MkdirAll(upper, 0o700))
		f, err := os.Open(upper)
		must(t, err)
		defer f.Close()
		l, err := LiveLayerOf(dir, f, nil)
		must(t, err)
		layers = append(layers, l)
	}
	owner := map[int]int{0: 0, 1: 1} // the layer that a root's boots use
	over := []int{0, 1}
	read := func() keptLayers {
		d, err := durable.OpenDir(filepath.Join(dir, uppersName), nil)
		must(t, err)
		defer d.Close()
		all, err := readLayers(d)
		must(t, err)
		return all
	}
	for range 400 {
		which, to := random.IntN(2), random.IntN(40)
		from, l := over[which], layers[which]
		must(t, l.Begin(rootNo(from), rootNo(to)))
		switch back := random.IntN(4); back {
		case 0: // before it was done
			must(t, l.Back(rootNo(from), rootNo(to)))
		case 1:
			must(t, l.Done(rootNo(to)))
			must(t, l.Back(rootNo(from), rootNo(to)))
		default:
			must(t, l.Done(rootNo(to)))
			owner[to], over[which] = which, to
		}
		all := read()
		got := all.named(l.name)
		if got.damaged != nil || got.record.Over != rootNo(over[which]) || to != over[which] && !slices.Contains(got.record.Also, rootNo(to)) {
			t.Fatalf("from %d to %d: %+v", from, to, got)
		}
		if len(got.record.Also) > alsoMax || slices.Contains(got.record.Also, got.record.Over) {
			t.Fatalf("%d other roots", len(got.record.Also))
		}
		for root := range 40 {
			used := all.of(rootNo(root), mount.Checked)
			want, ok := owner[root]
			if ok != (used != nil) || ok && used.name != layers[want].name {
				t.Fatalf("root %d uses %+v, want layer %d", root, used, want)
			}
		}
	}
	for n := range rootsMax + 10 {
		must(t, layers[0].Begin(rootNo(n), rootNo(n+1000)))
		must(t, layers[0].Done(rootNo(n+1000)))
	}
	if got := read().named(layers[0].name).record; len(got.Roots) != rootsMax {
		t.Errorf("%d roots", len(got.Roots))
	}
}

// TestLiveLayerElsewhere: of one in memory nothing is written down.
func TestLiveLayerElsewhere(t *testing.T) {
	dir := t.TempDir()
	upper := filepath.Join(dir, "run", rootNo(1).String()+".checked", upperName)
	same := filepath.Join(dir, uppersName, rootNo(1).String()+".checked", upperName)
	for _, path := range []string{upper, same} {
		must(t, os.MkdirAll(path, 0o700))
	}
	f, err := os.Open(upper)
	must(t, err)
	defer f.Close()
	l, err := LiveLayerOf(dir, f, nil)
	if l != nil || err != nil {
		t.Fatalf("%+v, %v", l, err)
	}
	must(t, l.Begin(rootNo(1), rootNo(2)))
	must(t, l.Done(rootNo(2)))
	must(t, l.Back(rootNo(1), rootNo(2)))
	if names, err := os.ReadDir(filepath.Dir(same)); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

// FuzzReadLayer reads any record under any name: it is for nothing, or for what it says.
func FuzzReadLayer(f *testing.F) {
	name := rootNo(1).String() + ".checked"
	f.Add(name, []byte(`{"over":"`+rootNo(2).String()+`","also":[],"roots":[{"root_digest":"`+rootNo(1).String()+`","turn":3}]}`))
	f.Add(name+".2", []byte(`{"over":""}`))
	f.Add(name, []byte(`{`))
	f.Add("x.y", []byte(nil))
	f.Fuzz(func(t *testing.T, name string, record []byte) {
		dir := t.TempDir()
		if filepath.Base(name) != name || os.Mkdir(filepath.Join(dir, name), 0o700) != nil {
			return
		}
		must(t, os.WriteFile(filepath.Join(dir, name, layerRecordName), record, 0o600))
		d, err := durable.OpenDir(dir, nil)
		must(t, err)
		defer d.Close()
		all, err := readLayers(d)
		must(t, err)
		for _, l := range all {
			if l.damaged == nil && l.record.Over.IsZero() || l.damaged != nil && len(l.record.Roots) > 0 && !l.record.Over.IsZero() {
				t.Errorf("%+v", l)
			}
			fresh := all.fresh(l.record.Over, l.level)
			if fresh.name == l.name || all.of(rootNo(9), l.level) != nil && len(l.record.Roots) == 0 {
				t.Errorf("%+v, %+v", l, fresh)
			}
		}
	})
}
