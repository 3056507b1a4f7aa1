package agentcli

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/task"
)

// deafPlatform takes heartbeats and, but for err, has no tasks.
type deafPlatform struct {
	runtime.TaskPlatform
	err error
}

func (deafPlatform) Heartbeat(context.Context, nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	return &nodeapi.HeartbeatResponse{Acknowledged: true, NextPollSeconds: 30, ServerTime: time.Now()}, nil
}

func (d deafPlatform) LeaseTasks(context.Context, nodeapi.LeaseRequest) (*nodeapi.LeaseResponse, error) {
	return &nodeapi.LeaseResponse{}, d.err
}

// nothingMounted is the state of a machine that no agent booted.
type nothingMounted struct{}

func (nothingMounted) State(context.Context) (runtime.State, error) {
	return runtime.State{Mount: nodeapi.MountUnmounted}, nil
}

// TestOnceFails: a round in which tasks can't be asked for, or done without, isn't one that went well, also where heartbeats arrive.
func TestOnceFails(t *testing.T) {
	away := fault.New(fault.Retry, fault.Platform, "", "lease tasks: it is away")
	broken := errors.New("go without tasks: no room")
	for _, c := range []struct{ lease, missing error }{{}, {lease: away}, {missing: broken}, {away, broken}} {
		j, err := task.OpenJournal(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := deafPlatform{err: c.lease}
		s := &assembled{
			config: runtime.Config{Platform: p, State: nothingMounted{}, Load: func(context.Context) error { return nil }},
			work:   &platformWork{tasks: runtime.NewTasks(runtime.TasksConfig{Platform: p, Journal: j, Boot: "boot", Once: true})},
		}
		if c.missing != nil {
			s.work.missing = []error{c.missing}
		}
		err = s.once(t.Context(), runtime.New(s.config))
		if errors.Is(err, away) != (c.lease != nil) || errors.Is(err, broken) != (c.missing != nil) || (err == nil) != (c.lease == nil && c.missing == nil) {
			t.Errorf("%+v: %v", c, err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
