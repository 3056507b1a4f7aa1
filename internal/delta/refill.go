package delta

import (
	"crypto/rand"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/tree"
)

// refill gives a directory that was renamed over the old image what that had in it, through the union over the new image, which shows
// its own files there. It stays marked as renamed; all that differs is held by the upper then.
func (a *liveActor) refill(p *place) error {
	if a.objects == nil {
		return errTrouble{errors.New("it was renamed while the root changed, and there is no object store to take its files from")}
	}
	top, rest, err := a.dir(p.Path, true)
	if err != nil {
		return err
	}
	union, err := durable.DirAt(top, top.Name(), nil)
	if err != nil {
		return err
	}
	defer union.Close()
	temp := ".powernode-" + strings.ToLower(rand.Text())
	aside, err := union.MakeSub(temp, 0o700, "settle-mend")
	if err != nil {
		return err
	}
	defer func() {
		aside.Close()
		_ = union.Root().RemoveAll(temp)
	}()
	r := refiller{live: a, union: offlineActor{actor: actor{ctx: a.ctx, upper: union}, Offline: Offline{Upper: union, Aside: aside, Objects: a.objects}}}
	if rest == "." {
		rest = ""
	}
	return a.upper.Step("settle-mend:refill", func() error { return r.fill("/"+rest, p.children, p.source, p.newSource) })
}

// refiller works in a top-level directory of the union, as if that were an upper.
type refiller struct {
	live  *liveActor
	union offlineActor
}

// fill has a directory show what the old image has there instead of what the new one has, but for what the upper holds.
func (r *refiller) fill(at string, held map[string]*place, old, next *tree.Node) error {
	for name, n := range entriesOf(old) {
		if _, holds := held[name]; !holds {
			if err := r.name(at, name, n, child(next, name)); err != nil {
				return named(at+"/"+name, err)
			}
		}
	}
	for name := range entriesOf(next) {
		if _, holds := held[name]; !holds && child(old, name) == nil {
			if err := r.remove(at + "/" + name); err != nil {
				return err
			}
		}
	}
	for name, c := range held {
		var err error
		switch c.Kind {
		case Metacopy:
			if c.newContent() && c.evidence() != overNew {
				err = r.live.restore(c)
			}
		case Directory, Redirected:
			err = r.fill(at+"/"+name, c.children, c.source, c.newSource)
		case File, Opaque, Symlink, Device, Whiteout:
		}
		if err != nil {
			return named(c.Path, err)
		}
	}
	return r.live.ctx.Err()
}

func entriesOf(n *tree.Node) map[string]*tree.Node {
	entries := make(map[string]*tree.Node)
	if n != nil && n.Kind == tree.Directory {
		for name, c := range n.Entries() {
			entries[name] = c
		}
	}
	return entries
}

// name has a name show the old image's node instead of the new one's.
func (r *refiller) name(at, name string, old, next *tree.Node) error {
	if changeBelow(old, next) == Same {
		return nil
	}
	switch {
	case old.Kind == tree.Directory && next != nil && next.Kind == tree.Directory:
		if err := r.fill(at+"/"+name, nil, old, next); err != nil || sameAttributes(old, next) {
			return err
		}
		return r.attributes(at+"/"+name, old)
	case old.Kind != tree.Directory && (next == nil || next.Kind != tree.Directory):
		if err := r.union.stage(old); err != nil {
			return err
		}
		return r.union.install("settle-mend", at, name, 0)
	}
	if err := r.remove(at + "/" + name); err != nil {
		return err
	}
	return r.union.materialize(at, name, old, make(map[*tree.Node]string))
}

func (r *refiller) attributes(at string, n *tree.Node) error {
	like, err := attributesOfNode(n)
	if err != nil {
		return err
	}
	dir, err := openDirAt(r.union.upper.File(), below(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dressFile(dir, like)
}

func (r *refiller) remove(at string) error {
	err := r.union.upper.Root().RemoveAll(below(at))
	if errors.Is(err, unix.ENOTEMPTY) {
		err = r.union.upper.Root().RemoveAll(below(at)) // something came there meanwhile
	}
	return err
}
