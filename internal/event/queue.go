package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

// The bounds of a queue where nothing else is said.
const (
	DefaultCount = 1000
	DefaultBytes = 1 << 20
	// maxBatch bounds the bytes of a batch, as they are on the disk.
	maxBatch = 256 << 10
	// lockTime is how long another process may have the queue.
	lockTime = 10 * time.Second
)

const lockName = "lock"

// Options are the settings of a Queue.
type Options struct {
	// Count and Bytes bound what is kept; 0 is the default.
	Count int
	Bytes int64
	// Now is the node's clock, nil is the machine's.
	Now  func() time.Time
	Hook durable.Hook
	// lockTime is the constant of that name, or longer in a test.
	lockTime time.Duration
}

// Queue is events on the disk, a file each. It may be used by several goroutines, and by several processes.
type Queue struct {
	dir  *durable.Dir
	o    Options
	news chan struct{}

	mu sync.Mutex
	// lost are those that couldn't even be counted on the disk.
	lost counts
}

// Open opens the queue in a directory, which it creates where it is missing.
func Open(dir string, o Options) (*Queue, error) {
	if o.Count <= 0 {
		o.Count = DefaultCount
	}
	if o.Bytes <= 0 {
		o.Bytes = DefaultBytes
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.lockTime <= 0 {
		o.lockTime = lockTime
	}
	d, err := durable.MakeDir(dir, 0o700, o.Hook)
	if err != nil {
		return nil, fmt.Errorf("open the queue of events: %w", err)
	}
	q := &Queue{dir: d, o: o, news: make(chan struct{}, 1)}
	if err := q.locked(d.Sweep); err != nil {
		d.Close()
		return nil, fmt.Errorf("open the queue of events: %w", err)
	}
	return q, nil
}

// Close closes the queue.
func (q *Queue) Close() error { return q.dir.Close() }

// News has something in it when this process has put something into the queue since it was looked at.
func (q *Queue) News() <-chan struct{} { return q.news }

// Put puts an event into the queue. Where there is no room, the least important go, or the event itself. An error says
// that the event isn't on the disk; that is counted.
func (q *Queue) Put(e Event) error {
	w, err := e.wire(q.o.Now())
	if err != nil {
		return fmt.Errorf("keep an event: %w", err)
	}
	data, err := json.Marshal(file{fileVersion, w})
	if err != nil {
		return fmt.Errorf("keep an event: %w", err)
	}
	err = q.locked(func() error { return q.put(item{rank: e.rank(), size: int64(len(data)), id: w.ID[:idLength]}, data) })
	if err != nil {
		q.mu.Lock()
		q.lost[e.rank()]++
		q.mu.Unlock()
		return fmt.Errorf("keep an event of the kind %s: %w", w.Kind, err)
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
	return nil
}

func (q *Queue) put(it item, data []byte) error {
	items, err := q.list()
	if err != nil {
		return err
	}
	victims, fits := room(items, it, q.o.Count, q.o.Bytes)
	var given counts
	for _, v := range victims {
		given[v.rank]++
	}
	if !fits {
		given[it.rank]++
	}
	// Counted first: one that is counted twice after a power cut is better than one that nobody misses.
	if err := q.count(given); err != nil {
		return err
	}
	if fits {
		it.seq = 1
		if len(items) > 0 {
			it.seq = items[len(items)-1].seq + 1
		}
		if err := q.dir.WriteNew(it.name(), data, 0o600, "event"); err != nil {
			return err
		}
	}
	return q.remove(victims)
}

// remove removes files, and syncs their names once.
func (q *Queue) remove(items []item) error {
	for _, it := range items {
		err := q.dir.Step("event:remove", func() error { return q.dir.Root().Remove(it.name()) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return q.dir.Diagnose(err)
		}
	}
	if len(items) == 0 {
		return nil
	}
	return q.dir.Sync("event")
}

// locked does something while nobody else changes the queue.
func (q *Queue) locked(do func() error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), q.o.lockTime)
	defer cancel()
	lock, err := q.dir.Lock(ctx, lockName, durable.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return do()
}

// list returns what is in the queue, the oldest first.
func (q *Queue) list() ([]item, error) {
	names, err := q.dir.Names()
	if err != nil {
		return nil, err
	}
	var items []item
	for _, name := range names {
		if it, ok := parseName(name); ok {
			items = append(items, it)
		}
	}
	return items, nil
}
