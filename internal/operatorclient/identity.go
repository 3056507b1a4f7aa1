package operatorclient

import (
	"context"
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// RevokeNode ends the certificates of a node, or one of them; doing it again changes nothing.
func (c *Client) RevokeNode(ctx context.Context, node string, in operatorapi.RevokeRequest) (operatorapi.RevokeResult, error) {
	return call[operatorapi.RevokeResult](ctx, c, http.MethodPost, fill(operatorapi.PathRevoke, node, ""), in)
}

// ApproveNode approves or denies what waits at a node.
func (c *Client) ApproveNode(ctx context.Context, node string, in operatorapi.ApproveRequest) (operatorapi.ApproveResult, error) {
	return call[operatorapi.ApproveResult](ctx, c, http.MethodPost, fill(operatorapi.PathApprove, node, ""), in)
}

// Unfiled lists what ApproveUnfiled would approve.
func (c *Client) Unfiled(ctx context.Context) (operatorapi.UnfiledList, error) {
	return call[operatorapi.UnfiledList](ctx, c, http.MethodGet, operatorapi.PathUnfiled, nil)
}

// ApproveUnfiled approves, for all nodes, the renewals of certificates that weren't on file.
func (c *Client) ApproveUnfiled(ctx context.Context) (operatorapi.UnfiledList, error) {
	return call[operatorapi.UnfiledList](ctx, c, http.MethodPost, operatorapi.PathUnfiled, struct{}{})
}
