package delta

import (
	"time"

	"github.com/powernode/powernode-agent/internal/tree"
)

// over is which of two images a metacopy was made over.
type over uint8

const (
	overUnknown over = iota
	overOld
	overNew
	// overOther is an image that is neither: somebody went on in a still older tree.
	overOther
)

// evidence says what a metacopy shows of the image that it was made over. The kernel notes the digest of its content where it
// enforces digests; elsewhere the length is that of the image's file, and so is the time of modification, unless somebody set it.
func (p *place) evidence() over {
	old, next := p.source, p.newSource
	if !p.Digest.IsZero() {
		switch {
		case old != nil && old.Digest == p.Digest:
			return overOld
		case next != nil && next.Digest == p.Digest:
			return overNew
		default:
			return overOther
		}
	}
	if v := p.tell(old, next, func(n *tree.Node) bool { return n.Size == p.length }); v != overUnknown {
		return v
	}
	return p.tell(old, next, func(n *tree.Node) bool { return n.Mtime == p.mtime })
}

func (p *place) tell(old, next *tree.Node, like func(*tree.Node) bool) over {
	isOld, isNew := old != nil && like(old), next != nil && like(next)
	switch {
	case isOld && !isNew:
		return overOld
	case isNew && !isOld:
		return overNew
	default:
		return overUnknown
	}
}

// Span is a time in which a tree was in use, to tell what was made over it from what was made over another one. A zero end is open.
type Span struct{ After, Until time.Time }

func (s Span) has(t time.Time) bool {
	return (s.After.IsZero() || t.After(s.After)) && (s.Until.IsZero() || !t.After(s.Until))
}

// staleIn is stale, given when the old image was beneath the upper.
func (s Span) staleIn(p *place) bool {
	if p.Kind != Metacopy {
		return s.has(p.made)
	}
	e := p.evidence()
	if !p.newContent() && e != overOther {
		return false
	}
	switch e {
	case overOld:
		return true
	case overNew:
		return false
	case overOther:
		return true
	case overUnknown:
	}
	return s.has(p.made)
}

// foreign reports whether a metacopy was made over an image that is neither of the two.
func (p *place) foreign() bool { return p.Kind == Metacopy && p.evidence() == overOther }
