package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// What an agent with its defaults asks for: a place for a task that changes the root, four beside, for 50 s.
const (
	leaseMax  = 5
	leaseWait = 50 * time.Second
)

// node is a simulated node.
type node struct {
	id identity
	// heart is the connection of its heartbeats, tasks that on which it waits for tasks.
	heart, tasks line
	state        nodeapi.Heartbeat
	// known says that the platform has the state.
	known bool
	// beating says that a heartbeat is under way.
	beating atomic.Bool
	// asked is when the operator asked for a task of it, in nanoseconds since the epoch; 0 while there is none.
	asked atomic.Int64
}

// newNode returns a node with eight modules.
func newNode(id identity, at endpoint) *node {
	n := &node{id: id, heart: line{endpoint: at}, tasks: line{endpoint: at}}
	n.state = nodeapi.Heartbeat{
		BootID: "6b0f9f2e-1d1c-4b0e-9f5d-2a1f4f1c0e11", AgentVersion: "v1.0.0", Architecture: "amd64", UptimeSeconds: 86_400,
		ModuleDigests: map[string]string{}, MountState: nodeapi.MountMounted, LoadAverage: "0.12 0.34 0.56", MemoryFreeKB: 1_234_567,
		RootDigest: fmt.Sprintf("%064x", 1), IntegrityLevel: "enforced", Generation: 7, Machine: nodeapi.Machine{DMIUUID: id.ID},
	}
	for i := range 8 {
		n.state.ModuleDigests[fmt.Sprintf("5f4dcc3b-0dfc-400a-89a7-%012x", i)] = fmt.Sprintf("sha256:%064x", i)
	}
	n.state.StateHash = n.state.Hash()
	return n
}

// beat sends a heartbeat as the agent does: a pulse where the platform has the state, and the whole where it hasn't.
func (n *node) beat(ctx context.Context) error {
	if n.known {
		answer, err := n.say(ctx, n.state.Pulse())
		if err != nil || !answer.WantState {
			return err
		}
	}
	_, err := n.say(ctx, n.state)
	return err
}

func (n *node) say(ctx context.Context, heartbeat any) (answer nodeapi.HeartbeatResponse, err error) {
	err = n.heart.call(ctx, request(n.heart.endpoint.address, nodeapi.PathHeartbeat, heartbeat), &answer)
	if err == nil && !answer.Acknowledged {
		err = fmt.Errorf("node %s: a heartbeat wasn't acknowledged", n.id.Name)
	}
	n.known = err == nil && answer.StateHash == n.state.StateHash && !answer.WantState
	return answer, err
}

// wait asks for tasks and waits for them, again and again until ctx ends. told is called with each task and with each error.
//
// Each call has goroutines of its own: one that only waits has a small stack.
func (n *node) wait(ctx context.Context, told func(n *node, t nodeapi.LeasedTask, err error)) {
	if ctx.Err() != nil {
		return
	}
	err := n.tasks.send(ctx, n.lease(leaseWait), leaseWait)
	if err != nil {
		n.tasks.close()
		n.again(ctx, err, told)
		return
	}
	go func() {
		// What is wrong with the connection is found by reading.
		_ = n.tasks.await()
		go n.answered(ctx, told)
	}()
}

// lease returns the call for tasks.
func (n *node) lease(wait time.Duration) []byte {
	return request(n.tasks.endpoint.address, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: leaseMax, WaitSeconds: int(wait / time.Second), Holding: []string{}})
}

// answered reads what there is to read, does the tasks, and waits again.
func (n *node) answered(ctx context.Context, told func(n *node, t nodeapi.LeasedTask, err error)) {
	var answer nodeapi.LeaseResponse
	err := n.tasks.receive(&answer)
	for i := 0; err == nil && i < len(answer.Tasks); i++ {
		t := answer.Tasks[i]
		told(n, t, nil)
		err = n.complete(ctx, &n.tasks, t)
	}
	n.again(ctx, err, told)
}

// complete ends a task.
func (n *node) complete(ctx context.Context, l *line, t nodeapi.LeasedTask) error {
	return l.call(ctx, request(l.endpoint.address, nodeapi.TaskPath(nodeapi.PathTaskComplete, t.ID), nodeapi.CompleteTask{LeaseID: t.LeaseID}), new(nodeapi.TaskEnd))
}

// again waits again, after an error not at once.
func (n *node) again(ctx context.Context, err error, told func(n *node, t nodeapi.LeasedTask, err error)) {
	if err != nil {
		if ctx.Err() == nil {
			told(n, nodeapi.LeasedTask{}, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	n.wait(ctx, told)
}

// connect opens the node's connections and says who it is: with a first heartbeat, and, if it is to wait for tasks, with a call that
// doesn't wait.
func (n *node) connect(ctx context.Context, waits bool) error {
	if err := n.beat(ctx); err != nil || !waits {
		return err
	}
	return n.tasks.call(ctx, n.lease(0), new(nodeapi.LeaseResponse))
}
