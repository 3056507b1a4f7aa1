package db

import (
	"context"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// turns has this process's transactions of one owner wait for each other before they take a connection. Those that wait on the server, for its
// lock, hold one each: a node with many calls under way would have all of the pool, and all other nodes would wait with it.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

// turn is one owner's.
type turn struct {
	// wanted is by how many, counting the one that has it.
	wanted int
	// free holds something while nobody has it.
	free chan struct{}
}

// take waits for the owner's turn, for most at most; leave must follow where there is no error. Nobody's transactions wait for no turn.
func (t *turns) take(ctx context.Context, owner string, most time.Duration) (leave func(), err error) {
	if owner == "" {
		return func() {}, nil
	}
	one := t.want(owner)
	over := time.NewTimer(most)
	defer over.Stop()
	select {
	case <-one.free:
		return func() {
			one.free <- struct{}{}
			t.drop(owner, one)
		}, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-over.C:
		err = fault.New(fault.Retry, fault.General, "see in the log what else is asked for the same node or repository", "the database is busy with the same node or repository")
	}
	t.drop(owner, one)
	return nil, err
}

func (t *turns) want(owner string) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[owner]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		if t.of == nil {
			t.of = map[string]*turn{}
		}
		t.of[owner] = one
	}
	one.wanted++
	return one
}

func (t *turns) drop(owner string, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.wanted--; one.wanted == 0 {
		delete(t.of, owner)
	}
}
