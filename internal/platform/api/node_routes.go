package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// NodeRoute is one call of the node_api.
type NodeRoute struct {
	Method, Path string
	// Anyone says that no node's certificate is needed.
	Anyone bool

	serve func(a *API) handler
}

// NodeRoutes returns every call of the node_api.
func NodeRoutes() []NodeRoute { return nodeRoutes() }

// nodeRoutes is the one place that says which calls are for everyone, and not for nodes in good standing alone. Each of those bounds
// what one address may ask for.
func nodeRoutes() []NodeRoute {
	const get, post = http.MethodGet, http.MethodPost
	anyone := func(method, path string, serve func(a *API) handler) NodeRoute {
		return NodeRoute{Method: method, Path: path, Anyone: true, serve: serve}
	}
	node := func(method, path string, serve func(*API, http.ResponseWriter, *http.Request, db.Standing) (any, error)) NodeRoute {
		return NodeRoute{Method: method, Path: path, serve: func(a *API) handler {
			return a.asNode(func(w http.ResponseWriter, r *http.Request, n db.Standing) (any, error) { return serve(a, w, r, n) })
		}}
	}
	return []NodeRoute{
		anyone(post, nodeapi.PathEnroll, func(a *API) handler { return limited(a.enrollAsked, a.enroll) }),
		anyone(post, nodeapi.PathRenew, func(a *API) handler { return a.renew }),
		anyone(post, nodeapi.PathTime, func(a *API) handler { return a.time }),
		anyone(get, nodeapi.PathCA, func(a *API) handler { return limited(a.plainAsked, a.caBundle) }),
		anyone(post, nodeapi.PathClaim, func(a *API) handler { return a.claim }),
		node(post, nodeapi.PathRefresh, (*API).refresh),
		node(post, nodeapi.PathHeartbeat, (*API).heartbeat),
		node(post, nodeapi.PathBootReports, (*API).bootReport),
		node(post, nodeapi.PathTaskLease, (*API).leaseTasks),
		node(post, nodeapi.PathTaskRenew, (*API).renewTask),
		node(post, nodeapi.PathTaskProgress, (*API).progressTask),
		node(post, nodeapi.PathTaskComplete, (*API).completeTask),
		node(post, nodeapi.PathTaskFail, (*API).failTask),
		node(post, nodeapi.PathEvents, (*API).nodeEvents),
		node(get, nodeapi.PathConfig, (*API).nodeConfig),
		node(get, nodeapi.PathAuthorizedKeys, (*API).nodeKeys),
		node(get, nodeapi.PathRegistryAccess, (*API).nodeRegistryAccess),
		node(get, nodeapi.PathModules, (*API).nodeModules),
		node(get, nodeapi.PathModules+"/{module}", (*API).nodeModule),
	}
}
