package layer

import (
	"io"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Sink takes file contents. It is called from several goroutines at once when layers are read in
// parallel.
type Sink interface {
	// NewObject starts an object; sizeHint is its size in bytes. Either Commit or Abort ends it.
	NewObject(sizeHint int64) (ObjectWriter, error)
}

// ObjectWriter takes one file's bytes.
type ObjectWriter interface {
	io.Writer
	// Commit keeps the object and returns its fs-verity digest, and whether it was not there
	// before.
	Commit() (digest fsverity.Digest, isNew bool, err error)
	// Abort drops the object.
	Abort()
}

// SinkFunc makes a Sink of a function, for stores whose writer has a type of its own.
type SinkFunc func(sizeHint int64) (ObjectWriter, error)

// NewObject calls f.
func (f SinkFunc) NewObject(sizeHint int64) (ObjectWriter, error) { return f(sizeHint) }

// Discard is a Sink that keeps nothing: it only computes digests.
type Discard struct{}

// NewObject returns a writer that hashes.
func (Discard) NewObject(int64) (ObjectWriter, error) {
	return discarded{fsverity.NewHasher()}, nil
}

type discarded struct{ *fsverity.Hasher }

func (d discarded) Commit() (fsverity.Digest, bool, error) { return d.Sum(), true, nil }

func (discarded) Abort() {}
