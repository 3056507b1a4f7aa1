package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// noConfig is the configuration of a node of which nothing is set.
func noConfig() (nodeapi.NodeConfig, error) { return nodeconfig.Check(nodeapi.NodeConfig{}) }

// configOf returns what is set of a node.
func (a *API) configOf(ctx context.Context, nodeID string) (db.NodeConfig, error) {
	c, err := a.db.NodeConfig(ctx, nodeID)
	if isNotFound(err) {
		c.NodeConfig, err = noConfig()
	}
	return c, err
}

// configDigest returns the digest of that, for every heartbeat.
func (a *API) configDigest(ctx context.Context, nodeID string) (string, error) {
	digest, err := a.db.ConfigDigest(ctx, nodeID)
	if isNotFound(err) {
		var none nodeapi.NodeConfig
		none, err = noConfig()
		digest = none.Digest
	}
	return digest, err
}

// nodeConfig tells a node what is set of it.
func (a *API) nodeConfig(_ http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	c, err := a.configOf(r.Context(), node.NodeID)
	return c.NodeConfig, err
}

// nodeKeys tells a node the keys of one user, as the existing platform does: root's where root has some, else
// those of the first that has. Where nobody has, it answers 404, since the existing agent takes an empty
// list for an order to empty the file.
func (a *API) nodeKeys(_ http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	c, err := a.configOf(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	users := slices.DeleteFunc(c.Users, func(u nodeapi.UserKeys) bool { return len(u.AuthorizedKeys) == 0 })
	if len(users) == 0 {
		return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "no authorized keys are set for this node")
	}
	u := users[0]
	if i := slices.IndexFunc(users, func(u nodeapi.UserKeys) bool { return u.Name == "root" }); i >= 0 {
		u = users[i]
	}
	return nodeapi.AuthorizedKeys{AuthorizedKeys: strings.Join(u.AuthorizedKeys, "\n"), KeysCount: len(u.AuthorizedKeys), TargetUser: u.Name, Config: true}, nil
}
