package delta

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// restore gives a metacopy its content from the object store, through the union: a new file takes its name. The union's own
// copying up would take the content of the image that is beneath it by now. What isn't a metacopy any more is let be.
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
	old, err := a.metacopy(p.Path, unix.O_RDONLY)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
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
	r := replacer{liveActor: a, dir: dir, place: p, old: old, temp: mendPrefix + strings.ToLower(rand.Text())}
	return a.upper.Diagnose(errors.Join(r.replace(content), r.end()))
}

// replacer has a new file take the place of one metacopy.
type replacer struct {
	*liveActor
	dir   *os.File // in the union
	place *place
	old   *os.File // in the upper
	temp  string

	// beside is the directory in the upper where the union can't do it, and unseen says that the union doesn't know yet what was done there.
	beside *os.File
	unseen bool
	// took says that the new file has its place.
	took bool
}

func (r *replacer) replace(content *source) error {
	fd, err := unix.Openat(int(r.dir.Fd()), r.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if gone(err) {
		return nil // with its directory
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: r.temp, Err: err}
	}
	f := os.NewFile(uintptr(fd), r.temp)
	err = r.make(f, content)
	// A program that is open for writing can't be executed, and it is to have its name in a moment.
	made, openErr := os.Open(fdPath(f))
	if err = errors.Join(err, openErr, f.Close()); err != nil {
		if made != nil {
			_ = made.Close() // was only read
		}
		return errors.Join(err, r.unlink())
	}
	defer made.Close()
	if r.took, err = r.take(made); err != nil || !r.took {
		return errors.Join(err, r.unlink())
	}
	return r.upper.Step("settle-mend:mark", func() error { return unix.Fremovexattr(int(made.Fd()), markMends) })
}

// make fills the new file, and puts it on the disk.
func (r *replacer) make(f *os.File, content *source) error {
	err := unix.Fsetxattr(int(f.Fd()), markMends, []byte("y"), 0)
	if err == nil {
		err = r.upper.Step("settle-mend:content", func() error { return r.copy(f, content) })
	}
	if err = errors.Join(err, content.check()); err != nil {
		return err
	}
	return r.upper.Step("settle-mend:sync", f.Sync)
}

// take dresses the new file and changes places with the metacopy. What comes out under the temporary name is looked at
// before it goes: if it isn't that metacopy, somebody wrote into the file or put another one there, and it gets its place back.
func (r *replacer) take(f *os.File) (bool, error) {
	// Whoever may not execute a set-user-ID program's name must find no other one, should a kill leave it: this is the last thing before.
	like, err := attributesOf(r.old)
	if err == nil {
		err = dressFile(f, like)
	}
	if err != nil {
		return false, err
	}
	err = r.upper.Step("settle-mend:install", r.exchange)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if same, err := r.cameOut(); err != nil || !same {
		return false, errors.Join(err, r.putBack())
	}
	// Who changed its mode just now changed the old one's.
	if now, err := attributesOf(r.old); err == nil && !like.equal(now) {
		if err := dressFile(f, now); err != nil {
			return false, errors.Join(err, r.putBack())
		}
	}
	return true, r.unlink()
}

// cameOut reports whether the metacopy is what has the temporary name now.
func (r *replacer) cameOut() (bool, error) {
	f, err := r.metacopy(path.Join(path.Dir(r.place.Path), r.temp), unix.O_RDONLY)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	var a, b unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &a), unix.Fstat(int(r.old.Fd()), &b))
	return err == nil && a.Ino == b.Ino && a.Dev == b.Dev, err
}

// putBack gives what came out its name again. It must not be lost, whatever somebody does there meanwhile.
func (r *replacer) putBack() error {
	var err error
	for range settlePasses {
		if err = r.upper.Step("settle-mend:back", r.exchange); !gone(err) {
			break
		}
		// Its name is free by now.
		if err = r.rename(unix.RENAME_NOREPLACE); err == nil || gone(err) {
			return nil // or somebody who may do so took it from there
		}
	}
	if err != nil {
		return fmt.Errorf("give %s its name back, which is %s now: %w", r.place.Path, r.temp, err)
	}
	return nil
}

// unlink removes what is left under the temporary name, if it is ours to remove.
func (r *replacer) unlink() error {
	p := path.Join(path.Dir(r.place.Path), r.temp)
	f, err := openAt(r.upper.File(), below(p), unix.O_PATH)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := r.look(p)
	if err != nil {
		return err
	}
	ours, err := hasMark(f, markMends)
	if err != nil || !ours && !h.metacopy {
		return err
	}
	return ignoreGone(unix.Unlinkat(int(r.names().Fd()), r.temp, 0))
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
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

// equal says nothing of when a file was last read.
func (a attributes) equal(b attributes) bool {
	return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.mtime == b.mtime && slices.EqualFunc(a.xattrs, b.xattrs, sameXattr)
}
