package delta

import (
	"errors"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// exchange has the new file and the metacopy change places.
//
// A union that enforces digests does nothing with a metacopy whose digest isn't that of the image's file, but remove it or have another
// file take its name; to open, write, link or rename it is EIO (ovl_verify_lowerdata in fs/overlayfs/file.c, Linux 6.6). So nobody can be using it
// there, and the two change places in the upper, beside the union. Until that has forgotten what it looked up, it goes on with the metacopy, and says
// ESTALE to whoever removes it or gives another file its name: it looks whether the upper still has what it knows.
func (r *replacer) exchange() error {
	err := r.rename(unix.RENAME_EXCHANGE)
	if r.beside != nil || !errors.Is(err, unix.EIO) || r.place.Digest.IsZero() {
		return err
	}
	if r.beside, err = openDirAt(r.upper.File(), below(path.Dir(r.place.Path))); err != nil {
		return err
	}
	return r.upper.Step("settle-mend:beside", func() error { return r.rename(unix.RENAME_EXCHANGE) })
}

// names is the directory in which files get their names.
func (r *replacer) names() *os.File {
	if r.beside != nil {
		return r.beside
	}
	return r.dir
}

func (r *replacer) rename(flags uint) error {
	fd := int(r.names().Fd())
	err := unix.Renameat2(fd, r.temp, fd, r.place.name, flags)
	r.unseen = r.unseen || r.beside != nil && err == nil
	return err
}

// forgetting is how often the union is asked to forget names that somebody may be looking at, and forgettingAgain the time between.
const (
	forgetting      = 50
	forgettingAgain = 2 * time.Millisecond
)

// end has the union see what was done beside it.
func (r *replacer) end() error {
	if r.beside == nil {
		return nil
	}
	defer r.beside.Close()
	if !r.unseen {
		return nil
	}
	for range forgetting {
		if err := r.upper.Step("settle-mend:forget", func() error { return mount.ForgetNames(r.dir) }); err != nil {
			return err
		}
		if !r.took || !r.stale() {
			return nil
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-time.After(forgettingAgain):
		}
	}
	return errTrouble{errors.New("it has its content, but somebody keeps what it was in use, so that it can't be read yet")}
}

// stale reports whether the union still shows the metacopy.
func (r *replacer) stale() bool {
	at, err := openAt(r.dir, r.place.name, unix.O_PATH)
	if err != nil {
		return errors.Is(err, unix.EIO) || errors.Is(err, unix.ESTALE)
	}
	defer at.Close()
	var s unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.Is(err, unix.ESTALE)
	}
	fd, err := unix.Open(fdPath(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ESTALE)
}
