package nodehttp

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

const (
	// idleConnections is how many connections to the platform are kept for the next calls: a node's service has a call for tasks, a
	// heartbeat, and what it tells of a task at the same time.
	idleConnections = 4
	// mostSends is how often one attempt at a call is sent: each kept connection may have ended unseen.
	mostSends = idleConnections + 1
)

// bounded returns a context of one attempt, which it stops with errBroken where it is sent more often than mostSends. net/http sends a
// request for something again, at once and without a bound, as long as the connection that broke was one it had kept; and it takes
// those for kept that it dialled for the time before and had no use for then. One such is enough, and whoever ends each connection with
// no answer, as a balancer does before a platform that is down, is asked in a circle.
func bounded(ctx context.Context, stop context.CancelCauseFunc) context.Context {
	var sends atomic.Int32
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if sends.Add(1) > mostSends {
			stop(errBroken)
		}
	}})
}
