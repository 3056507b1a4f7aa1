package store

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// naming makes the files of small objects in the background: the kernel takes longer for that
// than we take to hash them, and whoever reads a layer has one stream to go on with.
type naming struct {
	background bool
	slots      chan struct{} // one for each object under way, so that they don't pile up
	// busy is held shared for each object under way. Locking it waits for all of them, and those
	// that come meanwhile wait in turn.
	busy sync.RWMutex

	mu       sync.Mutex
	underWay map[fsverity.Digest]struct{}
	err      error // the first of a background object that nobody was told of
}

// init makes n ready. Without background, every object is complete when its Commit returns, and
// the operations on the disk come in an order that a test can rely on.
func (n *naming) init(background bool) {
	n.background = background
	n.slots = make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	n.underWay = make(map[fsverity.Digest]struct{})
}

// run installs the object that w holds, now or soon, and reports whether it is new. The error may
// be that of an earlier object.
func (n *naming) run(w *ObjectWriter, d fsverity.Digest) (bool, error) {
	n.slots <- struct{}{}
	n.busy.RLock()
	done := func() {
		n.busy.RUnlock()
		<-n.slots
	}
	if first, err := n.start(d); !first {
		done()
		return false, err
	}
	found, err := w.s.keep(d, w.size)
	if err == nil && !found && w.file == nil && n.background {
		// The job has the buffer now; w only keeps what Size and SHA256 return.
		job := *w
		w.buf = nil
		go func() {
			defer done()
			_, err := job.install(d)
			job.Abort()
			n.end(d, wrap(d, err))
		}()
		return true, nil
	}
	defer done()
	defer n.end(d, nil)
	if err != nil || found {
		return false, wrap(d, err)
	}
	fresh, err := w.install(d)
	return fresh, wrap(d, err)
}

// start marks d as under way and reports whether it wasn't yet.
func (n *naming) start(d fsverity.Digest) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.err; err != nil {
		n.err = nil
		return false, err
	}
	if _, ok := n.underWay[d]; ok {
		return false, nil
	}
	n.underWay[d] = struct{}{}
	return true, nil
}

func (n *naming) end(d fsverity.Digest, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.underWay, d)
	if n.err == nil {
		n.err = err
	}
}

// wait returns once the object isn't under way.
func (n *naming) wait(d fsverity.Digest) {
	n.mu.Lock()
	_, ok := n.underWay[d]
	n.mu.Unlock()
	if ok {
		n.waitAll()
	}
}

// waitAll returns once no object is under way of those that were when it was called.
func (n *naming) waitAll() {
	n.busy.Lock()
	defer n.busy.Unlock()
}

// settle is waitAll, and returns the first error that nobody was told of.
func (n *naming) settle() error {
	n.waitAll()
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.err
	n.err = nil
	return err
}

func wrap(d fsverity.Digest, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store object %s: %w", d, err)
}
