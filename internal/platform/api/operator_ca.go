package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// namedNodes is how many nodes that are behind an error names; the list has them all.
const namedNodes = 10

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

func (a *API) prepareCA(_ http.ResponseWriter, r *http.Request) (any, error) {
	return a.changeCA(r.Context(), db.EventCAPrepared, func(context.Context) (string, error) {
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

func (a *API) retireCA(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.CARetire](w, r)
	if err != nil {
		return nil, err
	}
	return a.changeCA(r.Context(), db.EventCARetired, func(ctx context.Context) (string, error) {
		id, err := a.toRetire(in.Authority)
		if err != nil {
			return "", err
		}
		left, err := a.mayRetire(ctx, id, in.Force)
		if err != nil {
			return "", err
		}
		text := "authority " + id + " is trusted no more, and its key is destroyed"
		if left > 0 {
			text += fmt.Sprintf("; by force, with %d nodes behind", left)
		}
		if err := a.ca.Retire(id); err != nil {
			return "", err
		}
		return text, a.EndRetired(ctx)
	})
}

// toRetire returns the ID of the authority that is meant.
func (a *API) toRetire(id string) (string, error) {
	if id != "" {
		return id, nil
	}
	for _, x := range a.ca.Authorities() {
		if x.State == ca.Trusted {
			return x.ID, nil
		}
	}
	return "", invalid("no authority is on its way out").withHint("prepare and activate another one first, or name one that is prepared to drop it")
}

// mayRetire returns how many nodes are behind; more than none is an error, unless forced.
func (a *API) mayRetire(ctx context.Context, id string, force bool) (int, error) {
	for _, x := range a.ca.Authorities() {
		// Nobody holds anything by one that never signed.
		if x.ID == id && x.State == ca.Prepared {
			return 0, nil
		}
	}
	holders, err := a.db.Holders(ctx)
	if err != nil {
		return 0, err
	}
	list := behind(holders, a.ca, id, a.now())
	if len(list) == 0 || force {
		return len(list), nil
	}
	var names []string
	for i, n := range list {
		if i == namedNodes {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, n.name+" ("+strings.Join(n.reasons, "; ")+")")
	}
	return 0, refuse(http.StatusConflict, nodeapi.CodeConflict, "authority %s is still needed by %d nodes: %s", id, len(list), strings.Join(names, ", ")).
		withHint("wait until their heartbeats have come, see powernode ca list; --force leaves these nodes behind")
}

// changeCA makes one change, one at a time, and records what do says of it.
func (a *API) changeCA(ctx context.Context, kind string, do func(ctx context.Context) (string, error)) (any, error) {
	a.rolling.Lock()
	defer a.rolling.Unlock()
	// Who goes away while it is under way doesn't leave half of it.
	ctx = context.WithoutCancel(ctx)
	text, err := do(ctx)
	if err != nil {
		return nil, err
	}
	a.log.Info("the certificate authority changed", "what", text)
	if err := a.db.RecordEvent(ctx, kind, "", text); err != nil {
		return nil, err
	}
	if a.caChanged != nil {
		if err := a.caChanged(ctx); err != nil {
			return nil, fmt.Errorf("after a change of the certificate authority: %w", err)
		}
	}
	return a.caList(ctx)
}
