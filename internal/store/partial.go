package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Partial is a compressed blob that is being downloaded, kept from one attempt to the next. It is
// locked against other processes until Close. It is not safe for concurrent use.
//
// Nothing vouches for the bytes it held when it was opened: whoever resumes hashes them again
// (WriteTo, or ReadAt) together with the rest, and drops it when the sum is wrong.
type Partial struct {
	s    *Store
	name string
	file *os.File
	size int64
}

// Partial opens the partial download of the blob with that OCI digest, empty if there is none.
func (s *Store) Partial(digest string) (*Partial, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	name, err := parseSHA256(digest)
	if err != nil {
		return nil, err
	}
	var fd int
	err = s.partial.Step("partial:create", func() (err error) {
		fd, err = unix.Openat(int(s.partial.File().Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, recordPerm)
		return err
	})
	if err != nil {
		return nil, s.partialError("open", name, err)
	}
	p := &Partial{s: s, name: name, file: os.NewFile(uintptr(fd), s.partial.Path()+"/"+name)}
	if err := p.lock(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *Partial) lock() error {
	err := unix.Flock(int(p.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fault.New(fault.Retry, fault.General, "wait until it has finished", "blob sha256:%s is being downloaded by another process", p.name)
	}
	if err != nil {
		return p.s.partialError("lock", p.name, err)
	}
	info, err := p.file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return p.s.partialError("open", p.name, err)
	}
	p.size = info.Size()
	return nil
}

// Size returns the number of bytes that are here, which is where a Range request goes on.
func (p *Partial) Size() int64 { return p.size }

// Write appends data.
func (p *Partial) Write(data []byte) (int, error) {
	n := 0
	err := p.s.partial.Step("partial:write", func() (err error) {
		n, err = p.file.WriteAt(data, p.size)
		return err
	})
	p.size += int64(n)
	if err != nil {
		err = p.s.partialError("write", p.name, err)
	}
	return n, err
}

// ReadAt reads bytes that are here already.
func (p *Partial) ReadAt(data []byte, offset int64) (int, error) {
	return io.NewSectionReader(p.file, 0, p.size).ReadAt(data, offset)
}

// WriteTo writes everything that is here to w.
func (p *Partial) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(p.file, 0, p.size))
}

// Reset makes it empty, as when its bytes turned out wrong.
func (p *Partial) Reset() error {
	err := p.s.partial.Step("partial:truncate", func() error { return p.file.Truncate(0) })
	if err != nil {
		return p.s.partialError("empty", p.name, err)
	}
	p.size = 0
	return nil
}

// Drop removes it from the disk and closes it, once the blob is complete and in use, or unwanted.
func (p *Partial) Drop() error {
	err := p.s.partial.Step("partial:remove", func() error { return p.s.partial.Root().Remove(p.name) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		err = p.s.partialError("remove", p.name, err)
	}
	return errors.Join(err, p.Close())
}

// Close keeps what is here for a later attempt.
func (p *Partial) Close() error {
	// A program that another goroutine starts has all files until its exec, and with them the lock.
	return errors.Join(unix.Flock(int(p.file.Fd()), unix.LOCK_UN), p.file.Close())
}

func (s *Store) partialError(doing, name string, err error) error {
	return s.partial.Diagnose(fmt.Errorf("%s partial download sha256:%s: %w", doing, name, err))
}
