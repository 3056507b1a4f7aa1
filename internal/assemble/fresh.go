package assemble

import (
	"sync"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/store"
)

// Fresh collects the objects that this process itself hashed on their way into the store, so that
// proving them doesn't hash them a second time. It is safe for concurrent use.
type Fresh struct {
	mu  sync.Mutex
	set map[fsverity.Digest]struct{}
}

// Set returns the objects collected so far. Nothing may be added while it is in use.
func (f *Fresh) Set() map[fsverity.Digest]struct{} { return f.set }

func (f *Fresh) add(d fsverity.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set == nil {
		f.set = make(map[fsverity.Digest]struct{})
	}
	f.set[d] = struct{}{}
}

// sink puts the contents of layers into the store.
type sink struct {
	store *store.Store
	fresh *Fresh
	// replace are objects that are there and damaged.
	replace map[fsverity.Digest]bool
}

func (s *sink) NewObject(sizeHint int64) (layer.ObjectWriter, error) {
	w, err := s.store.NewObject(sizeHint)
	if err != nil {
		return nil, err
	}
	return &object{w, s}, nil
}

// object notes a new object's digest. One that was in the store before is not fresh: the bytes
// that were hashed are those that came, not those that lie there.
type object struct {
	*store.ObjectWriter
	sink *sink
}

func (o *object) Commit() (fsverity.Digest, bool, error) {
	var digest fsverity.Digest
	var isNew bool
	var err error
	if len(o.sink.replace) > 0 && o.sink.replace[o.Digest()] {
		digest, err = o.Replace()
		isNew = true
	} else {
		digest, isNew, err = o.ObjectWriter.Commit()
	}
	if err == nil && isNew {
		o.sink.fresh.add(digest)
	}
	return digest, isNew, err
}
