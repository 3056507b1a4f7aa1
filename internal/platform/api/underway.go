package api

import (
	"net/http"
	"sync"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// maxCalls is how many calls of the node_api one node may have under way: an agent has some six, and those whose end it hasn't heard of. They hold
// places among the heartbeats of all nodes, and the turns of the database, so one that was taken over is to have few of either.
const maxCalls = 16

// underWay counts calls that are under way, by node.
type underWay struct {
	most int

	mu    sync.Mutex
	count map[string]int
}

func newUnderWay(most int) *underWay { return &underWay{most: most, count: map[string]int{}} }

// enter reports whether the node may have another; leave must follow if so.
func (u *underWay) enter(nodeID string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[nodeID] >= u.most {
		return false
	}
	u.count[nodeID]++
	return true
}

func (u *underWay) leave(nodeID string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[nodeID]--; u.count[nodeID] == 0 {
		delete(u.count, nodeID)
	}
}

// few lets a node have so many calls under way.
func (a *API) few(serve nodeHandler) nodeHandler {
	return func(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
		if !a.calls.enter(node.NodeID) {
			return nil, crowded(w, "this node has %d calls under way", maxCalls)
		}
		defer a.calls.leave(node.NodeID)
		return serve(w, r, node)
	}
}

// crowded refuses a node that has too much under way.
func crowded(w http.ResponseWriter, format string, args ...any) *problem {
	w.Header().Set("Retry-After", retryAfter)
	return refuse(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, format, args...)
}
