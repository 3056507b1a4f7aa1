package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

const (
	// objectPerm leaves objects readable to root alone: a module's files of mode 0600 are
	// secrets, and the kernel opens objects with the rights of whoever mounted them.
	objectPerm = 0o400
	// bufferMax is the size up to which an object is held in memory until it is complete, so
	// that one that is here already is never written.
	bufferMax = 1 << 20
)

// buffer is the reusable part of an ObjectWriter.
type buffer struct {
	hasher fsverity.Hasher
	data   []byte
}

// ObjectWriter takes the bytes of one object. Nothing can be seen of it before Commit. It is not
// safe for concurrent use.
type ObjectWriter struct {
	s    *Store
	buf  *buffer          // nil once committed or aborted
	dual *fsverity.Hasher // instead of buf's where the plain SHA-256 is wanted
	file *os.File         // nil while the bytes are in buf
	size uint64
	err  error // the first error of Write
}

// NewObject begins an object of about sizeHint bytes; a hint of 0 or less means that the size
// isn't known. The writer must be ended by Commit or Abort.
func (s *Store) NewObject(sizeHint int64) (*ObjectWriter, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	buf := s.buffers.Get().(*buffer)
	buf.hasher.Reset()
	buf.data = buf.data[:0]
	w := &ObjectWriter{s: s, buf: buf}
	if sizeHint > bufferMax {
		if err := w.spill("."); err != nil {
			w.Abort()
			return nil, fmt.Errorf("begin an object of %d bytes: %w", sizeHint, err)
		}
	} else if int64(cap(buf.data)) < sizeHint {
		buf.data = make([]byte, 0, sizeHint)
	}
	return w, nil
}

// NewDualObject is NewObject for a writer whose SHA256 is wanted too.
func (s *Store) NewDualObject(sizeHint int64) (*ObjectWriter, error) {
	w, err := s.NewObject(sizeHint)
	if err == nil {
		w.dual = fsverity.NewDualHasher()
	}
	return w, err
}

// Write adds p to the object.
func (w *ObjectWriter) Write(p []byte) (int, error) {
	if w.buf == nil {
		return 0, os.ErrClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.file == nil && len(w.buf.data)+len(p) > bufferMax {
		if w.err = w.spill("."); w.err != nil {
			return 0, w.err
		}
	}
	w.hasher().Write(p)
	w.size += uint64(len(p))
	if w.file == nil {
		w.buf.data = append(w.buf.data, p...)
		return len(p), nil
	}
	if w.err = w.s.objects.WriteAll(w.file, p, "object"); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// ReadFrom adds everything that r yields, reading straight into the object's buffer while it fits.
func (w *ObjectWriter) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for w.buf != nil && w.file == nil && w.err == nil {
		data := w.buf.data
		if len(data) == bufferMax {
			break
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, min(max(len(data), 4096), bufferMax-len(data)))
		}
		n, err := r.Read(data[len(data):min(cap(data), bufferMax)])
		w.buf.data = data[:len(data)+n]
		w.hasher().Write(w.buf.data[len(data):])
		w.size += uint64(n)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return total + n, err
}

func (w *ObjectWriter) hasher() *fsverity.Hasher {
	if w.dual != nil {
		return w.dual
	}
	return &w.buf.hasher
}

// spill moves what was written so far to an unnamed file in a directory below objects.
func (w *ObjectWriter) spill(dir string) error {
	f, err := w.s.objects.Temp(dir, objectPerm, "object")
	if err != nil {
		return err
	}
	w.file = f
	return w.s.objects.WriteAll(f, w.buf.data, "object")
}

// AddFile stores the content of f, from its offset on, as an object, and returns its digest and
// size in bytes. Many files go in fastest from as many goroutines as there are cores.
func (s *Store) AddFile(f *os.File) (fsverity.Digest, uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return fsverity.Digest{}, 0, err
	}
	w, err := s.NewObject(info.Size())
	if err != nil {
		return fsverity.Digest{}, 0, err
	}
	defer w.Abort()
	if _, err := w.ReadFrom(f); err != nil {
		return fsverity.Digest{}, 0, err
	}
	d, _, err := w.Commit()
	return d, w.size, err
}

// Size returns the number of bytes written so far.
func (w *ObjectWriter) Size() uint64 { return w.size }

// SHA256 returns the plain SHA-256 of the bytes written so far. The writer must be from
// NewDualObject.
func (w *ObjectWriter) SHA256() [sha256.Size]byte { return w.dual.SHA256() }

// AddBytes stores data as an object, and returns whether it is new. The caller has computed its digest d from these very bytes,
// as package composefs does while it writes an image: they aren't hashed again. As after Commit, Sync puts it on the disk.
func (s *Store) AddBytes(data []byte, d fsverity.Digest) (bool, error) {
	w, err := s.NewObject(int64(len(data)))
	if err != nil {
		return false, err
	}
	defer w.Abort()
	if w.file != nil {
		err = s.objects.WriteAll(w.file, data, "object")
	} else {
		w.buf.data = append(w.buf.data, data...)
	}
	if err != nil {
		return false, err
	}
	w.size = uint64(len(data))
	return s.naming.run(w, d)
}

// Commit gives the object its name and returns its digest, and whether it is new; one that is
// here already is kept. The object is on the disk for good only after Sync, PutModule or
// PutGeneration. Commit ends the writer, also when it fails; nothing is left of the object then.
//
// A small object's file may still be in the making when Commit returns. The other methods wait for
// it where it matters; if it fails, a later Commit or Sync says so.
func (w *ObjectWriter) Commit() (fsverity.Digest, bool, error) {
	return w.commit(fsverity.Digest{})
}

// commit is Commit, which refuses any digest but want where that isn't zero.
func (w *ObjectWriter) commit(want fsverity.Digest) (fsverity.Digest, bool, error) {
	if w.buf == nil {
		return fsverity.Digest{}, false, os.ErrClosed
	}
	defer w.Abort()
	if w.err != nil {
		return fsverity.Digest{}, false, w.err
	}
	d := w.hasher().Sum()
	if !want.IsZero() && d != want {
		return d, false, fault.New(fault.Refuse, fault.Verify, "build and sign the module again, or pull it from where it is unchanged",
			"the image has digest %s, not %s as it should", d, want)
	}
	fresh, err := w.s.naming.run(w, d)
	if err != nil {
		return fsverity.Digest{}, false, err
	}
	return d, fresh, nil
}

// install gives the object its name, and reports whether it had none.
func (w *ObjectWriter) install(d fsverity.Digest) (bool, error) {
	dir := d.ObjectPath()[:2]
	if w.file == nil {
		// Not all in one directory: ext4 looks for a free inode near the directory, and passes
		// over those that were freed a moment ago, as by Collect, one by one.
		err := w.spill(dir)
		if errors.Is(err, fs.ErrNotExist) {
			if err = w.s.makeObjectDir(dir); err == nil {
				err = w.spill(dir)
			}
		}
		if err != nil {
			return false, err
		}
	}
	return w.s.link(w.file, d)
}

// Abort drops the object. It does nothing after Commit, so it may be deferred.
func (w *ObjectWriter) Abort() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	if w.buf != nil {
		w.s.buffers.Put(w.buf)
		w.buf = nil
	}
}
