package delta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Leftover is a directory of the upper that nobody changed: it was copied up because of something in it, and goes
// on showing the old image's mode, owner and attributes, or itself, over the new one.
type Leftover struct {
	Path string `json:"path"`
	// Remove says that neither the new image nor the upper has anything there; else it takes on Mode, UID, GID, and the
	// attributes Set, and loses Unset.
	Remove bool   `json:"remove,omitempty"`
	Mode   uint16 `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`

	Set   []tree.Xattr `json:"set,omitempty"`
	Unset []string     `json:"unset,omitempty"`
}

// Leftovers returns what Tidy is to put right once the new image is beneath the upper and won't be taken back, in the
// order in which it is done. One in which something was removed stays, though it is empty: the removal is a change that
// is to last if the image's directory comes again. It is pure.
func Leftovers(d *Delta, from, to *tree.Node) []Leftover {
	var left []Leftover
	all := places(d, from, to, nil)
	removed := make(map[*place]bool)
	for i := len(all) - 1; i >= 0; i-- { // what is in a directory before it
		p := all[i]
		if p.Kind != Directory || p.from == nil || p.from.Kind != tree.Directory || !p.like(p.from) {
			continue
		}
		switch {
		case p.to == nil && p.empty(removed):
			removed[p] = true
			left = append(left, Leftover{Path: p.Path, Remove: true, Mode: p.Mode, UID: p.UID, GID: p.GID})
		case p.to != nil && p.to.Kind == tree.Directory && !p.like(p.to):
			left = append(left, Leftover{
				Path: p.Path, Mode: p.to.Mode, UID: p.to.UID, GID: p.to.GID, Set: lacking(p.to.Xattrs, p.xattrs), Unset: surplus(p.xattrs, p.to.Xattrs),
			})
		}
	}
	return left
}

func (p *place) empty(removed map[*place]bool) bool {
	for _, c := range p.children {
		if !removed[c] {
			return false
		}
	}
	return true
}

// Tidy puts leftovers right through the union of the new image. The result are those that couldn't be.
func Tidy(ctx context.Context, view View, left []Leftover) ([]Trouble, error) {
	a := &liveActor{actor: actor{ctx: ctx}, view: view, tops: make(map[string]*os.File)}
	defer a.close()
	for _, l := range left {
		if err := ctx.Err(); err != nil {
			return a.troubles, err
		}
		if err := a.tidy(l); err != nil && !gone(err) {
			a.troubles = append(a.troubles, Trouble{l.Path, err.Error()})
		}
	}
	return a.troubles, nil
}

func (a *liveActor) tidy(l Leftover) error {
	if l.Remove {
		dir, rest, err := a.dir(l.Path, false)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(int(dir.Fd()), rest, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOTEMPTY) {
			return nil // something has come to it
		}
		return err
	}
	top, rest, err := a.dir(l.Path, true)
	if err != nil {
		return err
	}
	dir, err := openDirAt(top, rest)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Nobody gets in meanwhile who may not in the end: an access list counts instead of the group's bits.
	for _, name := range l.Unset {
		if err := unix.Fremovexattr(int(dir.Fd()), name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove its attribute %s: %w", name, err)
		}
	}
	if err := dir.Chown(int(l.UID), int(l.GID)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dir.Fd()), uint32(l.Mode)); err != nil {
		return fmt.Errorf("change its mode: %w", err)
	}
	for _, x := range l.Set {
		if strings.HasPrefix(x.Name, overlayMark) {
			return fmt.Errorf("the image's directory has the attribute %s, which would be taken for overlayfs's own", x.Name)
		}
		if err := unix.Fsetxattr(int(dir.Fd()), x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set its attribute %s: %w", x.Name, err)
		}
	}
	return nil
}
