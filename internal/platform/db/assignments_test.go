package db

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// TestAllAssigned: what all nodes have is what each has, in the same order, and asked for at once however many they are.
func TestAllAssigned(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	var modules []Module
	for i, category := range []int{10, 30, 20, 30} {
		modules = append(modules, first(d.Register(ctx, Module{
			Name: fmt.Sprint("m-", i), Variety: "config", CategoryPosition: category, Version: "1", Repository: "r", Digest: fmt.Sprint(i),
			Images: []Image{{Architecture: "amd64", Seal: fsverity.Digest{1}}, {Architecture: "arm64", Seal: fsverity.Digest{2}}},
		})))
	}
	var nodes []string
	for i := range 32 {
		n := first(d.CreateNode(ctx, fmt.Sprint("n-", i), "amd64"))
		nodes = append(nodes, n.ID)
		for bit, m := range modules {
			if i&(1<<bit) != 0 {
				check(t, d.Assign(ctx, n.ID, m, nil))
			}
		}
	}
	var heard []asked
	was := d.read.dialect
	d.read.dialect = listening{was, &heard}
	all := first(d.AllAssigned(ctx))
	if d.read.dialect = was; len(heard) != 2 {
		t.Errorf("it asked %d times", len(heard))
	}
	sets := map[*ModuleSet]int{}
	for _, id := range nodes {
		want := first(d.Assigned(ctx, id))
		set := all[id]
		if set == nil {
			set = &ModuleSet{Modules: []Module{}}
		} else {
			sets[set]++
		}
		if diff := cmp.Diff(want, set.Modules); diff != "" {
			t.Error(diff)
		}
	}
	if len(all) != 30 || len(sets) != 15 {
		t.Errorf("%d nodes, %d sets", len(all), len(sets))
	}
}
