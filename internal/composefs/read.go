package composefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// ImageMax is the size in bytes of the largest image that Read takes in: about five million files.
// It bounds Read's memory.
const ImageMax = 1 << 30

// Read reads the tree that an image of size bytes was written from. Names that an inode has several of
// become one node with several names; stubs, escapes and whiteouts' marks are undone.
//
// It refuses whatever no composefs of version 0 or 1 writes.
func Read(r io.ReaderAt, size int64) (*tree.Node, error) {
	if size < blockSize || size > ImageMax {
		return nil, fault.New(fault.Refuse, fault.Verify, "", "read a composefs image: %d bytes: the size must be %d to %d", size, blockSize, ImageMax)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), data); err != nil {
		return nil, fmt.Errorf("read a composefs image: %w", err)
	}
	return Parse(data)
}

// Parse is Read of an image that is in memory. The tree shares nothing with data.
func Parse(data []byte) (*tree.Node, error) {
	if len(data) < blockSize || len(data) > ImageMax {
		return nil, fault.New(fault.Refuse, fault.Verify, "", "read a composefs image: %d bytes: the size must be %d to %d", len(data), blockSize, ImageMax)
	}
	root, err := read(data)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "", "read a composefs image: %w", err)
	}
	return root, nil
}

func read(data []byte) (*tree.Node, error) {
	version, err := parseHeader(data)
	if err != nil {
		return nil, err
	}
	im, err := erofs.Open(data)
	if err != nil {
		return nil, err
	}
	// The superblock may say anything, but each inode takes some room.
	inodes := int(min(im.Super().Inodes, uint64(len(data)/128)))
	rd := reader{
		image: im, version: version, intern: newInterner(), byNID: make([]int32, len(data)/erofs.SlotSize+1), leaves: make([]readLeaf, 0, inodes),
	}
	return rd.run()
}

// parseHeader returns an image's version.
func parseHeader(data []byte) (uint32, error) {
	le := binary.LittleEndian
	magic, version, composefsVersion := le.Uint32(data), le.Uint32(data[4:]), le.Uint32(data[12:])
	switch {
	case magic != headerMagic:
		return 0, fmt.Errorf("magic %#x, want %#x", magic, uint32(headerMagic))
	case version != headerVersion || composefsVersion > maxVersion:
		return 0, fmt.Errorf("version %d.%d is unknown", version, composefsVersion)
	}
	return composefsVersion, nil
}

// reader goes through an image's directories breadth first, as their inodes are numbered.
type reader struct {
	image   *erofs.Image
	version uint32
	queue   []readDir
	leaves  []readLeaf
	// byNID finds inodes seen before, by the slots of the image: 0 is none, seenDir a directory, seenStub a stub, else one more
	// than the place in leaves. It is faster than a map, and no larger.
	byNID []int32
	// nodes are to be handed out, stub is for what is read and forgotten, xattrs is room for those of one inode.
	nodes  []tree.Node
	stub   tree.Node
	xattrs []erofs.Xattr
	intern interner
	// next is the number that the next inode has if the image is numbered as composefs does.
	next uint32
	// stubs counts those that aren't among the leaves.
	stubs int
}

// What stands for a directory in byNID, and for a stub that isn't among the leaves.
const (
	seenDir  = -1
	seenStub = -2
)

// seen returns what byNID has of an inode; of one that lies beyond the image, which can't be read either, that is nothing.
func (r *reader) seen(nid uint64) int32 {
	if nid >= uint64(len(r.byNID)) {
		return 0
	}
	return r.byNID[nid]
}

// readDir is a directory of the image.
type readDir struct {
	node   *tree.Node
	inode  erofs.Inode
	parent int // its directory's index in the queue; the root's is its own
	name   string
	depth  int
	// marked says that the directory has the marks of one that holds whiteouts.
	marked bool
}

func (r *reader) run() (*tree.Node, error) {
	super := r.image.Super()
	in, err := r.image.Inode(uint64(super.RootNID))
	if err != nil {
		return nil, err
	}
	root, err := r.addDir(in, 0, "")
	if err != nil {
		return nil, fmt.Errorf("%q: %w", "/", err)
	}
	r.next = 1
	for i := 0; i < len(r.queue); i++ {
		if err := r.readDir(i); err != nil {
			return nil, fmt.Errorf("%.200q: %w", "/"+r.path(i), err)
		}
	}
	if found := len(r.queue) + len(r.leaves) + r.stubs; super.Inodes != uint64(found) {
		return nil, fmt.Errorf("the superblock says %d inodes, there are %d", super.Inodes, found)
	}
	r.settle()
	return root, nil
}

