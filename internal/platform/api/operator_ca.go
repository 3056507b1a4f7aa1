package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

func (a *API) listCA(_ http.ResponseWriter, r *http.Request) (any, error) {
	return a.caList(r.Context())
}

func (a *API) caList(ctx context.Context) (operatorapi.CAList, error) {
	list := operatorapi.CAList{Authorities: []operatorapi.Authority{}, BundleSHA256: a.ca.BundleSHA256(), Behind: []operatorapi.CABehind{}}
	holders, err := a.db.Holders(ctx)
	if err != nil {
		return list, err
	}
	now := a.now()
	signed := map[string]int{}
	for _, h := range holders {
		if now.Before(h.NotAfter) {
			signed[a.ca.Issuer(h.PEM)]++
		}
	}
	if list.Attention, err = a.authorityTrouble(holders, now); err != nil {
		return list, err
	}
	leaving, rolling := "", false
	for _, x := range a.ca.Authorities() {
		list.Authorities = append(list.Authorities, operatorapi.Authority{
			ID: x.ID, Name: x.Name, State: operatorapi.AuthorityState(x.State), SHA256: x.Fingerprint, NotBefore: x.NotBefore, NotAfter: x.NotAfter,
			CrossSignedBy: x.CrossSignedBy, CrossNotAfter: x.CrossNotAfter, Presents: x.Presents,
			PreparedAt: x.PreparedAt, ActivatedAt: x.ActivatedAt, RetiredAt: x.RetiredAt, Certificates: signed[x.ID],
		})
		rolling = rolling || x.State == ca.Prepared || x.State == ca.Trusted
		if leaving == "" && x.State == ca.Trusted {
			leaving = x.ID
		}
	}
	if !rolling {
		return list, nil
	}
	for _, n := range behind(holders, a.ca, leaving, now) {
		list.Behind = append(list.Behind, operatorapi.CABehind{NodeID: n.id, NodeName: n.name, Reasons: n.reasons})
	}
	return list, nil
}

func (a *API) prepareCA(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.CAPrepare](w, r)
	if err != nil {
		return nil, err
	}
	return a.changeCA(r.Context(), db.EventCAPrepared, func(context.Context) (string, error) {
		if in.TakeUp != "" {
			return "authority " + in.TakeUp + " is taken up, and told to the nodes", a.ca.TakeUp(in.TakeUp)
		}
		id, err := a.ca.Prepare()
		return "authority " + id + " is made, and told to the nodes", err
	})
}

func (a *API) activateCA(_ http.ResponseWriter, r *http.Request) (any, error) {
	return a.changeCA(r.Context(), db.EventCAActivated, func(context.Context) (string, error) {
		id, err := a.ca.Activate()
		return "authority " + id + " signs from now on", err
	})
}

// changeCA makes one change, one at a time, and records what do says of it.
func (a *API) changeCA(ctx context.Context, kind string, do func(ctx context.Context) (string, error)) (operatorapi.CAList, error) {
	a.rolling.Lock()
	defer a.rolling.Unlock()
	// Who goes away while it is under way doesn't leave half of it.
	ctx = context.WithoutCancel(ctx)
	text, err := do(ctx)
	if err != nil {
		return operatorapi.CAList{}, err
	}
	a.log.Info("the certificate authority changed", "what", text)
	if err := a.db.RecordEvent(ctx, kind, "", text); err != nil {
		return operatorapi.CAList{}, err
	}
	if a.caChanged != nil {
		if err := a.caChanged(ctx); err != nil {
			return operatorapi.CAList{}, fmt.Errorf("after a change of the certificate authority: %w", err)
		}
	}
	return a.caList(ctx)
}
