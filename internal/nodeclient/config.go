package nodeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Config returns what the platform tells of the node beside its modules. Of a platform that has only the
// call for authorized keys it is these, without a digest; one that has both and fails at this one gives that failure. What is in it is for package nodeconfig to judge.
func (c *Client) Config(ctx context.Context) (*nodeapi.NodeConfig, error) {
	const doing = "read the node's configuration"
	var raw json.RawMessage
	var missing error
	err := c.config.Retry.Run(ctx, c.config.Notify, func(ctx context.Context) error {
		err := c.do(ctx, nodehttp.Call{Doing: doing, Method: http.MethodGet, Path: nodeapi.PathConfig, Into: &raw})
		// The existing platform has the path, and fails at it always.
		if status := nodehttp.StatusOf(err); status == http.StatusNotFound || status == http.StatusInternalServerError {
			missing = err
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if missing == nil {
		config, ours, err := decodeConfig(raw)
		if err != nil {
			return nil, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: %w", doing, err)
		}
		if ours {
			return config, nil
		}
		missing = fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: the answer holds no digest", doing)
	}
	keys, err := c.authorizedKeys(ctx)
	switch {
	case nodehttp.StatusOf(err) == http.StatusNotFound:
		return nil, missing
	case err != nil:
		return nil, err // not what the platform lacks, but what happens to it now
	case keys.config:
		// It has the call, and failed at it this time: what there is isn't only these keys.
		return nil, missing
	}
	return &nodeapi.NodeConfig{Users: []nodeapi.UserKeys{keys.UserKeys}}, nil
}

// decodeConfig reads the answer to GET config. Another platform's has no digest.
func decodeConfig(raw []byte) (config *nodeapi.NodeConfig, ours bool, err error) {
	var shape struct {
		nodeapi.NodeConfig
		Digest *string             `json:"digest"`
		Users  *[]nodeapi.UserKeys `json:"users"`
	}
	if err := json.Unmarshal(raw, &shape); err != nil {
		return nil, false, notAsAgreed(err)
	}
	switch {
	case shape.Digest == nil:
		return nil, false, nil
	case !hex64.MatchString(*shape.Digest):
		return nil, false, fmt.Errorf("%.80q isn't the digest of a configuration", *shape.Digest)
	case shape.Users == nil:
		return nil, false, errors.New("the answer holds no list of users")
	case len(*shape.Users) > nodeapi.MaxConfigUsers:
		return nil, false, fmt.Errorf("the answer holds the keys of %d users, more than %d", len(*shape.Users), nodeapi.MaxConfigUsers)
	}
	shape.NodeConfig.Digest, shape.NodeConfig.Users = *shape.Digest, *shape.Users
	seen := make(map[string]bool)
	for _, u := range shape.NodeConfig.Users {
		if seen[u.Name] {
			return nil, false, fmt.Errorf("user %.60q is there twice", u.Name)
		}
		seen[u.Name] = true
	}
	return &shape.NodeConfig, true, nil
}

// oneUsersKeys is the answer to the call for authorized keys; config says that the platform has the other call.
type oneUsersKeys struct {
	nodeapi.UserKeys
	config bool
}

// authorizedKeys returns the keys of the one user whom that call is about.
func (c *Client) authorizedKeys(ctx context.Context) (oneUsersKeys, error) {
	const doing = "read the node's authorized keys"
	var answer nodeapi.AuthorizedKeys
	if err := c.read(ctx, nodehttp.Call{Doing: doing, Path: nodeapi.PathAuthorizedKeys, Into: &answer}); err != nil {
		return oneUsersKeys{}, err
	}
	if answer.TargetUser == "" {
		return oneUsersKeys{}, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: the answer doesn't say whose they are", doing)
	}
	u := oneUsersKeys{UserKeys: nodeapi.UserKeys{Name: answer.TargetUser}, config: answer.Config}
	for line := range strings.Lines(answer.AuthorizedKeys) {
		u.AuthorizedKeys = append(u.AuthorizedKeys, strings.TrimRight(line, "\r\n"))
	}
	if len(u.AuthorizedKeys) != answer.KeysCount {
		return oneUsersKeys{}, fault.New(fault.Broken, fault.Platform, hintPlatform, "%s: the answer says %d keys and holds %d", doing, answer.KeysCount, len(u.AuthorizedKeys))
	}
	return u, nil
}
