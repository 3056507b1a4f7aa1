package operatorclient

import (
	"context"
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// NodeConfig shows what is set of a node beside its modules.
func (c *Client) NodeConfig(ctx context.Context, node string) (operatorapi.NodeConfig, error) {
	return call[operatorapi.NodeConfig](ctx, c, http.MethodGet, fill(operatorapi.PathNodeConfig, node, ""), nil)
}

// ChangeNodeConfig changes that; doing it again changes nothing.
func (c *Client) ChangeNodeConfig(ctx context.Context, node string, in operatorapi.NodeConfigChange) (operatorapi.NodeConfig, error) {
	return call[operatorapi.NodeConfig](ctx, c, http.MethodPost, fill(operatorapi.PathNodeConfig, node, ""), in)
}
