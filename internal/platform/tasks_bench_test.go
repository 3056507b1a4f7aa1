package platform_test

import (
	"net/http"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// BenchmarkTaskDispatch is the time from an operator's call for a task to the node's having it, while the node waits: two requests over
// TLS, each with a connection of its own, and three writes.
func BenchmarkTaskDispatch(b *testing.B) {
	p := platformtest.Start(b)
	node := p.Enroll("n", "amd64")
	waiting := make(chan struct{})
	got := make(chan nodeapi.LeasedTask)
	go func() {
		defer close(got)
		for range waiting {
			var out nodeapi.LeaseResponse
			p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60}).Into(&out)
			for _, t := range out.Tasks {
				got <- t
			}
		}
	}()
	defer close(waiting)
	for b.Loop() {
		waiting <- struct{}{}
		if _, err := p.Operator.CreateTask(b.Context(), "n", operatorapi.TaskCreate{Kind: "sync"}); err != nil {
			b.Fatal(err)
		}
		task := <-got
		b.StopTimer()
		p.Do(node, http.MethodPost, nodeapi.TaskPath(nodeapi.PathTaskComplete, task.ID), nodeapi.CompleteTask{LeaseID: task.LeaseID}).Into(new(nodeapi.TaskEnd))
		b.StartTimer()
	}
}
