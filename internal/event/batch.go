package event

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Batch is events on their way to the platform.
type Batch struct {
	Events []nodeapi.Event
	// More says that there are more in the queue.
	More  bool
	items []item
	// told is the ID of the event that says what was given up, "" for none.
	told string
}

// Next returns the oldest events, at most most; the same ones again until Told or Refused. What can't be read is given
// up, and counted.
func (q *Queue) Next(most int) (b Batch, err error) {
	err = q.locked(func() error { b, err = q.next(min(max(most, 1), nodeapi.MaxEvents)); return err })
	if err != nil {
		return Batch{}, fmt.Errorf("read the queue of events: %w", err)
	}
	return b, nil
}

func (q *Queue) next(most int) (Batch, error) {
	items, err := q.list()
	if err != nil {
		return Batch{}, err
	}
	var b Batch
	var damaged []item
	size := int64(0)
	for _, it := range items {
		if len(b.Events) == most || len(b.Events) > 0 && size+it.size > maxBatch {
			b.More = true
			break
		}
		data, err := q.dir.ReadFile(it.name(), maxFile)
		if err != nil && !errors.Is(err, durable.ErrTooLarge) && !errors.Is(err, unix.EIO) {
			return Batch{}, err
		}
		e, bad := decode(data)
		if err != nil || bad != nil {
			damaged = append(damaged, it)
			continue
		}
		b.Events, b.items, size = append(b.Events, e), append(b.items, it), size+it.size
	}
	var given counts
	for _, it := range damaged {
		given[it.rank]++
	}
	if err := q.count(given); err != nil {
		return Batch{}, err
	}
	if err := q.remove(damaged); err != nil {
		return Batch{}, err
	}
	e, err := q.given()
	switch {
	case err != nil:
		return Batch{}, err
	case e == nil:
	case len(b.Events) == most:
		b.More = true
	default:
		b.Events, b.told = append(b.Events, *e), e.ID
	}
	return b, nil
}

// Told says that the platform has a batch.
func (q *Queue) Told(b Batch) error {
	err := q.locked(func() error {
		return errors.Join(q.remove(b.items), q.forget(b.told))
	})
	if err != nil {
		return fmt.Errorf("clear the queue of events: %w", err)
	}
	return nil
}

// Refused says that the platform won't take a batch, ever: its events are given up, and counted. What says how many were given up never is: it
// is told another time, with these.
func (q *Queue) Refused(b Batch) error {
	err := q.locked(func() error {
		var given counts
		for _, it := range b.items {
			given[it.rank]++
		}
		if err := errors.Join(q.count(given), q.takeBack(b.told)); err != nil {
			return err // what isn't counted stays
		}
		return q.remove(b.items)
	})
	if err != nil {
		return fmt.Errorf("clear the queue of events: %w", err)
	}
	return nil
}

// Size returns how many events are in the queue, and their bytes on the disk.
func (q *Queue) Size() (n int, bytes int64, err error) {
	items, err := q.list()
	if err != nil {
		return 0, 0, fmt.Errorf("read the queue of events: %w", err)
	}
	for _, it := range items {
		bytes += it.size
	}
	return len(items), bytes, nil
}
