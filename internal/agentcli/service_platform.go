package agentcli

import (
	"context"
	"sync"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// nodePlatform is the platform by the credentials on the disk, which need not be there when the service
// starts: a node may be enrolled while it runs. It may be used by several goroutines.
type nodePlatform struct {
	keeper *enroll.Keeper
	open   func() (*nodeclient.Client, error)

	mu     sync.Mutex
	client *nodeclient.Client
}

func newNodePlatform(keeper *enroll.Keeper) *nodePlatform {
	return &nodePlatform{keeper: keeper, open: func() (*nodeclient.Client, error) {
		return nodeclient.New(nodeclient.Config{
			Credentials: keeper, HTTP: nodehttp.Options{Now: keeper.Now}, Prepare: keeper.Prepare, Heard: keeper.Heard,
		})
	}}
}

func (p *nodePlatform) load() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return nil
	}
	client, err := p.open()
	if err != nil {
		return err
	}
	p.client = client
	return nil
}

func (p *nodePlatform) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		p.client.Close()
	}
}

// Heartbeat implements runtime.Platform.
func (p *nodePlatform) Heartbeat(ctx context.Context, hb nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.Heartbeat(ctx, hb)
}

// BootReport implements runtime.BootPlatform.
func (p *nodePlatform) BootReport(ctx context.Context, report nodeapi.BootReport) error {
	if err := p.load(); err != nil {
		return err
	}
	return p.client.BootReport(ctx, report)
}

// LeaseTasks implements runtime.TaskPlatform.
func (p *nodePlatform) LeaseTasks(ctx context.Context, r nodeapi.LeaseRequest) (*nodeapi.LeaseResponse, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.LeaseTasks(ctx, r)
}

// RenewTask implements runtime.TaskPlatform.
func (p *nodePlatform) RenewTask(ctx context.Context, id string, r nodeapi.RenewTask) (*nodeapi.TaskStanding, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.RenewTask(ctx, id, r)
}

// TaskProgress implements runtime.TaskPlatform.
func (p *nodePlatform) TaskProgress(ctx context.Context, id string, r nodeapi.TaskProgress) (*nodeapi.TaskStanding, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.TaskProgress(ctx, id, r)
}

// CompleteTask implements runtime.TaskPlatform.
func (p *nodePlatform) CompleteTask(ctx context.Context, id string, r nodeapi.CompleteTask) (*nodeapi.TaskEnd, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.CompleteTask(ctx, id, r)
}

// FailTask implements runtime.TaskPlatform.
func (p *nodePlatform) FailTask(ctx context.Context, id string, r nodeapi.FailTask) (*nodeapi.TaskEnd, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.FailTask(ctx, id, r)
}

// Events implements runtime.EventPlatform.
func (p *nodePlatform) Events(ctx context.Context, events []nodeapi.Event) error {
	if err := p.load(); err != nil {
		return err
	}
	return p.client.Events(ctx, events)
}
