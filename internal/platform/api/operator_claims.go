package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

func (a *API) listClaims(_ http.ResponseWriter, r *http.Request) (any, error) {
	claims, err := a.db.Claims(r.Context())
	if err != nil {
		return nil, err
	}
	list := operatorapi.ClaimList{Claims: []operatorapi.Claim{}, Count: len(claims)}
	said := map[string][]db.Claim{}
	for _, c := range claims {
		said[c.MAC] = append(said[c.MAC], c)
	}
	for _, c := range claims {
		view := a.claimView(c)
		view.Remarks = append(view.Remarks, rivals(c, said[c.MAC])...)
		list.Claims = append(list.Claims, view)
	}
	return list, nil
}

// rivals says which other claims have the same MAC: two machines, or one that was installed anew.
func rivals(c db.Claim, same []db.Claim) []string {
	var remarks []string
	for _, other := range same {
		switch {
		case other.ID == c.ID:
		case other.State == db.ClaimDone:
			remarks = append(remarks, "a machine with the same MAC became node "+other.NodeName)
		default:
			remarks = append(remarks, "two machines say this MAC: "+nodeapi.ShowClaimCode(other.Code)+" does, too; compare the code with the machine's console")
		}
	}
	return remarks
}

func (a *API) claimView(c db.Claim) operatorapi.Claim {
	view := operatorapi.Claim{
		Code: nodeapi.ShowClaimCode(c.Code), State: operatorapi.ClaimState(c.State), MAC: c.MAC, Protected: c.Protected, Hostname: c.Hostname, DMIUUID: c.DMIUUID,
		Architecture: c.Architecture, AgentVersion: c.AgentVersion, PlatformHint: c.Hint, Address: c.From, NodeID: c.NodeID, NodeName: c.NodeName,
		CreatedAt: c.CreatedAt, PolledAt: c.PolledAt, ExpiresAt: c.ExpiresAt,
		// A clock that was set back makes no poll younger than now.
		SilentSeconds: int64(max(a.now().Sub(c.PolledAt), 0) / time.Second),
	}
	if !c.Protected && c.State != db.ClaimDone {
		view.Remarks = []string{"no secret of its own: whoever says this MAC gets its token"}
	}
	return view
}

func (a *API) acceptClaim(w http.ResponseWriter, r *http.Request) (any, error) {
	code, err := claimCode(r)
	if err != nil {
		return nil, err
	}
	in, err := readStrict[operatorapi.ClaimAccept](w, r)
	if err != nil {
		return nil, err
	}
	if (in.Node == "") == (in.Create == "") {
		return nil, invalid("want either node, one that there is, or create, a name for a new one")
	}
	accept := db.Acceptance{Code: code, Node: in.Node, BusySince: a.now().Add(-a.pace.silence())}
	if in.Create != "" {
		accept.Node, accept.Create = in.Create, true
		if err := checkNodeName(in.Create); err != nil {
			return nil, err
		}
	}
	if in.Replace {
		accept.BusySince = time.Time{}
	}
	c, changed, err := a.db.AcceptClaim(r.Context(), accept)
	if err != nil {
		return nil, claimProblem(err, code, accept.Node)
	}
	if changed {
		a.log.Info("claim accepted", "code", code, "mac", c.MAC, "node", c.NodeID)
	}
	return a.claimView(c), nil
}

func (a *API) rejectClaim(_ http.ResponseWriter, r *http.Request) (any, error) {
	code, err := claimCode(r)
	if err != nil {
		return nil, err
	}
	c, changed, err := a.db.RejectClaim(r.Context(), code)
	if err != nil {
		return nil, claimProblem(err, code, "")
	}
	if changed {
		a.log.Info("claim rejected", "code", code, "mac", c.MAC)
	}
	return a.claimView(c), nil
}

// claimCode reads the code that the path names.
func claimCode(r *http.Request) (string, error) {
	code, ok := nodeapi.ParseClaimCode(r.PathValue("code"))
	if !ok {
		return "", invalid("claim code %.40q: want the 8 characters that the machine shows", r.PathValue("code")).withHint("see powernode claim list")
	}
	return code, nil
}

// claimProblem tells the operator why a claim can't be decided so.
func claimProblem(err error, code, node string) error {
	code = nodeapi.ShowClaimCode(code)
	conflict := func(hint, format string, args ...any) error {
		return refuse(http.StatusConflict, nodeapi.CodeConflict, format, args...).withHint(hint)
	}
	switch {
	case errors.Is(err, db.ErrNotFound):
		return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "no machine asks with the code %s", code).
			withHint("see powernode claim list; a code is forgotten a day after its machine last asked")
	case errors.Is(err, db.ErrNoNode):
		return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no node %.100q", node).
			withHint("see powernode node list, or make it with --create " + clip(cleaned(node, operatorapi.MaxNameLength), operatorapi.MaxNameLength))
	case errors.Is(err, db.ErrExists):
		return conflict("take it with --node, or choose another name", "there is a node called %s already", node)
	case errors.Is(err, db.ErrClaimDone):
		return conflict("see powernode node list", "the machine of claim %s is enrolled already", code)
	case errors.Is(err, db.ErrClaimTaken):
		return conflict("reject it first, then accept it for the other node", "claim %s: %v", code, err)
	case errors.Is(err, db.ErrNodeInactive):
		return conflict("name another node", "node %s is out of service", node)
	case errors.Is(err, db.ErrNodeRunning):
		return conflict("name another node; --replace takes the identity away from the machine that has it", "node %s is running on a machine of its own", node)
	case errors.Is(err, db.ErrArchitecture):
		return invalid("claim %s for %s: %v", code, node, err).withHint("name another node, or make one with --create")
	}
	return err
}
