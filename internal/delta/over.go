package delta

// over is which of two images a metacopy was made over.
type over uint8

const (
	overUnknown over = iota
	overOld
	overNew
	// overOther is an image that is neither: somebody went on in a still older tree.
	overOther
)

// evidence says what a metacopy proves of the image that it was made over. The kernel notes the digest of its content where it
// enforces digests; elsewhere its length is that of the image's file. Times prove nothing: whoever owns the file sets that of its
// modification, and the others are of the kernel's last tick and of a clock that may be set.
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
	isOld, isNew := old != nil && old.Size == p.length, next != nil && next.Size == p.length
	switch {
	case isOld && !isNew:
		return overOld
	case isNew && !isOld:
		return overNew
	default:
		return overUnknown
	}
}

// provenOld reports whether an entry shows by itself that it has the old image's content, and would have another one over the new image.
func (p *place) provenOld() bool {
	return p.Kind == Metacopy && p.newContent() && p.evidence() == overOld
}

// doubtful reports whether an entry refers to what differs between the images, and nothing shows to which: a directory that was
// renamed or made says nothing of that.
func (p *place) doubtful() bool {
	if p.Kind == Metacopy {
		return p.newContent() && p.evidence() == overUnknown
	}
	return p.whole() || p.merge || p.hide
}

// foreign reports whether a metacopy was made over an image that is neither of the two.
func (p *place) foreign() bool { return p.Kind == Metacopy && p.evidence() == overOther }