// addDir puts a directory into the queue.
func (r *reader) addDir(in erofs.Inode, parent int, name string) (*tree.Node, error) {
	if r.seen(in.NID) != 0 {
		return nil, errors.New("a directory with two names")
	}
	r.byNID[in.NID] = seenDir
	d := readDir{inode: in, parent: parent, name: name}
	if len(r.queue) > 0 {
		if d.depth = r.queue[parent].depth + 1; d.depth >= depthLimit {
			return nil, fmt.Errorf("directories nest deeper than %d", depthLimit)
		}
	}
	n, err := r.node(r.newNode(), &in, len(r.queue) == 0)
	if err != nil {
		return nil, err
	}
	if n.Kind != tree.Directory {
		return nil, errors.New("the root must be a directory")
	}
	d.node, d.marked = n, r.holdsMarks(n)
	r.queue = append(r.queue, d)
	return n, nil
}

// readDir reads the entries of a directory of the queue.
func (r *reader) readDir(index int) error {
	dir := r.queue[index]
	dots, whiteouts := 0, false
	added := 2 // "." and ".."
	if index == 0 {
		added += len(stubNames) / 2
	}
	room := func(entries int) { dir.node.Grow(max(0, entries-added)) }
	err := r.image.Dirents(&dir.inode, room, func(e erofs.Dirent) error {
		switch e.Name {
		case ".", "..":
			want := dir.inode.NID
			if e.Name == ".." {
				want = r.queue[dir.parent].inode.NID
			}
			if dots++; e.NID != want || e.Type != erofs.TypeDir {
				return fmt.Errorf("%q leads to inode %d instead of %d", e.Name, e.NID, want)
			}
			return nil
		}
		n, err := r.entry(index, e)
		if err != nil {
			return fmt.Errorf("%.80q: %w", e.Name, err)
		}
		if n != nil {
			whiteouts = whiteouts || isWhiteout(n)
			dir.node.SetChild(e.Name, n)
		}
		return nil
	})
	if err == nil && dots != 2 {
		err = errors.New(`"." or ".." is missing`)
	}
	if whiteouts {
		r.dropMarks(dir.node)
	}
	return err
}

// entry reads the inode of a directory's entry, or finds it among those seen before. It returns nil
// for a stub.
func (r *reader) entry(index int, e erofs.Dirent) (*tree.Node, error) {
	name := readName{int32(index), e.Name}
	at := r.seen(e.NID)
	if at == seenStub {
		return nil, errors.New("a whiteout can't have hard links")
	}
	if at > 0 {
		l := &r.leaves[at-1]
		if l.stub || isWhiteout(l.node) {
			return nil, errors.New("a whiteout can't have hard links")
		}
		if e.Type != l.fileType {
			return nil, fmt.Errorf("entry of type %d for an inode of type %d", e.Type, l.fileType)
		}
		if l.more == nil {
			l.more = new(readNames)
		}
		l.more.names = append(l.more.names, name)
		r.number(l, name)
		return l.node, nil
	}
	in, err := r.image.Inode(e.NID)
	if err != nil {
		return nil, err
	}
	if e.Type != erofs.TypeOf(in.Mode) {
		return nil, fmt.Errorf("entry of type %d for mode %#o", e.Type, in.Mode)
	}
	if in.Mode&erofs.ModeType == erofs.ModeDir {
		r.next++
		return r.addDir(in, index, e.Name)
	}
	into := &r.stub // there are 256 in every image, of which none is kept
	if index != 0 || !isStubName(e.Name) || e.Type != erofs.TypeChar {
		into = r.newNode()
	} else if in.Mode&^0o7777 == erofs.ModeChar && in.XattrCount == 0 && in.Size == 0 && in.Union == 0 {
		// In an image of few files they are most of what there is.
		r.byNID[e.NID] = seenStub
		if r.stubs++; in.Ino == r.next {
			r.next++
		}
		return nil, nil
	}
	n, err := r.node(into, &in, false)
	if err != nil {
		return nil, err
	}
	if n == &r.stub && !isWhiteout(n) {
		n = r.newNode()
		*n = r.stub
	}
	r.leaves = append(r.leaves, readLeaf{node: n, ino: in.Ino, nlink: in.Nlink, fileType: e.Type, name: name})
	r.byNID[e.NID] = int32(len(r.leaves))
	l := &r.leaves[len(r.leaves)-1]
	r.number(l, name)
	if isWhiteout(n) {
		if index != 0 || !isStubName(e.Name) {
			return nil, errors.New("a whiteout that isn't escaped")
		}
		l.stub = true
		return nil, nil
	}
	if r.queue[index].marked && isEscaped(n) {
		restoreWhiteout(n)
	}
	return n, nil
}

// isStubName reports whether the root of an image has a whiteout of that name.
func isStubName(name string) bool {
	return len(name) == 2 && unhex(name[0]) >= 0 && unhex(name[1]) >= 0
}
