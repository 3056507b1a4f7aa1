package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// revokeNode ends a node's certificates, or one of them.
func (a *API) revokeNode(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	in, err := readStrict[operatorapi.RevokeRequest](w, r)
	if err != nil {
		return nil, err
	}
	done, err := a.db.Revoke(r.Context(), node.ID, strings.ToUpper(in.Serial))
	if isNotFound(err) {
		return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "node %s has no certificate %.64q", node.Name, in.Serial).
			withHint("see powernode node show " + node.Name)
	}
	if err != nil {
		return nil, err
	}
	a.log.Info("revoked", "node", node.ID, "certificates", len(done.Serials), "tokens", done.Tokens)
	return operatorapi.RevokeResult{Serials: append([]string{}, done.Serials...), Tokens: done.Tokens}, nil
}

// approveNode takes an operator's word about a node's renewals, and about what called for attention.
func (a *API) approveNode(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	in, err := readStrict[operatorapi.ApproveRequest](w, r)
	if err != nil {
		return nil, err
	}
	done, err := a.db.Decide(r.Context(), db.Decision{NodeID: node.ID, Renewal: in.Renewal, Deny: in.Deny})
	switch {
	case errors.Is(err, db.ErrNothingWaits):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "nothing of node %s waits for an approval", node.Name).
			withHint("see powernode node show " + node.Name)
	case errors.Is(err, db.ErrSeveralWait):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "several renewals of node %s wait: only one machine can be it", node.Name).
			withHint("choose one of powernode node show " + node.Name + " with --renewal")
	case err != nil:
		return nil, err
	}
	return operatorapi.ApproveResult{Renewals: renewalViews(done.Renewals), Cleared: append([]string{}, done.Cleared...)}, nil
}

func renewalViews(list []db.Renewal) []operatorapi.Renewal {
	views := []operatorapi.Renewal{}
	for _, r := range list {
		views = append(views, operatorapi.Renewal{
			ID: r.ID, Serial: r.Serial, Reason: r.Reason, State: string(r.State), AskedAt: r.AskedAt, LastAskedAt: r.LastAskedAt,
			From: r.From, DMIUUID: r.DMIUUID, AgentVersion: r.AgentVersion,
		})
	}
	return views
}

func (a *API) certificateView(c db.Certificate) operatorapi.Certificate {
	state := operatorapi.CertificateInForce
	switch ended := c.Ended(a.now()); {
	case errors.Is(ended, db.ErrRevoked):
		state = operatorapi.CertificateRevoked
	case errors.Is(ended, db.ErrSuperseded):
		state = operatorapi.CertificateSuperseded
	case errors.Is(ended, db.ErrExpired):
		state = operatorapi.CertificateExpired
	case c.UsedAt == nil:
		state = operatorapi.CertificateUnused
	}
	return operatorapi.Certificate{
		ID: c.ID, Serial: c.Serial, State: state, Origin: string(c.Origin), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		UsedAt: c.UsedAt, SupersededAt: c.SupersededAt, RevokedAt: c.RevokedAt,
	}
}

// concerns is what waits for an operator: at one node, or at all where nodeID is "".
type concerns struct {
	attention map[string]map[db.AttentionKind]string
	renewals  map[string][]db.Renewal
}

func (a *API) concerns(ctx context.Context, nodeID string) (concerns, error) {
	var c concerns
	var err error
	if c.attention, err = a.db.Attention(ctx, nodeID); err != nil {
		return c, err
	}
	list, err := a.db.Renewals(ctx, nodeID)
	c.renewals = map[string][]db.Renewal{}
	for _, r := range list {
		c.renewals[r.NodeID] = append(c.renewals[r.NodeID], r)
	}
	return c, err
}

// into puts what waits at a node into what the operator sees of it.
func (c concerns) into(n *operatorapi.Node) {
	for _, kind := range slices.Sorted(maps.Keys(c.attention[n.ID])) {
		n.Attention = append(n.Attention, c.attention[n.ID][kind])
	}
	for _, r := range c.renewals[n.ID] {
		if r.State == db.RenewalWaiting {
			n.WaitingRenewals++
		}
	}
}
