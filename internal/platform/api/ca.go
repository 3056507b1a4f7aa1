package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// caBundle answers with the authorities that nodes shall trust. It is for everyone, and proves nothing by
// itself: a node adopts it only over a connection that the bundle which it has vouches for.
func (a *API) caBundle(http.ResponseWriter, *http.Request) (any, error) {
	return nodeapi.CAResponse{BundlePEM: string(a.ca.Bundle()), BundleSHA256: a.ca.BundleSHA256()}, nil
}
