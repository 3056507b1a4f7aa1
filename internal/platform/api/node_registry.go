package api

import (
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// nodeRegistryAccess tells a node what opens the repository of one of its modules, in a registry that isn't the platform's own. Of other
// repositories it learns nothing.
func (a *API) nodeRegistryAccess(_ http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	name := r.URL.Query().Get(nodeapi.QueryRepository)
	path, ours := strings.CutPrefix(name, a.registry+"/")
	switch {
	case name == "":
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "%s is needed", nodeapi.QueryRepository)
	case a.registryAccess == nil || !ours || !registry.ValidRepository(path):
		return nil, noAccess()
	}
	assigned, err := a.db.AssignedRepository(r.Context(), node.NodeID, path)
	switch {
	case err != nil:
		return nil, err
	case !assigned:
		return nil, noAccess()
	}
	return a.registryAccess(r.Context(), path)
}

func noAccess() *problem {
	return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "the platform has nothing that opens this repository to the node")
}
