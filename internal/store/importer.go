package store

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Importer stores many contents on several cores: one goroutine hands them in, others hash and
// write them.
type Importer struct {
	s    *Store
	jobs chan func() error
	wg   sync.WaitGroup

	mu  sync.Mutex
	err error // the first
}

// NewImporter starts an Importer, which Wait must end.
func (s *Store) NewImporter() *Importer {
	workers := runtime.GOMAXPROCS(0)
	im := &Importer{s: s, jobs: make(chan func() error, 4*workers)}
	for range workers {
		im.wg.Go(func() {
			for job := range im.jobs {
				if im.failed() != nil {
					continue
				}
				if err := job(); err != nil {
					im.fail(err)
				}
			}
		})
	}
	return im
}

// Add stores the next size bytes of r. It has read them when it returns; done is called with the
// digest, and whether the object is new, before Wait returns, from any goroutine. An error is
// that of this content or of an earlier one.
func (im *Importer) Add(r io.Reader, size int64, done func(d fsverity.Digest, fresh bool)) error {
	if err := im.failed(); err != nil {
		return err
	}
	w, err := im.s.NewObject(size)
	if err == nil && size > bufferMax {
		err = im.store(w, io.LimitReader(r, size), size, done)
	} else if err == nil {
		data := w.buf.data[:size]
		if _, err = io.ReadFull(r, data); err == nil {
			im.jobs <- func() error {
				w.hasher().Write(data)
				w.buf.data, w.size = data, uint64(size)
				return finish(w, done)
			}
			return nil
		}
		w.Abort()
	}
	return im.fail(eof(err))
}

// AddFile stores the content of the regular file that open returns. open is called from another
// goroutine; done as for Add.
func (im *Importer) AddFile(open func() (*os.File, error), done func(d fsverity.Digest, fresh bool)) error {
	if err := im.failed(); err != nil {
		return err
	}
	im.jobs <- func() error {
		f, err := open()
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		w, err := im.s.NewObject(info.Size())
		if err != nil {
			return err
		}
		return im.store(w, f, info.Size(), done)
	}
	return nil
}

// store is for contents that are hashed while they are read.
func (im *Importer) store(w *ObjectWriter, r io.Reader, size int64, done func(fsverity.Digest, bool)) error {
	defer w.Abort()
	n, err := w.ReadFrom(r)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	return finish(w, done)
}

func finish(w *ObjectWriter, done func(fsverity.Digest, bool)) error {
	d, fresh, err := w.Commit()
	if err == nil && done != nil {
		done(d, fresh)
	}
	return err
}

// Wait ends the Importer once everything handed in is stored, and returns the first error. As
// with Commit, the objects are on the disk for good only after Sync.
func (im *Importer) Wait() error {
	close(im.jobs)
	im.wg.Wait()
	return im.err
}

func (im *Importer) failed() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.err
}

func (im *Importer) fail(err error) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.err == nil {
		im.err = err
	}
	return im.err
}

// eof makes the end of a reader an error: it was to hold more.
func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
