package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// listUnfiled says what approveUnfiled would do.
func (a *API) listUnfiled(_ http.ResponseWriter, r *http.Request) (any, error) {
	list, err := a.db.UnfiledRenewals(r.Context())
	if err != nil {
		return nil, err
	}
	return unfiledView(list), nil
}

// approveUnfiled approves the renewals of all nodes whose certificate the database had lost.
func (a *API) approveUnfiled(_ http.ResponseWriter, r *http.Request) (any, error) {
	list, err := a.db.ApproveUnfiled(r.Context())
	for _, u := range list {
		if u.Left == nil {
			a.logDecided(u.NodeID, []db.Renewal{u.Renewal})
		}
	}
	if err != nil {
		return nil, err
	}
	return unfiledView(list), nil
}

func unfiledView(list []db.UnfiledRenewal) operatorapi.UnfiledList {
	out := operatorapi.UnfiledList{Renewals: []operatorapi.UnfiledRenewal{}, Left: []operatorapi.UnfiledRenewal{}}
	for _, u := range list {
		view := operatorapi.UnfiledRenewal{NodeID: u.NodeID, NodeName: u.NodeName, Renewal: renewalView(u.Renewal)}
		if u.Left == nil {
			out.Renewals = append(out.Renewals, view)
			continue
		}
		view.Why = u.Left.Error()
		out.Left = append(out.Left, view)
	}
	return out
}
