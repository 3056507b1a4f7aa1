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

func (a *API) retireCA(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.CARetire](w, r)
	if err != nil {
		return nil, err
	}
	effect := ""
	list, err := a.changeCA(r.Context(), db.EventCARetired, func(ctx context.Context) (string, error) {
		id, err := a.toRetire(in.Authority)
		if err != nil {
			return "", err
		}
		if effect, err = a.mayRetire(ctx, id, in.Force); err != nil {
			return "", err
		}
		text := "authority " + id + " is trusted no more, and its key is destroyed"
		if effect != "" {
			text += "; by force: " + effect
		}
		if err := a.ca.Retire(id); err != nil {
			return "", err
		}
		return text, a.EndRetired(ctx)
	})
	if err == nil && effect != "" {
		list.Attention = append(list.Attention, effect)
	}
	return list, err
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

// mayRetire says what the retiring does to the nodes that are behind, "" where none is. Unless forced, that is an error.
func (a *API) mayRetire(ctx context.Context, id string, force bool) (effect string, err error) {
	for _, x := range a.ca.Authorities() {
		// Nobody holds anything by one that never signed.
		if x.ID == id && x.State == ca.Prepared {
			return "", nil
		}
	}
	holders, err := a.db.Holders(ctx)
	if err != nil {
		return "", err
	}
	list := behind(holders, a.ca, id, a.now())
	if len(list) == 0 {
		return "", nil
	}
	effect = a.retirement(holders, id, len(list))
	if force {
		return effect, nil
	}
	var names []string
	for i, n := range list {
		if i == namedNodes {
			names = append(names, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		names = append(names, n.name+" ("+strings.Join(n.reasons, "; ")+")")
	}
	return "", refuse(http.StatusConflict, nodeapi.CodeConflict, "authority %s is still needed by %d nodes: %s", id, len(list), strings.Join(names, ", ")).
		withHint("wait until their heartbeats have come, see powernode ca list; with --force: " + effect)
}

// retirement says how many nodes hold certificates by an authority, and what becomes of those and of all that are behind
// once it is retired, under the present policy.
func (a *API) retirement(holders []db.Holder, id string, behind int) string {
	now, bundle, leads := a.now(), a.ca.BundleSHA256(), a.ca.Leads(id)
	holding, lost := map[string]bool{}, map[string]bool{}
	for _, h := range holders {
		if now.Before(h.NotAfter) && a.ca.Issuer(h.PEM) == id {
			holding[h.NodeID] = true
		}
		if !leads && h.BundleSHA256 != bundle {
			lost[h.NodeID] = true
		}
	}
	renewing := 0
	for node := range holding {
		if !lost[node] {
			renewing++
		}
	}
	words := []string{fmt.Sprintf("%s a certificate by authority %s, which ends with it", counted(len(holding), "node holds", "nodes hold"), id)}
	if renewing > 0 {
		words = append(words, fmt.Sprintf("under --renew-expired %s %s", a.renewPolicy, a.renewPolicy.fate(renewing)))
	}
	if len(lost) > 0 {
		words = append(words, fmt.Sprintf("%s of trusting the present bundle, and nothing leads from authority %s to the active one: who doesn't trust that reaches the platform no more, and needs the CA and a new token",
			counted(len(lost), "node hasn't told", "nodes haven't told"), id))
	}
	if n := behind - len(holding); n > 0 && len(lost) == 0 {
		words = append(words, fmt.Sprintf("%s of trusting the present bundle, which harms nothing: a cross-certificate leads to it", counted(n, "more node hasn't told", "more nodes haven't told")))
	}
	return strings.Join(words, "; ")
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
