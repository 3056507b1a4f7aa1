package tree

import (
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
