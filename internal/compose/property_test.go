package compose

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// drawTree draws a small tree with names that collide often. Without links it has no symlinks
// and no hard links.
func drawTree(t *rapid.T, links bool) *tree.Node {
	var files []*tree.Node
	names := []string{"a", "b", "c", "usr"}
	var dir func(depth int) *tree.Node
	dir = func(depth int) *tree.Node {
		d := tree.NewDir(rapid.SampledFrom([]uint16{0o755, 0o700}).Draw(t, "mode"))
		d.Mtime.Sec = int64(rapid.IntRange(0, 2).Draw(t, "time"))
		for _, name := range names {
			switch rapid.IntRange(0, 6).Draw(t, "kind") {
			case 0, 1:
				if depth < 3 {
					d.SetChild(name, dir(depth+1))
				}
			case 2:
				if links {
					target := rapid.SampledFrom([]string{"a", "../b", "/c", "/usr/a", "b/c", "..", ".", "/a/../b", "gone"}).Draw(t, "target")
					d.SetChild(name, &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target})
				}
			case 3:
				if links && len(files) > 0 {
					d.SetChild(name, rapid.SampledFrom(files).Draw(t, "link"))
				}
			case 4:
				text := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "content")
				f := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 1, Inline: []byte(text)}
				files = append(files, f)
				d.SetChild(name, f)
			}
		}
		return d
	}
	return dir(0)
}

func drawInputs(t *rapid.T, links, specs bool) []Input {
	n := rapid.IntRange(1, 5).Draw(t, "modules")
	var inputs []Input
	for i := range n {
		in := Input{
			Name: fmt.Sprintf("m%d", i), EffectivePriority: rapid.IntRange(0, 3).Draw(t, "priority"), Root: drawTree(t, links),
		}
		if specs {
			glob := rapid.SampledFrom([]string{"/a", "/b/**", "c", "/usr/*/a", "/**/b/"})
			in.Mask = rapid.SliceOfN(glob, 0, 2).Draw(t, "mask")
			if rapid.IntRange(0, 4).Draw(t, "protects") == 0 {
				in.Protected = rapid.SliceOfN(glob, 0, 1).Draw(t, "protected")
			}
		}
		inputs = append(inputs, in)
	}
	return inputs
}

// Any order of the inputs gives the same tree, report or error, and leaves the inputs alone.
func TestOrderOfArrival(t *testing.T) {
	composed := 0
	rapid.Check(t, func(t *rapid.T) {
		inputs := drawInputs(t, true, true)
		var before [][]string
		for _, in := range inputs {
			before = append(before, describe(in.Root))
		}
		one, err1 := Compose(inputs)
		two, err2 := Compose(rapid.Permutation(inputs).Draw(t, "order"))
		for i, in := range inputs {
			if diff := cmp.Diff(before[i], describe(in.Root)); diff != "" {
				t.Fatalf("the input %s changed: %s", in.Name, diff)
			}
		}
		if (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Fatalf("%v, but in another order %v", err1, err2)
		}
		if err1 != nil {
			return
		}
		composed++
		if diff := cmp.Diff(describe(one.Root), describe(two.Root)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(one.Report, two.Report); diff != "" {
			t.Fatal(diff)
		}
	})
	if composed == 0 {
		t.Error("nothing was ever composed")
	}
}

// Each file of the result is one that its owner has, and what is shared with an input is shared with the owner. The inputs stay as
// they are.
func TestOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := drawInputs(t, true, true)
		before := make([][]string, len(inputs))
		for i, in := range inputs {
			before[i] = describe(in.Root)
		}
		r, err := Compose(inputs)
		for i, in := range inputs {
			if !slices.Equal(before[i], describe(in.Root)) {
				t.Fatalf("the input %s was changed", in.Name)
			}
		}
		if err != nil {
			return
		}
		theirs := make(map[*tree.Node]string)
		byName := make(map[string][]*tree.Node)
		for _, in := range inputs {
			for _, n := range in.Root.Walk() {
				theirs[n] = in.Name
				byName[in.Name] = append(byName[in.Name], n)
			}
		}
		for path, n := range r.Root.Walk() {
			owner, ok := r.Owner(path)
			if !ok {
				t.Fatalf("%s has no owner", path)
			}
			if of, shared := theirs[n]; shared && of != owner {
				t.Fatalf("%s is a node of %s, and belongs to %s", path, of, owner)
			}
			has := slices.ContainsFunc(byName[owner], func(o *tree.Node) bool {
				return o.Kind == n.Kind && (path == "" || sameAttributes(o, n)) && (n.Kind == tree.Directory || sameContent(o, n))
			})
			if !has {
				t.Fatalf("%s is not what %s has", path, owner)
			}
		}
	})
}

