package difference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Kind is what happens to a path.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	Added Kind = iota + 1
	Changed
	Removed
)

var kindNames = [...]string{"", "added", "changed", "removed"}

func (k Kind) String() string { return kindNames[min(int(k), len(kindNames)-1)] }

// MarshalText makes the JSON form.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the JSON form.
func (k *Kind) UnmarshalText(text []byte) error { return parse(k, kindNames[:], text) }

// What is what differs about a path that both trees have: the weightiest difference where there are several.
type What uint8

// The differences, the lightest first. Nothing is that of a path which only one tree has, too.
const (
	Nothing What = iota
	// Links: the same file in itself, but not one with the same other names.
	Links
	// Times: the modification time alone.
	Times
	// Attributes: mode, owner or xattrs.
	Attributes
	// Content: bytes, target or device number.
	Content
	// Type: a file against a directory, a symlink against a file.
	Type
)

var whatNames = [...]string{"", "links", "times", "attributes", "content", "kind"}

func (w What) String() string { return whatNames[min(int(w), len(whatNames)-1)] }

// MarshalText makes the JSON form.
func (w What) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads the JSON form.
func (w *What) UnmarshalText(text []byte) error { return parse(w, whatNames[:], text) }

func parse[T ~uint8](to *T, names []string, text []byte) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%.40q is none of %s", text, strings.Join(names, ", "))
	}
	*to = T(i)
	return nil
}

// Entry is one path that differs. A directory that is added or removed has an entry of its own, and so
// has everything in it; so has what is below a directory in whose place something else comes.
type Entry struct {
	// Path is absolute.
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	// What is set for Changed only.
	What What `json:"what,omitempty"`
	// From and To are the nodes of the two trees; nil where one doesn't have the path. They are the trees' own.
	From *tree.Node `json:"-"`
	To   *tree.Node `json:"-"`
}

// Counts are numbers of paths.
type Counts struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Removed int `json:"removed"`
}

// Total is the number of all.
func (c Counts) Total() int { return c.Added + c.Changed + c.Removed }

func (c *Counts) count(k Kind) {
	switch k {
	case Added:
		c.Added++
	case Changed:
		c.Changed++
	case Removed:
		c.Removed++
	}
}

// Difference is what turns one tree into another.
type Difference struct {
	Counts
	// Entries are in byte order of their paths, so that a directory comes before what is in it. The root
	// directory itself isn't among them.
	Entries []Entry
	// Root is what differs about the root directory's own attributes.
	Root What
	// Top are the names in the root directory at or below which something differs, in byte order.
	Top []TopLevel
}

// Empty reports whether the trees are equal.
func (d *Difference) Empty() bool { return len(d.Entries) == 0 && d.Root == Nothing }

// Entry returns what happens to a path, given as Entry.Path is.
func (d *Difference) Entry(path string) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(d.Entries, path, func(e Entry, path string) int { return strings.Compare(e.Path, path) })
	if !ok {
		return Entry{}, false
	}
	return d.Entries[i], true
}

// Below returns the entries of what is below a directory, without that of the directory itself; dir is absolute
// and has no slash at its end.
func (d *Difference) Below(dir string) []Entry {
	prefix := dir + "/"
	from, _ := slices.BinarySearchFunc(d.Entries, prefix, func(e Entry, path string) int { return strings.Compare(e.Path, path) })
	to := from
	for to < len(d.Entries) && strings.HasPrefix(d.Entries[to].Path, prefix) {
		to++
	}
	return d.Entries[from:to:to]
}

// Compare returns what turns from into to; both are directories. It changes neither, and refers to their nodes.
func Compare(from, to *tree.Node) *Difference {
	w := walker{d: &Difference{}, pairs: make(map[*tree.Node]*tree.Node), back: make(map[*tree.Node]*tree.Node)}
	w.d.Root = weightiest(from, to)
	w.directories(from, to)
	if w.relinked() {
		w.links(from, to)
	}
	slices.SortFunc(w.d.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	for _, e := range w.d.Entries {
		w.d.count(e.Kind)
	}
	w.d.Top = topLevel(w.d.Entries, from, to)
	return w.d
}
