package api

import "sync"

// maxPolls is how many calls that wait for tasks one node may have under way: one, and those that it has given up.
const maxPolls = 4

// polls are the calls that wait.
type polls struct {
	*underWay
	// draining is closed when none is to wait any more.
	draining chan struct{}
	drain    sync.Once
}

func newPolls() *polls { return &polls{underWay: newUnderWay(maxPolls), draining: make(chan struct{})} }

// Drain answers the calls that wait for tasks, and has none wait any more: the platform is about to stop.
func (a *API) Drain() { a.polls.drain.Do(func() { close(a.polls.draining) }) }