// What is shared with the inputs makes no difference to the result: with copies of everything it is the same.
func TestSharing(t *testing.T) {
	shared := 0
	rapid.Check(t, func(t *rapid.T) {
		inputs := drawInputs(t, true, true)
		got, err := Compose(inputs)
		c, newErr := newComposer(inputs)
		if newErr != nil {
			t.Fatal(newErr)
		}
		for i := range c.layers {
			c.layers[i].twice = true
		}
		want, wantErr := c.compose()
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%v, with copies %v", err, wantErr)
		}
		if err != nil {
			return
		}
		if !slices.Equal(describe(got.Root), describe(want.Root)) || !reflect.DeepEqual(got.Report, want.Report) {
			t.Fatalf("got\n%s\n%+v\nwith copies\n%s\n%+v", strings.Join(describe(got.Root), "\n"), got.Report, strings.Join(describe(want.Root), "\n"), want.Report)
		}
		if a, b := imageOf(t, got.Root), imageOf(t, want.Root); a != b {
			t.Fatalf("the image is %s, with copies %s", a, b)
		}
		for path, n := range got.Root.Walk() {
			a, _ := got.Owner(path)
			if b, _ := want.Owner(path); a != b {
				t.Fatalf("%s belongs to %s, with copies to %s", path, a, b)
			}
			if n.Kind == tree.Directory && slices.ContainsFunc(inputs, func(in Input) bool { return in.Root.Lookup(path) == n }) {
				shared++
			}
		}
	})
	if shared == 0 {
		t.Error("nothing was ever shared")
	}
}

func imageOf(t *rapid.T, root *tree.Node) string {
	digest, err := composefs.Digest(root, composefs.V1)
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// paint is composition by overlay, from the bottom up: the definition, where there are neither
// links nor specs.
func paint(inputs []Input) *tree.Node {
	sorted := slices.Clone(inputs)
	slices.SortFunc(sorted, func(a, b Input) int {
		if a.EffectivePriority != b.EffectivePriority {
			return a.EffectivePriority - b.EffectivePriority
		}
		return strings.Compare(b.Name, a.Name)
	})
	var over func(below, above *tree.Node) *tree.Node
	over = func(below, above *tree.Node) *tree.Node {
		if below == nil || below.Kind != tree.Directory || above.Kind != tree.Directory {
			return above.Clone()
		}
		d := (&composer{}).attributes(above)
		for name, n := range below.Entries() {
			d.SetChild(name, n)
		}
		for name, n := range above.Entries() {
			d.SetChild(name, over(d.Child(name), n))
		}
		return d
	}
	root := sorted[0].Root
	for _, in := range sorted[1:] {
		root = over(root, in.Root)
	}
	root = root.Clone()
	if usr := root.Child("usr"); usr != nil && usr.Kind == tree.Directory {
		root.Mode, root.Mtime = usr.Mode, usr.Mtime
	}
	return root
}

func TestAgreesWithOverlay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := drawInputs(t, false, false)
		r, err := Compose(inputs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(describe(paint(inputs)), describe(r.Root)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Where no module has a directory against something else, neighbours may be composed first.
func TestAssociative(t *testing.T) {
	checked := 0
	rapid.Check(t, func(t *rapid.T) {
		inputs := layers(drawTree(t, false), drawTree(t, false), drawTree(t, false))
		all, err := Compose(inputs)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(all.Report.Conflicts, func(c Conflict) bool { return c.Difference == DifferentKind }) {
			return
		}
		checked++
		for i := range 2 {
			pair, err := Compose(inputs[i : i+2])
			if err != nil {
				t.Fatal(err)
			}
			rest := append(slices.Clone(inputs[:i]), inputs[i+2:]...)
			two, err := Compose(append(rest, Input{Name: inputs[i].Name, EffectivePriority: inputs[i].EffectivePriority, Root: pair.Root}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(describe(all.Root), describe(two.Root)); diff != "" {
				t.Fatalf("pair %d: %s", i, diff)
			}
		}
	})
	if checked == 0 {
		t.Error("no case without a directory against a file came up")
	}
}

// Composing a result alone changes nothing.
func TestIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := Compose(drawInputs(t, true, false))
		if err != nil {
			var p *ProtectedError
			if errors.As(err, &p) {
				t.Fatal(err)
			}
			return
		}
		again, err := Compose([]Input{{Name: "all", Root: r.Root}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(describe(r.Root), describe(again.Root)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// bigInputs makes modules of files each, spread over directories of 40; every tenth file is in
// all of them.
func bigInputs(modules, files int) []Input {
	var inputs []Input
	for m := range modules {
		root := tree.NewDir(0o755)
		usr := tree.NewDir(0o755)
		root.SetChild("usr", usr)
		for i := range files {
			dirName, name := fmt.Sprintf("d%05d", i/40), fmt.Sprintf("file-%06d-%03d", i, m)
			if i%10 == 0 {
				name = fmt.Sprintf("file-%06d", i)
			}
			d := usr.Child(dirName)
			if d == nil {
				d = tree.NewDir(0o755)
				usr.SetChild(dirName, d)
			}
			d.SetChild(name, &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 1000, Digest: fsverity.Digest{byte(m), byte(i), byte(i >> 8), byte(i >> 16), 1}})
		}
		inputs = append(inputs, Input{
			Name: fmt.Sprintf("module-%03d", m), EffectivePriority: m, Root: root,
			Mask: []string{"/var/log/**", "*.pyc"}, Protected: []string{fmt.Sprintf("/opt/module-%03d", m)},
		})
	}
	return inputs
}

func benchmark(b *testing.B, modules, files int) {
	inputs := bigInputs(modules, files)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compose(inputs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompose50x1000(b *testing.B)  { benchmark(b, 50, 1000) }
func BenchmarkCompose10x40000(b *testing.B) { benchmark(b, 10, 40000) }
