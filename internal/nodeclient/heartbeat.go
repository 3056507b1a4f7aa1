package nodeclient

import (
	"context"
	"net/http"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Heartbeat tells the platform how the node is, in one attempt: a heartbeat's loop has its own
// rhythm. The node's state is left out where the platform has said that it has it, and told at once where it then asks for it; hb's
// StateHash is set here.
func (c *Client) Heartbeat(ctx context.Context, hb nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	if hb.ModuleDigests == nil {
		hb.ModuleDigests = map[string]string{}
	}
	hb.Remarks = clipTexts(hb.Remarks, nodeapi.MaxRemarks)
	hb.StateHash = hb.Hash()
	if c.stateKnown(hb.StateHash) {
		answer, err := c.beat(ctx, hb.Pulse(), hb.StateHash)
		if err != nil || !answer.WantState {
			return answer, err
		}
	}
	return c.beat(ctx, hb, hb.StateHash)
}

// beat sends a heartbeat, whole or not, and remembers which state the platform has afterwards.
func (c *Client) beat(ctx context.Context, body any, hash string) (*nodeapi.HeartbeatResponse, error) {
	var answer nodeapi.HeartbeatResponse
	err := c.do(ctx, nodehttp.Call{Doing: "send the heartbeat", Method: http.MethodPost, Path: nodeapi.PathHeartbeat, Body: body, Into: &answer})
	if err == nil && !answer.Acknowledged {
		err = fault.New(fault.Retry, fault.Platform, hintPlatform, "send the heartbeat: the platform didn't acknowledge it")
	}
	if err != nil {
		// It may be another platform by now, or a restored one: it hears all.
		c.stateIs("")
		return nil, err
	}
	known := ""
	if answer.StateHash == hash && !answer.WantState {
		known = hash
	}
	c.stateIs(known)
	return &answer, nil
}

func (c *Client) stateKnown(hash string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known == hash
}

func (c *Client) stateIs(hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = hash
}
