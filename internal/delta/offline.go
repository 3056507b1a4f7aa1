package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Objects is the object store.
type Objects interface {
	OpenObject(d fsverity.Digest) (*os.File, error)
}

// Offline is an upper that no union uses.
type Offline struct {
	Upper *durable.Dir
	// Aside is a directory in the same file system, not below Upper. Files are made there.
	Aside *durable.Dir
	// Objects hold the content of the old image's files, which is checked against its digests.
	Objects Objects
}

// ActOffline settles the upper before a boot that puts another image beneath it, with the content of the object store. The
// result is as ActLive's.
func (p *Plan) ActOffline(ctx context.Context, o Offline) ([]Trouble, error) {
	if len(p.Unsettled) > 0 {
		return p.Unsettled, nil
	}
	a := &offlineActor{actor: actor{ctx: ctx, upper: o.Upper}, Offline: o}
	if err := a.sweep(); err != nil {
		return nil, err
	}
	for _, s := range p.Steps {
		if err := a.settle(s.Path, a.step(s)); err != nil {
			return a.troubles, err
		}
	}
	return a.finish()
}

type offlineActor struct {
	actor
	Offline
}

func (a *offlineActor) step(s Step) error {
	switch s.Do {
	case CopyContent:
		return a.content(s.place)
	case MakeWhole:
		if err := a.whole(s.place, s.Path); err != nil {
			return err
		}
		return a.markWhole()
	case Merge:
		return a.merge(s.Path)
	case Hide:
		return a.hide(s.Path)
	}
	return nil
}

// content gives a metacopy its content. A file with one name gives way to a new one at once; one with several is
// filled in place.
func (a *offlineActor) content(p *place) error {
	h, err := a.look(p.Path)
	if err != nil || !h.metacopy {
		return err
	}
	content, err := a.open(p.source, p.Digest)
	if err != nil {
		return err
	}
	defer content.Close()
	if p.links > 1 {
		return a.fill(p.Path, content, content.check)
	}
	old, err := openAt(a.upper.File(), below(p.Path), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer old.Close()
	like, err := attributesOf(old)
	if err != nil {
		return err
	}
	if err := a.stageFile(content, like); err != nil {
		return err
	}
	return a.install("settle-content", p.parent.Path, p.name, 0)
}

// source is an object's content, or one that lay in the image.
type source struct {
	io.Reader
	hash *fsverity.Hasher
	want fsverity.Digest
	file *os.File
}

// open opens the content of an image's file. want, if not zero, is the digest that it must have; without the file, it
// finds the content.
func (a *offlineActor) open(n *tree.Node, want fsverity.Digest) (*source, error) {
	switch {
	case n == nil && want.IsZero():
		return nil, errTrouble{errors.New("its content isn't in the image that the writable layer was used over")}
	case n != nil && n.Digest.IsZero() && want.IsZero():
		if uint64(len(n.Inline)) != n.Size {
			return nil, errTrouble{errors.New("its content isn't known")}
		}
		return &source{Reader: bytes.NewReader(n.Inline)}, nil
	case want.IsZero():
		want = n.Digest
	}
	f, err := a.Objects.OpenObject(want)
	if err != nil {
		return nil, errTrouble{fmt.Errorf("its content isn't in the object store: %w", err)}
	}
	s := &source{hash: fsverity.NewHasher(), want: want, file: f}
	s.Reader = io.TeeReader(reader{f}, s.hash)
	return s, nil
}

// check says whether what was read is what it should have been.
func (s *source) check() error {
	if s.hash == nil || s.hash.Sum() == s.want {
		return nil
	}
	return errTrouble{fmt.Errorf("its content in the object store is damaged: it isn't that of digest %s", s.want)}
}

// Close gives up the content.
func (s *source) Close() {
	if s.file != nil {
		s.file.Close()
	}
}

// whole puts everything into a directory that it shows and doesn't hold. at is where it is in the union.
func (a *offlineActor) whole(p *place, at string) error {
	for _, name := range slices.Sorted(maps.Keys(p.children)) {
		c := p.children[name]
		var err error
		switch {
		case c.Kind == Metacopy:
			err = a.content(c)
		case c.Kind.isDir():
			err = a.whole(c, c.Path)
		}
		if err != nil {
			return named(c.Path, err)
		}
	}
	if p.source != nil {
		links := make(map[*tree.Node]string)
		for name, n := range p.source.Entries() {
			if _, holds := p.children[name]; holds {
				continue
			}
			if err := a.materialize(at, name, n, links); err != nil {
				return err
			}
		}
	}
	if p.Kind == Redirected {
		a.marked = append(a.marked, at)
	}
	return nil
}

// materialize puts an image's file, or a directory with all that is in it, into a directory of the upper.
func (a *offlineActor) materialize(dir, name string, n *tree.Node, links map[*tree.Node]string) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	at := dir + "/" + name
	if n.Kind != tree.Directory {
		if first, again := links[n]; again {
			return named(at, a.link(first, at))
		}
		links[n] = at
	}
	if err := a.stage(n); err != nil {
		return named(at, err)
	}
	if err := a.install("settle-whole", dir, name, unix.RENAME_NOREPLACE); err != nil {
		return named(at, err)
	}
	if n.Kind != tree.Directory {
		return nil
	}
	for childName, child := range n.Entries() {
		if err := a.materialize(at, childName, child, links); err != nil {
			return err
		}
	}
	made, err := openDirAt(a.upper.File(), below(at))
	if err != nil {
		return named(at, err)
	}
	defer made.Close()
	return a.upper.Diagnose(setTimes(fdPath(made), timespec(n.Mtime), timespec(n.Mtime)))
}

// link gives a file of the upper a further name.
func (a *offlineActor) link(first, second string) error {
	from, err := openDirAt(a.upper.File(), below(path.Dir(first)))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openDirAt(a.upper.File(), below(path.Dir(second)))
	if err != nil {
		return err
	}
	defer to.Close()
	return a.upper.Step("settle-whole:link", func() error {
		return a.upper.Diagnose(unix.Linkat(int(from.Fd()), path.Base(first), int(to.Fd()), path.Base(second), 0))
	})
}
