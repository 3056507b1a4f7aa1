package composefs

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// sharing knows which attributes several inodes have. Each of those stands once in the image, in
// an area of its own, and the inodes refer to it.
//
// The numbers are first counts of uses, then places in the shared area in 4-byte units, plus one
// so that 0 is "not shared".
type sharing struct {
	ordinary map[attrKey]uint32
	// objects holds the uses of a digest in a metacopy and of its path in a redirect: of those that are used more than
	// once, and some others.
	objects map[fsverity.Digest]uses

	list []attr
	size uint64 // of the shared area, in bytes
}

type attrKey struct{ name, value string }

type uses struct{ metacopy, redirect uint32 }

// unshared stands for "no reference" in plan.refs.
const unshared = ^uint32(0)

// refLimit is how many references to shared attributes composefs gives an inode.
const refLimit = 128

// share counts the uses of all attributes and lays out the shared area, in descending order of name,
// length and value.
func (p *plan) share() *sharing {
	s := &sharing{ordinary: make(map[attrKey]uint32), objects: make(map[fsverity.Digest]uses)}
	var buf attrs
	total := 0
	again := newFilter(len(p.inodes))
	for i := range p.inodes {
		if in := &p.inodes[i]; in.flags&isPlain != 0 {
			total += 2
			again.addPlain(&in.node.Digest)
			continue
		}
		list := buf.of(p, i)
		total += len(list)
		for _, a := range list {
			if a.object == nil {
				s.count(a)
			} else {
				again.add(a)
			}
		}
	}
	for i := range p.inodes {
		n := p.inodes[i].node
		if p.inodes[i].flags&isPlain != 0 && !again.hasPlain(&n.Digest) {
			continue
		}
		if again.some && external(n) {
			for _, a := range buf.of(p, i) {
				if a.object != nil && again.has(a) {
					s.count(a)
				}
			}
		}
	}
	p.refs = make([]uint32, 0, total)
	s.gather()
	slices.SortFunc(s.list, func(a, b attr) int {
		return cmp.Or(strings.Compare(b.name, a.name), cmp.Compare(len(b.value), len(a.value)), bytes.Compare(b.value, a.value))
	})
	for _, a := range s.list {
		s.put(a, uint32(s.size/erofs.XattrAlign)+1)
		s.size += erofs.XattrEntryLen(a.name, len(a.value))
	}
	return s
}

func (s *sharing) count(a attr) { s.update(a, func(n uint32) uint32 { return n + 1 }) }

func (s *sharing) put(a attr, place uint32) { s.update(a, func(uint32) uint32 { return place }) }

// update replaces the attribute's number.
func (s *sharing) update(a attr, f func(uint32) uint32) {
	if a.object != nil {
		u := s.objects[*a.object]
		if a.kind == metacopy {
			u.metacopy = f(u.metacopy)
		} else {
			u.redirect = f(u.redirect)
		}
		s.objects[*a.object] = u
		return
	}
	n, seen := s.ordinary[attrKey{a.name, string(a.value)}]
	if seen {
		// Looking up with the bytes themselves spares the copy that a new key needs.
		s.ordinary[attrKey{a.name, string(a.value)}] = f(n)
		return
	}
	s.ordinary[attrKey{a.name, string(a.value)}] = f(0)
}

// get returns the attribute's number.
func (s *sharing) get(a attr) uint32 {
	switch {
	case a.object == nil:
		return s.ordinary[attrKey{a.name, string(a.value)}]
	case a.kind == metacopy:
		return s.objects[*a.object].metacopy
	default:
		return s.objects[*a.object].redirect
	}
}

// redirectSize is the length of an object's path with a slash before it.
const redirectSize = 1 + 2*digestSize + 1

// parseObjectPath undoes appendObjectPath, and only that.
func parseObjectPath(path string) (d fsverity.Digest, ok bool) {
	if len(path) != redirectSize-1 || path[2] != '/' {
		return d, false
	}
	for i := range d {
		at := 2 * i
		if i > 0 {
			at++
		}
		high, low := unhex(path[at]), unhex(path[at+1])
		if high < 0 || low < 0 {
			return d, false
		}
		d[i] = byte(high<<4 | low)
	}
	return d, true
}

// unhex returns the value of a lower-case hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// gather lists the attributes that are used more than once and makes the others' values 0.
func (s *sharing) gather() {
	for key, n := range s.ordinary {
		if n > 1 {
			s.list = append(s.list, attr{name: key.name, value: []byte(key.value)})
		} else {
			delete(s.ordinary, key)
		}
	}
	for d, u := range s.objects {
		if u.metacopy <= 1 && u.redirect <= 1 {
			delete(s.objects, d)
			continue
		}
		s.objects[d] = uses{}
		object := d
		if u.metacopy > 1 {
			s.list = append(s.list, attr{nameMetacopy, appendMetacopy(nil, d), metacopy, &object})
		}
		if u.redirect > 1 {
			s.list = append(s.list, attr{nameRedirect, appendObjectPath([]byte{'/'}, d), redirect, &object})
		}
	}
}

// refer decides which of the inode's attributes are references, and sums up the size of all.
func (p *plan) refer(index int, s *sharing, buf *attrs) error {
	in := &p.inodes[index]
	in.refs = uint32(len(p.refs))
	if in.flags&isPlain != 0 {
		if _, shared := s.objects[in.node.Digest]; !shared {
			p.refs = append(p.refs, unshared, unshared)
			in.xattrSize = uint32(len(usualXattrs.template))
			return nil
		}
		in.flags &^= isPlain
	}
	list := buf.of(p, index)
	if len(list) == 0 {
		return nil
	}
	size, shared := uint64(erofs.XattrHeaderSize), 0
	for _, a := range list {
		if place := s.get(a); place > 0 && shared < refLimit {
			p.refs = append(p.refs, place-1)
			size += erofs.XattrAlign
			shared++
			continue
		}
		p.refs = append(p.refs, unshared)
		size += erofs.XattrEntryLen(a.name, len(a.value))
	}
	if erofs.XattrCountFor(size) > 1<<16-1 {
		return fmt.Errorf("extended attributes of %d bytes on one inode: EROFS can't say more than 2^18", size)
	}
	in.xattrSize = uint32(size)
	return nil
}
