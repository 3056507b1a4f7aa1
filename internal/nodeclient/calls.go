package nodeclient

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

const hintPlatform = "look into the platform's log, and compare its version with the agent's"

// Modules returns the modules that are assigned to the node. IDs are sound and occur once; a
// caller judges each module by CheckModule, so that a bad one doesn't keep the good ones away.
func (c *Client) Modules(ctx context.Context) (*nodeapi.ModuleList, error) {
	const doing = "list the node's modules"
	var raw json.RawMessage
	if err := c.read(ctx, nodehttp.Call{Doing: doing, Path: nodeapi.PathModules, Into: &raw}); err != nil {
		return nil, err
	}
	list, err := decodeList(raw)
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: %w", doing, err)
	}
	return list, nil
}

// RegistryAccess returns what opens a repository, "host/path", in a registry that isn't the platform's own. It is empty where the platform
// has nothing, or doesn't know the call.
func (c *Client) RegistryAccess(ctx context.Context, repository string) (nodeapi.RegistryAccess, error) {
	var access nodeapi.RegistryAccess
	err := c.read(ctx, nodehttp.Call{
		Doing: fmt.Sprintf("ask for access to %.300q", repository), Into: &access,
		Path: nodeapi.PathRegistryAccess + "?" + url.Values{nodeapi.QueryRepository: {repository}}.Encode(),
	})
	if nodehttp.StatusOf(err) == http.StatusNotFound {
		return nodeapi.RegistryAccess{}, nil
	}
	return access, err
}

// Module returns one module that is assigned to the node.
func (c *Client) Module(ctx context.Context, id string) (*nodeapi.ModuleDetail, error) {
	if err := checkID(id); err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "take the ID from the list of modules", "read module %.80q: %w", id, err)
	}
	doing := "read module " + id
	var raw json.RawMessage
	if err := c.read(ctx, nodehttp.Call{Doing: doing, Path: nodeapi.PathModules + "/" + url.PathEscape(id), Into: &raw}); err != nil {
		return nil, err
	}
	detail, err := decodeDetail(raw, id)
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: %w", doing, err)
	}
	return detail, nil
}
