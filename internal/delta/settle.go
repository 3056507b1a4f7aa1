package delta

import (
	"github.com/powernode/powernode-agent/internal/tree"
)

// Do is what is done to a path of the upper.
type Do uint8

// What is done. The zero value is nothing.
const (
	// CopyContent gives a metacopy its content.
	CopyContent Do = iota + 1
	// MakeWhole gives a renamed directory all that it shows, and makes it opaque.
	MakeWhole
	// Merge has a directory that was made here show what the new image has there.
	Merge
	// Hide notes of a directory that was made here in the place of the old image's that it hides what an image has there: the new
	// image has nothing there, and a later one may.
	Hide
)

var doNames = [...]string{"", "copy-content", "make-whole", "merge", "hide"}

func (d Do) String() string { return doNames[min(int(d), len(doNames)-1)] }

// MarshalText makes the JSON form.
func (d Do) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Step is one thing to do to the upper before another root image comes beneath it.
type Step struct {
	Do   Do     `json:"do"`
	Path string `json:"path"`
	// Origin is where the image has what a renamed one shows.
	Origin string `json:"origin,omitempty"`
	// Files and Bytes are what is copied into the upper.
	Files int    `json:"files,omitempty"`
	Bytes uint64 `json:"bytes,omitempty"`

	place *place
}

// Plan is what must be done to an upper so that it means the same over another root image.
type Plan struct {
	// Steps are in the order in which they are done.
	Steps []Step `json:"steps"`
	// Files and Bytes are the sums of what is copied, to be held against the room that there is.
	Files int    `json:"files"`
	Bytes uint64 `json:"bytes"`
	// Unsettled are paths that nothing can be done about: with them, the image must not come beneath this upper.
	Unsettled []Trouble `json:"unsettled,omitempty"`
}

// Settle decides what must be done to an upper before the root image comes beneath it whose tree is to, in the place of
// from, the one that it was used over. drop, if not nil, reports whether the policy drops the local change at a path (see
// Drop): nothing is copied for that. Settle is pure. Besides its steps, the act removes every mark of an origin (ForgetOrigins).
func Settle(d *Delta, from, to *tree.Node, drop func(path string) bool) *Plan {
	return settle(d, from, to, drop, (*place).stale)
}

// settle decides with what tells whether an entry refers to the old image: a metacopy, a renamed directory, or one that was made here.
func settle(d *Delta, from, to *tree.Node, drop func(path string) bool, stale func(*place) bool) *Plan {
	p := &Plan{Steps: []Step{}}
	for _, t := range d.Skipped {
		if drop == nil || !drop(t.Path) {
			p.Unsettled = append(p.Unsettled, t)
		}
	}
	for _, at := range places(d, from, to, drop) {
		whole := at.whole() && stale(at)
		at.inWhole = at.parent.inWhole || whole
		switch {
		case at.left:
		case whole && !at.parent.inWhole:
			s := Step{Do: MakeWhole, Path: at.Path, Origin: at.origin, place: at}
			s.addWhole(at)
			p.add(s)
		case at.inWhole:
		case at.merge && stale(at):
			p.add(Step{Do: Merge, Path: at.Path, place: at})
		case at.hide && stale(at):
			p.add(Step{Do: Hide, Path: at.Path, place: at})
		case at.Kind == Metacopy && stale(at):
			s := Step{Do: CopyContent, Path: at.Path, Origin: at.origin, place: at}
			s.addContent(at)
			p.add(s)
		}
	}
	return p
}

func (p *Plan) add(s Step) {
	p.Steps = append(p.Steps, s)
	p.Files, p.Bytes = p.Files+s.Files, p.Bytes+s.Bytes
}

// stale reports whether an entry refers to what only the old image has, as far as it shows by itself.
func (p *place) stale() bool {
	return p.Kind != Metacopy || p.newContent() && p.evidence() != overNew
}

// newContent reports whether a metacopy would have other content over the new image. One that has none over either is as
// broken as it was.
func (p *place) newContent() bool {
	if p.source == nil || p.newSource == nil {
		return p.source != p.newSource
	}
	return !sameContent(p.source, p.newSource)
}

func (s *Step) addContent(at *place) {
	s.Files++
	if at.source != nil {
		s.Bytes += at.source.Size
	}
}

// addWhole counts what a directory shows and doesn't hold.
func (s *Step) addWhole(at *place) {
	for _, c := range at.children {
		switch {
		case c.Kind == Metacopy:
			s.addContent(c)
		case c.Kind.isDir():
			s.addWhole(c)
		}
	}
	if at.source == nil {
		return
	}
	for name, n := range at.source.Entries() {
		if _, held := at.children[name]; !held {
			s.addTree(n)
		}
	}
}

func (s *Step) addTree(n *tree.Node) {
	if n.Kind != tree.Directory {
		s.Files++
		s.Bytes += n.Size
		return
	}
	for _, child := range n.Entries() {
		s.addTree(child)
	}
}
