package ociimage

import (
	"io"
)

// Partials keeps the beginnings of interrupted downloads.
type Partials interface {
	// Partial opens what there is of the blob with that digest ("sha256:…"), empty if there is
	// nothing yet.
	Partial(digest string) (Partial, error)
}

// Partial is the beginning of a blob. Nothing vouches for its bytes until the whole was hashed.
type Partial interface {
	io.ReaderAt
	// Write appends.
	io.Writer
	// Size is the number of bytes that are there.
	Size() int64
	// Reset empties it.
	Reset() error
	// Drop removes and closes it, Close keeps it for another time. One of them ends its use.
	Drop() error
	Close() error
}

// PartialsFunc makes Partials of a function, for stores whose Partial has a type of its own.
type PartialsFunc func(digest string) (Partial, error)

// Partial calls f.
func (f PartialsFunc) Partial(digest string) (Partial, error) { return f(digest) }

// partialMin is the size from which on a layer is kept half: below it, asking again is cheaper.
const partialMin = 1 << 20

// keeper appends what is read through it to a Partial. If that fails, the layer goes on without:
// a disk that is full will say so where it matters.
type keeper struct {
	r       io.Reader
	partial Partial
	failed  bool
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if n > 0 && !k.failed {
		if _, werr := k.partial.Write(p[:n]); werr != nil {
			k.failed = true
			// What is there may have a hole at its end, and takes room that objects need.
			_ = k.partial.Reset() //nolint:errcheck // the sum will tell next time
		}
	}
	return n, err
}

// counter reports how far a stream has been read.
type counter struct {
	r      io.Reader
	n      int64
	report func(done int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.report(c.n)
	}
	return n, err
}
