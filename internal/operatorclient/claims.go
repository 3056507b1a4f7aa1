package operatorclient

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// Claims lists the machines that ask to become a node.
func (c *Client) Claims(ctx context.Context) (operatorapi.ClaimList, error) {
	return call[operatorapi.ClaimList](ctx, c, http.MethodGet, operatorapi.PathClaims, nil)
}

// AcceptClaim gives the machine that shows code a node; doing it again changes nothing.
func (c *Client) AcceptClaim(ctx context.Context, code string, in operatorapi.ClaimAccept) (operatorapi.Claim, error) {
	return call[operatorapi.Claim](ctx, c, http.MethodPost, withCode(operatorapi.PathClaimAccept, code), in)
}

// RejectClaim refuses the machine that shows code.
func (c *Client) RejectClaim(ctx context.Context, code string) (operatorapi.Claim, error) {
	return call[operatorapi.Claim](ctx, c, http.MethodPost, withCode(operatorapi.PathClaimReject, code), struct{}{})
}

// withCode puts a claim code into a path, as exactly one segment.
func withCode(path, code string) string {
	return strings.ReplaceAll(path, "{code}", url.PathEscape(code))
}
