package api

import "sync"

// maxPolls is how many calls that wait for tasks one node may have under way: one, and those that it has given up.
const maxPolls = 4

// polls counts the calls that wait, by node.
type polls struct {
	// draining is closed when none is to wait any more.
	draining chan struct{}

	mu    sync.Mutex
	count map[string]int
	drain sync.Once
}

func newPolls() *polls { return &polls{draining: make(chan struct{}), count: map[string]int{}} }

// enter reports whether the node may have another; leave must follow if so.
func (p *polls) enter(nodeID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[nodeID] >= maxPolls {
		return false
	}
	p.count[nodeID]++
	return true
}

func (p *polls) leave(nodeID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[nodeID]--; p.count[nodeID] == 0 {
		delete(p.count, nodeID)
	}
}

// Drain answers the calls that wait for tasks, and has none wait any more: the platform is about to stop.
func (a *API) Drain() { a.polls.drain.Do(func() { close(a.polls.draining) }) }
