package agentcli

import (
	"context"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
)

// afresh is the platform as somebody meets it who was never connected to it: each call has a client and a connection of its own.
// A connection from before a change may go on where no new one comes about any more, and shows nothing.
type afresh struct {
	open func() (*nodeclient.Client, error)
}

// Modules implements reconcile.Platform.
func (a afresh) Modules(ctx context.Context) (*nodeapi.ModuleList, error) {
	client, err := a.open()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Modules(ctx)
}
