package ociimage

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestCanonical(t *testing.T) {
	root := tree.NewDir(0o700)
	root.UID, root.Mtime = 7, tree.Time{Sec: 9}
	root.SetXattr("user.root", []byte("x"))
	usr := tree.NewDir(0o751)
	usr.UID, usr.GID, usr.Mtime = 1, 2, tree.Time{Sec: -4, Nsec: 5}
	usr.SetXattr("user.usr", []byte("y"))
	run := tree.NewDir(0o1777)
	run.GID, run.Mtime = 3, tree.Time{Sec: 11}
	run.SetXattr("user.run", []byte("z"))
	pid := &tree.Node{Kind: tree.Regular}
	run.SetChild("pid", pid)
	etc := tree.NewDir(0o755)
	etc.SetChild("pid", pid)
	root.SetChild("usr", usr)
	root.SetChild("run", run)
	root.SetChild("etc", etc)
	before := root.Clone()

	got, err := Canonical(root)
	if err != nil {
		t.Fatal(err)
	}
	unexported := cmp.Exporter(func(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[tree.Node]().PkgPath() })
	if diff := cmp.Diff(before, root, unexported); diff != "" {
		t.Errorf("the tree itself was changed:\n%s", diff)
	}
	want := before.Clone()
	want.Mode, want.UID, want.GID, want.Mtime, want.Xattrs = 0o751, 1, 2, usr.Mtime, usr.Xattrs
	want.SetChild("run", &tree.Node{Kind: tree.Directory, Mode: 0o1777, GID: 3, Mtime: usr.Mtime, Xattrs: run.Xattrs})
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Errorf("canonical tree (-want +got):\n%s", diff)
	}
	again, err := Canonical(got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again, unexported); diff != "" {
		t.Errorf("canonical again:\n%s", diff)
	}
	if got := BeyondSealingSpec(root); !slices.Equal(got, []string{"user.root", "user.run", "user.usr"}) {
		t.Errorf("attributes beyond the specification: %q", got)
	}
}

func TestWhatCannotBeSealed(t *testing.T) {
	symlink := &tree.Node{Kind: tree.Symlink, Target: "x"}
	for name, change := range map[string]func(root *tree.Node){
		"no usr":      func(root *tree.Node) { root.RemoveChild("usr") },
		"usr symlink": func(root *tree.Node) { root.SetChild("usr", symlink) },
		"run symlink": func(root *tree.Node) { root.SetChild("run", symlink) },
	} {
		root := tree.NewDir(0o755)
		root.SetChild("usr", tree.NewDir(0o755))
		change(root)
		if _, err := Seal(root); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSealDoesNotDependOnTheSplit builds one tree of layers cut at random, with things on the way
// that later layers hide, and seals it.
func TestSealDoesNotDependOnTheSplit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		dirs := []string{"usr/", "usr/lib/", "usr/lib/d/", "etc/", "run/"}
		var final []tarEntry
		for _, d := range dirs {
			final = append(final, tarEntry{d, ""})
		}
		n := rapid.IntRange(1, 12).Draw(rt, "files")
		for i := range n {
			dir := rapid.SampledFrom(dirs).Draw(rt, "dir")
			final = append(final, tarEntry{fmt.Sprintf("%sfile%d", dir, i), rapid.StringN(0, 120, 200).Draw(rt, "body")})
		}
		whole := treeOf(t, m, final...)
		want, err := Seal(whole)
		if err != nil {
			rt.Fatal(err)
		}
		// A first layer of other things under the same names, then the final ones in pieces.
		var layers []*layer.Layer
		add := func(entries ...tarEntry) {
			l, err := layer.NewReader(m, layer.DefaultLimits()).ReadTar(context.Background(), bytes.NewReader(tarOf(t, entries...)))
			if err != nil {
				rt.Fatal(err)
			}
			layers = append(layers, l)
		}
		var old, hide []tarEntry
		for _, e := range final[len(dirs):] {
			if rapid.Bool().Draw(rt, "older") {
				old = append(old, tarEntry{e.name, "older"})
			}
		}
		old = append(old, tarEntry{"usr/lib/d/gone", "x"}, tarEntry{"opt/gone/deep", "x"}, tarEntry{"etc/gone/", ""})
		hide = append(hide, tarEntry{"usr/lib/d/.wh.gone", ""}, tarEntry{".wh.opt", ""}, tarEntry{"etc/.wh.gone", ""})
		add(old...)
		add(hide...)
		rest := final
		for len(rest) > 0 {
			k := rapid.IntRange(1, len(rest)).Draw(rt, "piece")
			add(rest[:k]...)
			rest = rest[k:]
		}
		add(tarEntry{"./", ""}, tarEntry{"run/left-behind", "by the build"})
		root, err := layer.Merge(layers...)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := Seal(root)
		if err != nil {
			rt.Fatal(err)
		}
		if got != want {
			rt.Fatalf("in %d layers the seal is %s, in one %s", len(layers), got, want)
		}
	})
}

// TestSealVector pins the seal of a small tree, so that a change of bytes is a decision.
func TestSealVector(t *testing.T) {
	m := newMemory()
	root := treeOf(t, m, tarEntry{"usr/", ""}, tarEntry{"usr/lib/", ""}, tarEntry{"usr/lib/os-release", "ID=test\n"},
		tarEntry{"usr/lib/big", strings.Repeat("0123456789abcdef", 64)}, tarEntry{"run/", ""}, tarEntry{"run/x", "gone"})
	seal, err := Seal(root)
	if err != nil {
		t.Fatal(err)
	}
	const want = "b105a61fb43d03c2c4c66e99917fd607aba50418a9d25101d1d892b892d248b7"
	if seal.String() != want {
		t.Errorf("seal is %s, want %s", seal, want)
	}
}
