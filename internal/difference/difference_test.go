package difference

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/tree"
)

// drawTree draws a small tree in which names, contents, attributes and hard links collide often.
func drawTree(t *rapid.T) *tree.Node {
	var files []*tree.Node
	var dir func(depth int) *tree.Node
	dir = func(depth int) *tree.Node {
		d := tree.NewDir(rapid.SampledFrom([]uint16{0o755, 0o700}).Draw(t, "mode"))
		d.Mtime.Sec = int64(rapid.IntRange(0, 1).Draw(t, "time"))
		for _, name := range []string{"a", "a-b", "b"} {
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0, 1:
				if depth < 3 {
					d.SetChild(name, dir(depth+1))
				}
			case 2:
				d.SetChild(name, &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "target")})
			case 3:
				if len(files) > 0 {
					d.SetChild(name, rapid.SampledFrom(files).Draw(t, "link"))
				}
			case 4:
				f := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 1, Inline: []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "content"))}
				if rapid.Bool().Draw(t, "xattr") {
					f.SetXattr("user.a", []byte("v"))
				}
				files = append(files, f)
				d.SetChild(name, f)
			}
		}
		return d
	}
	return dir(0)
}

// describe tells everything about a tree but for the attributes of its root; a file is known by its first name.
func describe(root *tree.Node) []string {
	first := make(map[*tree.Node]string)
	var lines []string
	for path, n := range root.Walk() {
		if path == "" {
			continue
		}
		if n.Kind != tree.Directory {
			if name, ok := first[n]; ok {
				lines = append(lines, path+" is "+name)
				continue
			}
			first[n] = path
		}
		lines = append(lines, fmt.Sprint(path, " ", n.Kind, " ", n.Mode, " ", n.Mtime, " ", n.Xattrs, " ", string(n.Inline), " ", n.Target))
	}
	return lines
}

// apply changes what the difference lists, in a copy of from. A file of to that stays where it is, and to which one of
// the entries is linked, is found by its unchanged name.
func apply(d *Difference, from, to *tree.Node) *tree.Node {
	root := from.Clone()
	inPlace := make(map[*tree.Node]*tree.Node)
	for path, n := range to.Walk() {
		if _, differs := d.Entry("/" + path); !differs && n.Kind != tree.Directory {
			inPlace[n] = root.Lookup(path)
		}
	}
	for _, e := range d.Entries {
		i := strings.LastIndexByte(e.Path, '/')
		parent, name := root.Lookup(e.Path[:i]), e.Path[i+1:]
		if e.Kind == Removed {
			if parent != nil {
				parent.RemoveChild(name)
			}
			continue
		}
		n := inPlace[e.To]
		if n == nil {
			c := *e.To
			if e.To.Kind == tree.Directory {
				c = tree.Node{Kind: tree.Directory, Mode: c.Mode, Mtime: c.Mtime, Xattrs: c.Xattrs}
				if old := parent.Child(name); old != nil && old.Kind == tree.Directory {
					for below, child := range old.Entries() {
						c.SetChild(below, child)
					}
				}
			} else {
				inPlace[e.To] = &c
			}
			n = &c
		}
		parent.SetChild(name, n)
	}
	return root
}

func TestApplyingTheDifferenceGivesTheOtherTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := drawTree(t), drawTree(t)
		if rapid.Bool().Draw(t, "alike") {
			to = from.Clone()
			if sub := to.Child("a"); sub != nil && to.Child("b") != nil {
				to.SetChild("b", sub)
			}
		}
		d := Compare(from, to)
		if diff := cmp.Diff(describe(to), describe(apply(d, from, to))); diff != "" {
			t.Fatal(diff)
		}
		if (d.Root != Nothing) != (from.Mode != to.Mode || from.Mtime != to.Mtime) {
			t.Fatalf("root: %s", d.Root)
		}
		if again := Compare(from, to); !cmp.Equal(paths(d.Entries), paths(again.Entries)) {
			t.Fatalf("%v, then %v", paths(d.Entries), paths(again.Entries))
		}
		var total Counts
		for _, top := range d.Top {
			total.Added += top.Added
			total.Changed += top.Changed
			total.Removed += top.Removed
		}
		if total != d.Counts || d.Total() != len(d.Entries) {
			t.Fatalf("%+v in the root's names, %+v in all, %d entries", total, d.Counts, len(d.Entries))
		}
	})
}

