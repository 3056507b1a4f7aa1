package db

import (
	"context"
	"sync"
)

// Watch returns a channel that holds a word after each committed transaction that notified the topic, in this process or in
// another one over the same PostgreSQL, until ctx ends. Several at once are one word, and one may come without cause: who is woken looks.
// Nothing is missed by who calls Watch first and looks afterwards, but where the connection to PostgreSQL was lost; that wakes everyone
// once it is there again.
func (d *DB) Watch(ctx context.Context, topic string) <-chan struct{} { return d.hub.watch(ctx, topic) }

// hub wakes those who wait for topics in this process.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[chan struct{}]struct{}
}

func newHub() *hub { return &hub{watchers: map[string]map[chan struct{}]struct{}{}} }

func (h *hub) watch(ctx context.Context, topic string) <-chan struct{} {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[topic] == nil {
		h.watchers[topic] = map[chan struct{}]struct{}{}
	}
	h.watchers[topic][ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers[topic], ch)
		if len(h.watchers[topic]) == 0 {
			delete(h.watchers, topic)
		}
	})
	return ch
}

func (h *hub) wake(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.watchers[topic] {
		poke(ch)
	}
}

func (h *hub) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, watchers := range h.watchers {
		for ch := range watchers {
			poke(ch)
		}
	}
}

// poke leaves a word unless one is there.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
