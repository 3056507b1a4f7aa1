package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

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
	if in.Attention && (in.Deny || in.Renewal != "") {
		return nil, invalid("attention is neither denied nor a renewal: it goes with neither").withHint("see powernode node approve --help")
	}
	done, err := a.db.Decide(r.Context(), db.Decision{NodeID: node.ID, Renewal: in.Renewal, Attention: in.Attention, Deny: in.Deny})
	if err != nil {
		return nil, undecided(err, node.Name, done)
	}
	a.logDecided(node.ID, done.Renewals)
	return operatorapi.ApproveResult{Renewals: renewalViews(done.Renewals), Cleared: append([]string{}, done.Cleared...)}, nil
}

func (a *API) logDecided(nodeID string, list []db.Renewal) {
	for _, r := range list {
		a.log.Info("renewal decided", "node", nodeID, "renewal", r.ID, "state", r.State, "serial", r.Serial, "from", r.From)
	}
}

// undecided tells the operator why a word about a node can't be meant, and between what there is to choose.
func undecided(err error, node string, may db.Decided) error {
	conflict := func(hint, format string, args ...any) error {
		return refuse(http.StatusConflict, nodeapi.CodeConflict, format, args...).withHint(hint)
	}
	see := "powernode node show " + node
	switch {
	case errors.Is(err, db.ErrNothingWaits):
		return conflict("see "+see, "nothing of node %s waits for an approval", node)
	case errors.Is(err, db.ErrRenewalUnsaid):
		return invalid("it takes more of a renewal's ID to name it").withHint("see " + see)
	case errors.Is(err, db.ErrSeveralWait):
		return conflict("choose one of "+see+" with --renewal: "+choices(may.Renewals), "several renewals of node %s wait: only one machine can be it", node)
	case errors.Is(err, db.ErrNotOneMatter):
		return conflict("say which is meant, after "+see+": "+choices(may.Renewals)+"; --attention says that you know of the machines that call for attention, and approves no renewal",
			"both a renewal of node %s waits and its identity calls for attention, and one may be the cause of the other", node)
	}
	return err
}

// namedRenewals is how many renewals a hint names; powernode node show has them all.
const namedRenewals = 3

// choices names renewals as flags.
func choices(list []db.Renewal) string {
	var words []string
	for i, r := range list {
		if i == namedRenewals {
			words = append(words, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		word := "--renewal " + r.ID[:min(8, len(r.ID))] + " approves that of certificate " + r.Serial + ", asked for at " + r.AskedAt.Format(time.RFC3339)
		if r.From != "" {
			word += ", last from " + r.From
		}
		words = append(words, word)
	}
	return strings.Join(words, "; ")
}

func renewalViews(list []db.Renewal) []operatorapi.Renewal {
	views := []operatorapi.Renewal{}
	for _, r := range list {
		views = append(views, renewalView(r))
	}
	return views
}

func renewalView(r db.Renewal) operatorapi.Renewal {
	return operatorapi.Renewal{
		ID: r.ID, Serial: r.Serial, Reason: r.Reason, Unfiled: r.Unfiled, State: string(r.State), AskedAt: r.AskedAt, LastAskedAt: r.LastAskedAt,
		From: r.From, DMIUUID: r.DMIUUID, AgentVersion: r.AgentVersion,
	}
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
