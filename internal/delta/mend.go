package delta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Mend is for what was changed over the old image between the last Settle and the moment when the new one came beneath the
// upper, by whoever was quick enough, or went on in the old tree: a metacopy then shows what the new image has. View is of the
// running root, over the new image, and Over is when such changes were made.
//
// A file gets the old image's content back, from the object store, and takes its own place at once: who has it open
// keeps what he has. Of a file with several names each becomes one by itself. A directory that was renamed gets what the old image had in
// it, file by file. The result are the paths that can't be mended so: a directory that was made, and hides one of the
// new image's, as long as the union knows it so. The way back makes that right.
func (l Live) Mend(ctx context.Context, from, to *tree.Node, covered []string) ([]Trouble, error) {
	d, err := Scan(ctx, l.Upper.File(), Limits{})
	if err != nil {
		return nil, err
	}
	p := settle(d.Without(covered...), from, to, nil, l.stale)
	a := l.actor(ctx)
	defer a.close()
	for _, s := range p.Steps {
		switch s.Do {
		case CopyContent:
			if err := a.settle(s.Path, a.restore(s.place)); err != nil {
				return a.troubles, err
			}
		case MakeWhole:
			if err := a.settle(s.Path, a.refill(s.place)); err != nil {
				return a.troubles, err
			}
		case Merge:
			a.troubles = append(a.troubles, Trouble{s.Path, "it was made while the root changed, and hides what the new root has there"})
		case Hide:
			if err := a.settle(s.Path, a.hide(s.Path)); err != nil {
				return a.troubles, err
			}
		}
	}
	return a.troubles, nil
}

// has reports whether there is a metacopy's own content.
func (l Live) has(p *place) bool {
	if l.Objects == nil {
		return false
	}
	f, err := l.Objects.OpenObject(p.Digest)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// restore gives a metacopy its content from the object store, through the union: the new file takes its name. The union's own
// copying up would take the content of the image that is beneath it by now.
func (a *liveActor) restore(p *place) error {
	if a.objects == nil {
		return errTrouble{errors.New("there is no object store to take its content from")}
	}
	top, rest, err := a.dir(p.Path, false)
	if err != nil {
		return err
	}
	dir, err := openDirAt(top, path.Dir(rest))
	if gone(err) {
		return nil
	}
	if err != nil {
		return errTrouble{err}
	}
	defer dir.Close()
	reading := offlineActor{Offline: Offline{Objects: a.objects}}
	content, err := reading.open(p.source, p.Digest)
	if err != nil {
		return err
	}
	defer content.Close()
	var stat unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), p.name, &stat, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.EIO) {
		// Nothing of the new image is beneath it: the union can't show it, and so knows nothing of it.
		return a.fill(p.Path, content, content.check)
	}
	temp := ".powernode-" + strings.ToLower(rand.Text())
	like, err := a.stageBeside(dir, temp, p, content)
	if err == nil && like {
		err = a.upper.Step("settle-mend:install", func() error { return unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), p.name) })
	}
	if err != nil || !like {
		if removed := unix.Unlinkat(int(dir.Fd()), temp, 0); removed != nil && !gone(removed) {
			err = errors.Join(err, removed)
		}
	}
	return a.upper.Diagnose(err)
}

// stageBeside makes the file that takes a metacopy's place, and reports whether that is still one.
func (a *liveActor) stageBeside(dir *os.File, name string, p *place, content *source) (bool, error) {
	old, err := openAt(a.upper.File(), below(p.Path), unix.O_RDONLY)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer old.Close()
	like, err := attributesOf(old)
	if err != nil {
		return false, err
	}
	f, err := openAtMode(dir, name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := a.upper.Step("settle-mend:content", func() error { return a.copy(f, content) }); err != nil {
		return false, err
	}
	if err := errors.Join(content.check(), dressFile(f, like)); err != nil {
		return false, err
	}
	if err := a.upper.Step("settle-mend:sync", f.Sync); err != nil {
		return false, err
	}
	h, err := a.look(p.Path)
	return h.metacopy, err
}

func openAtMode(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dressFile gives an open file its attributes, the owner first, which takes set-user-ID bits and capabilities away. What is the overlay's
// own can't be set through it.
func dressFile(f *os.File, like attributes) error {
	fd := int(f.Fd())
	if err := errors.Join(unix.Fchown(fd, like.uid, like.gid), unix.Fchmod(fd, like.mode)); err != nil {
		return err
	}
	for _, x := range like.xattrs {
		if strings.HasPrefix(x.Name, overlayMark) {
			continue
		}
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set the attribute %s: %w", x.Name, err)
		}
	}
	return setTimes(fdPath(f), like.atime, like.mtime)
}
