package tree

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLinksAreMarksOfNamesAndGoWithThem(t *testing.T) {
	root, file := NewDir(0o755), &Node{Kind: Regular, Mode: 0o644}
	root.SetChild("z", file)
	root.SetLink("a", file)
	if !root.IsLink("a") || root.IsLink("z") || root.Child("a") != file {
		t.Fatal("SetLink marks its own name only")
	}
	c := root.Clone()
	if !c.IsLink("a") || c.Child("a") != c.Child("z") || c.Child("a") == file {
		t.Error("a clone keeps hard links and marks")
	}
	root.SetChild("a", file)
	c.RemoveChild("a")
	c.SetChild("a", c.Child("z"))
	if root.IsLink("a") || c.IsLink("a") {
		t.Error("a mark goes when its entry is replaced or removed")
	}
}

func TestXattrsStaySortedAndUnique(t *testing.T) {
	n := NewDir(0o755)
	for _, name := range []string{"user.b", "user.a", "user.c", "user.b"} {
		n.SetXattr(name, []byte(name))
	}
	names := make([]string, 0, len(n.Xattrs))
	for _, x := range n.Xattrs {
		names = append(names, x.Name)
	}
	if !slices.Equal(names, []string{"user.a", "user.b", "user.c"}) {
		t.Errorf("names %v", names)
	}
	if v, ok := n.Xattr("user.c"); !ok || string(v) != "user.c" {
		t.Errorf("user.c = %q, %v", v, ok)
	}
}

func TestWalkYieldsParentsFirstInByteOrder(t *testing.T) {
	root, sub, file := NewDir(0o755), NewDir(0o755), &Node{Kind: Regular}
	root.SetChild("sub", sub)
	root.SetChild("a", file)
	sub.SetChild("b", file)
	var paths []string
	for path := range root.Walk() {
		paths = append(paths, path)
	}
	if !slices.Equal(paths, []string{"", "a", "sub", "sub/b"}) {
		t.Errorf("paths %v", paths)
	}
	if root.Lookup("/sub/./b") != file || root.Lookup("sub/none") != nil {
		t.Error("Lookup")
	}
}

// TestDirectoriesAreMaps has directories do what maps do, whatever order names come and go in.
func TestDirectoriesAreMaps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		names := 1 + random.IntN(200)
		n, want := NewDir(0o755), make(map[string]*Node)
		for step := range 1 + random.IntN(1000) {
			name := fmt.Sprintf("%03d", random.IntN(names))
			if round%4 == 0 {
				name = fmt.Sprintf("%04d", step)
			}
			switch child := (&Node{Kind: Regular, Size: uint64(step)}); random.IntN(5) {
			case 0, 1:
				n.SetChild(name, child)
				want[name] = child
			case 2:
				n.SetLink(name, child)
				want[name] = child
				if !n.IsLink(name) {
					t.Fatal("the mark is missing")
				}
			default:
				n.RemoveChild(name)
				delete(want, name)
			}
			if n.Child(name) != want[name] || n.Len() != len(want) {
				t.Fatalf("round %d, step %d: %s is %v, %d entries, want %d", round, step, name, n.Child(name), n.Len(), len(want))
			}
		}
		for what, got := range map[string]map[string]*Node{"entries": maps.Collect(n.Entries()), "unordered": maps.Collect(n.Unordered())} {
			if !maps.Equal(got, want) {
				t.Fatalf("round %d: %s: %v, want %v", round, what, got, want)
			}
		}
		sorted := slices.Sorted(maps.Keys(want))
		if names := n.Names(); !slices.Equal(names, sorted) || !slices.Equal(slices.Collect(keys(n.Entries())), sorted) || !slices.Equal(n.Clone().Names(), sorted) {
			t.Fatalf("round %d: names %v", round, names)
		}
	}
}

func keys(entries iter.Seq2[string, *Node]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range entries {
			if !yield(name) {
				return
			}
		}
	}
}

// TestChangesUnderAnIteration: what is removed isn't seen any more, what stays is seen once, in order.
func TestChangesUnderAnIteration(t *testing.T) {
	for _, size := range []int{1, 5, 31, 33, 100, 1000} {
		n := NewDir(0o755)
		for i := range size {
			n.SetChild(fmt.Sprintf("%05d", i*7919%size), &Node{Kind: Regular})
		}
		removed := make(map[string]bool)
		last, seen := "", 0
		for name := range n.Entries() {
			if name <= last || removed[name] {
				t.Fatalf("of %d: %s after %s", size, name, last)
			}
			last = name
			seen++
			for i := range 3 {
				other := fmt.Sprintf("%05d", (seen*31+i*17)%size)
				if other > name {
					n.RemoveChild(other)
					removed[other] = true
				}
			}
			n.RemoveChild(name)
			n.SetChild("0"+name, &Node{Kind: Regular}) // before what is to come
		}
		if seen+len(removed) != size {
			t.Errorf("of %d: %d seen, %d removed", size, seen, len(removed))
		}
	}
}

// TestLinksFindAll: no file with several names is missed, few others are taken for such, and a tree that is none comes to an end.
func TestLinksFindAll(t *testing.T) {
	root, file := NewDir(0o755), func() *Node { return &Node{Kind: Regular} }
	var single, several []*Node
	for i := range 100 {
		dir := NewDir(0o755)
		root.SetChild(fmt.Sprint(i), dir)
		for k := range 100 {
			n := file()
			dir.SetChild(fmt.Sprint(k), n)
			if k%10 != 0 {
				single = append(single, n)
				continue
			}
			several = append(several, n)
			root.SetChild(fmt.Sprintf("link-%d-%d", i, k), n)
		}
	}
	l := FindLinks(root)
	if l.Names != 100+100*100+1000 || l.Directories != 101 {
		t.Errorf("%d names, %d directories", l.Names, l.Directories)
	}
	if i := slices.IndexFunc(several, func(n *Node) bool { return !l.Several(n) }); i >= 0 {
		t.Errorf("the %d. file with several names isn't found", i)
	}
	wrong := 0
	for _, n := range single {
		if l.Several(n) {
			wrong++
		}
	}
	if wrong > len(single)/5 {
		t.Errorf("%d of %d are taken for files with several names", wrong, len(single))
	}
	root.SetChild("itself", root)
	root.SetChild("and again", root)
	FindLinks(root)
}

// BenchmarkDirectories fills a directory in order, backwards and at random, and reads it.
func BenchmarkDirectories(b *testing.B) {
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprintf("name-%06d", i)
	}
	backwards, mixed := slices.Clone(names), slices.Clone(names)
	slices.Reverse(backwards)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	file := &Node{Kind: Regular}
	for _, c := range []struct {
		order string
		names []string
	}{{"ordered", names}, {"backwards", backwards}, {"mixed", mixed}} {
		b.Run(c.order, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := NewDir(0o755)
				for _, name := range c.names {
					if n.Child(name) == nil {
						n.SetChild(name, file)
					}
				}
				for range n.Entries() {
					continue
				}
			}
		})
	}
}
