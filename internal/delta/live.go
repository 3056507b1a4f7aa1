package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/tree"
)

// View opens a directory of the running union for reading: the top-level one of that name, "" for the root
// itself. What is mounted over it or in it isn't to be seen there. The caller closes the file. Running makes one.
type View func(top string) (*os.File, error)

// Live is an upper that a union uses.
type Live struct {
	Upper *durable.Dir
	View  View
	// Objects have the content of what was changed over another image than that which runs; nil has none.
	Objects Objects
	// Over is when the image that Settle and Mend go from has been beneath the upper, if another one was there before or is there
	// by now. A metacopy that shows by itself what it was made over is judged by that.
	Over Span
	// Mends says that Mend comes later: what is changed again and again while Settle works is left to that.
	Mends bool
}

// ActLive settles the upper of a running union, over its own image still, before another comes beneath it. The
// kernel copies up what is opened for writing through the union, and lets nobody write meanwhile; the content
// of a file that can't be opened for writing, because it is being executed or immutable, is written into the upper
// beside the kernel, under a lease: nobody else can write it either. Until its inode is forgotten, the old union
// then gives ENODATA to whoever opens such a file for writing; the new one doesn't. The time of modification of
// what the kernel copies becomes that of the copy.
//
// The result are the paths that couldn't be settled. If there is one, or an error, the image must not come beneath
// this upper; what was done needn't be undone. A plan with paths that are unsettled does nothing.
func (p *Plan) ActLive(ctx context.Context, l Live) ([]Trouble, error) {
	if len(p.Unsettled) > 0 {
		return p.Unsettled, nil
	}
	a := l.actor(ctx)
	defer a.close()
	for _, s := range p.Steps {
		if err := a.settle(s.Path, a.step(s)); err != nil {
			return a.troubles, err
		}
	}
	return a.finish()
}

func (l Live) actor(ctx context.Context) *liveActor {
	return &liveActor{actor: actor{ctx: ctx, upper: l.Upper}, view: l.View, objects: l.Objects, tops: make(map[string]*os.File)}
}

// settlePasses is how often Live.Settle looks again.
const settlePasses = 5

// Settle scans the upper, decides and acts, and looks again until nothing is left to be done: what users changed
// meanwhile is settled too. covered are the top-level directories that something else is mounted over, and drop is as
// for the function of that name. It is to be called just before the image comes beneath the upper: for what is changed after it, there is Mend.
func (l Live) Settle(ctx context.Context, from, to *tree.Node, covered []string, drop func(path string) bool) ([]Trouble, error) {
	var p *Plan
	for range settlePasses {
		d, err := Scan(ctx, l.Upper.File(), Limits{})
		if err != nil {
			return nil, err
		}
		p = settle(d.Without(covered...), from, to, drop, l.stale)
		if len(p.Steps) == 0 {
			return p.Unsettled, nil
		}
		if troubles, err := p.ActLive(ctx, l); err != nil || len(troubles) > 0 {
			return troubles, err
		}
	}
	if l.Mends {
		return nil, nil
	}
	troubles := make([]Trouble, 0, len(p.Steps))
	for _, s := range p.Steps {
		troubles = append(troubles, Trouble{s.Path, "it is changed again and again"})
	}
	return troubles, nil
}

// stale is Span's, and has what was changed over a still older image get its own content back where there is that.
func (l Live) stale(p *place) bool { return l.Over.staleIn(p) && (!p.foreign() || l.has(p)) }

type liveActor struct {
	actor
	view    View
	objects Objects
	tops    map[string]*os.File
}

func (a *liveActor) close() {
	for _, f := range a.tops {
		f.Close()
	}
}

func (a *liveActor) step(s Step) error {
	switch s.Do {
	case CopyContent:
		if s.place.foreign() {
			return a.restore(s.place)
		}
		return a.content(s.Path)
	case MakeWhole:
		return a.whole(s.Path)
	case Merge:
		return a.merge(s.Path)
	case Hide:
		return a.hide(s.Path)
	}
	return nil
}

// dir returns the directory of the view through which a path is reached, and the rest of the path.
func (a *liveActor) dir(path string, isDir bool) (*os.File, string, error) {
	top, rest, deep := strings.Cut(below(path), "/")
	switch {
	case !deep && isDir:
		rest = "."
	case !deep:
		top, rest = "", top
	}
	if f, ok := a.tops[top]; ok {
		return f, rest, nil
	}
	f, err := a.view(top)
	if err != nil {
		return nil, "", err
	}
	a.tops[top] = f
	return f, rest, nil
}

func (a *liveActor) content(path string) error {
	dir, rest, err := a.dir(path, false)
	if err != nil {
		return err
	}
	return a.copyUp(dir, rest, path)
}

// copyUp has the kernel copy up a file with its content: name in dir of the view, path in the upper.
func (a *liveActor) copyUp(dir *os.File, name, path string) error {
	var wrote error
	err := a.upper.Step("settle-content:open", func() error {
		f, err := openAt(dir, name, unix.O_WRONLY|unix.O_NONBLOCK)
		if err != nil {
			wrote = err
			return nil //nolint:nilerr // looked at below
		}
		return f.Close()
	})
	if err != nil || gone(wrote) {
		return err
	}
	h, err := a.look(path)
	if err != nil || wrote == nil && h.there && !h.metacopy {
		return err
	}
	switch {
	case wrote == nil && !h.there:
		return nil // it is gone by now
	case wrote == nil:
		return errTrouble{errors.New("the kernel left its content in the image when it was opened for writing")}
	case errors.Is(wrote, unix.ETXTBSY), errors.Is(wrote, unix.EPERM), errors.Is(wrote, unix.EAGAIN):
		return a.fillBeside(dir, name, path, h)
	case errors.Is(wrote, unix.ENOSPC), errors.Is(wrote, unix.EDQUOT), errors.Is(wrote, unix.EROFS):
		return a.upper.Diagnose(wrote)
	default:
		return errTrouble{fmt.Errorf("it can't be opened for writing: %w", wrote)}
	}
}

// fillBeside gives a file its content that can't be opened for writing through the union.
func (a *liveActor) fillBeside(dir *os.File, name, path string, h held) error {
	if !h.there {
		if err := a.touch(dir, name); err != nil {
			return errTrouble{fmt.Errorf("it can't be copied up: %w", err)}
		}
		var err error
		if h, err = a.look(path); err != nil {
			return err
		}
	}
	if !h.metacopy {
		return nil
	}
	source, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return errTrouble{fmt.Errorf("it can't be read: %w", err)}
	}
	defer source.Close()
	// The program may end, and somebody open the file for writing: the kernel lets them wait for a lease.
	if _, err := unix.FcntlInt(source.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errTrouble{fmt.Errorf("others can't be kept from writing it: %w", err)}
	}
	if h, err = a.look(path); err != nil || !h.metacopy {
		return err
	}
	return a.fill(path, reader{source}, nil)
}

// reader tells the errors of reading from those of writing.
type reader struct{ io.Reader }

func (r reader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errTrouble{fmt.Errorf("it can't be read: %w", err)}
	}
	return n, err
}

// touch copies up an entry's metadata: its modification time is set to what it is.
func (a *liveActor) touch(dir *os.File, name string) error {
	var s unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	return a.upper.Step("settle-whole:touch", func() error {
		return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{omit, s.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	})
}