// TestLinksAlone: two names of one file in one tree, and of two equal files in the other.
func TestLinksAlone(t *testing.T) {
	file := func() *tree.Node { return &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 1, Inline: []byte("x")} }
	apart, linked := tree.NewDir(0o755), tree.NewDir(0o755)
	apart.SetChild("a", file())
	apart.SetChild("b", file())
	one := file()
	linked.SetChild("a", one)
	linked.SetChild("b", one)
	for _, c := range [][2]*tree.Node{{apart, linked}, {linked, apart}} {
		d := Compare(c[0], c[1])
		if len(d.Entries) == 0 {
			t.Fatal("no difference")
		}
		for _, e := range d.Entries {
			if e.What != Links {
				t.Errorf("%s: %s", e.Path, e.What)
			}
		}
		if diff := cmp.Diff(describe(c[1]), describe(apply(d, c[0], c[1]))); diff != "" {
			t.Error(diff)
		}
	}
}

func TestEqualTreesDifferInNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := drawTree(t)
		if d := Compare(from, from.Clone()); !d.Empty() || len(d.Top) > 0 {
			t.Fatalf("%v", paths(d.Entries))
		}
	})
}

func paths(entries []Entry) []string {
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Kind.String() + " " + e.Path + " " + e.What.String()
	}
	return list
}

func file(text string) *tree.Node {
	return &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text)), Inline: []byte(text)}
}

func dir(children map[string]*tree.Node) *tree.Node {
	d := tree.NewDir(0o755)
	for name, n := range children {
		d.SetChild(name, n)
	}
	return d
}

func TestNamesInTheRoot(t *testing.T) {
	from := dir(map[string]*tree.Node{
		"usr": dir(map[string]*tree.Node{"bin": dir(map[string]*tree.Node{"a": file("1"), "b": file("1")})}),
		"etc": dir(map[string]*tree.Node{"x": file("1")}), "same": dir(map[string]*tree.Node{"x": file("1")}),
		"bin": {Kind: tree.Symlink, Target: "usr/bin"}, "gone": file("1"), "turned": dir(map[string]*tree.Node{"x": file("1")}),
	})
	to := from.Clone()
	to.Mode = 0o700
	to.Child("usr").Child("bin").SetChild("a", file("2"))
	to.Child("usr").Child("bin").RemoveChild("b")
	to.Child("etc").Mode = 0o700
	to.SetChild("bin", &tree.Node{Kind: tree.Symlink, Target: "bin2"})
	to.SetChild("opt", dir(map[string]*tree.Node{"y": file("1")}))
	to.SetChild("turned", file("1"))
	to.RemoveChild("gone")
	d := Compare(from, to)
	want := []string{
		"changed /bin content", "changed /etc attributes", "removed /gone ", "added /opt ", "added /opt/y ",
		"changed /turned kind", "removed /turned/x ", "changed /usr/bin/a content", "removed /usr/bin/b ",
	}
	if diff := cmp.Diff(want, paths(d.Entries)); diff != "" {
		t.Error(diff)
	}
	top := make([]string, len(d.Top))
	for i, n := range d.Top {
		top[i] = fmt.Sprint(n.Name, " ", n.Action, " ", n.What, " ", n.Counts)
	}
	want = []string{
		"bin replace content {0 1 0}", "etc swap attributes {0 1 0}", "gone remove  {0 0 1}", "opt create  {2 0 0}",
		"turned replace kind {0 1 1}", "usr swap  {0 1 1}",
	}
	if diff := cmp.Diff(want, top); diff != "" {
		t.Error(diff)
	}
	if d.Root != Attributes {
		t.Error("root:", d.Root)
	}
	if diff := cmp.Diff([]string{"changed /usr/bin/a content", "removed /usr/bin/b "}, paths(d.Below("/usr"))); diff != "" {
		t.Error(diff)
	}
}

// large returns a tree of about n names, as a root file system has them: 20 files in each directory.
func large(n int) *tree.Node {
	usr := tree.NewDir(0o755)
	for i := range n / 420 {
		sub := tree.NewDir(0o755)
		for j := range 20 {
			leaf := tree.NewDir(0o755)
			for k := range 20 {
				leaf.SetChild(fmt.Sprintf("file-%d", k), file(fmt.Sprint(i, j, k)))
			}
			sub.SetChild(fmt.Sprintf("directory-%d", j), leaf)
		}
		usr.SetChild(fmt.Sprintf("package-%d", i), sub)
	}
	return dir(map[string]*tree.Node{"usr": usr})
}

// A module of 500 files comes to a root of n names.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{10_000, 60_000, 200_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			from := large(n)
			to := from.Clone()
			added := tree.NewDir(0o755)
			for i := range 500 {
				added.SetChild(fmt.Sprint(i), file("x"))
			}
			to.Child("usr").SetChild("added", added)
			b.ReportAllocs()
			for b.Loop() {
				if d := Compare(from, to); d.Added != 501 {
					b.Fatal(d.Counts)
				}
			}
		})
	}
}
