package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// caBundle answers with the authorities that nodes shall trust. It is for everyone, and proves nothing by
// itself: a node adopts it only if the authority has signed its SHA-256 with the time.
func (a *API) caBundle(http.ResponseWriter, *http.Request) (any, error) {
	bundle := a.ca.Bundle()
	sum := sha256.Sum256(bundle)
	return nodeapi.CAResponse{BundlePEM: string(bundle), BundleSHA256: hex.EncodeToString(sum[:])}, nil
}

// ofCurrent reports whether the authority that signs now signed the certificate of a request's connection.
func (a *API) ofCurrent(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && a.ca.Current(r.TLS.PeerCertificates[0])
}

// Once an authority is activated, every node is to have a new certificate. They are asked so many each second, lest
// all of a large fleet come with one heartbeat's interval.
const (
	refreshesAtOnce = 20
	refreshSpan     = time.Second
)

// wantsRefresh reports whether the caller is to get a certificate of the present authority now.
func (a *API) wantsRefresh(r *http.Request) bool { return !a.ofCurrent(r) && a.refreshes.allow() }

// EndRetired ends, on file, the certificates that retired authorities signed. It is called at each start,
// too: an authority is retired before the certificates are ended, and the power may go between.
func (a *API) EndRetired(ctx context.Context) error {
	retired := map[string]bool{}
	for _, authority := range a.ca.Authorities() {
		retired[authority.ID] = authority.State == ca.Retired
	}
	if len(retired) < 2 {
		return nil
	}
	holders, err := a.db.Holders(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for _, h := range holders {
		if retired[a.ca.Issuer(h.PEM)] {
			ids = append(ids, h.CertificateID)
		}
	}
	return a.db.EndCertificates(ctx, ids)
}

// behindNode is a node that isn't done with an authority.
type behindNode struct {
	id, name string
	reasons  []string
}

// behind returns the nodes that would lose by the retiring of an authority: those that hold a certificate
// by it, and those that don't say that they trust the present bundle. A node whose certificates have all
// expired counts only where nothing leads from that authority to the active one: otherwise it still knows
// the platform, and renews. An empty ID asks for those only that don't trust the bundle yet.
func behind(holders []db.Holder, c *ca.CA, id string, now time.Time) []behindNode {
	leads, bundle := id == "" || c.Leads(id), c.BundleSHA256()
	var list []behindNode
	at := map[string]int{}
	add := func(h db.Holder, reason string) {
		i, known := at[h.NodeID]
		if !known {
			i = len(list)
			at[h.NodeID] = i
			list = append(list, behindNode{id: h.NodeID, name: h.NodeName})
		}
		for _, have := range list[i].reasons {
			if have == reason {
				return
			}
		}
		list[i].reasons = append(list[i].reasons, reason)
	}
	for _, h := range holders {
		inForce := now.Before(h.NotAfter)
		if inForce && id != "" && c.Issuer(h.PEM) == id {
			add(h, fmt.Sprintf("its certificate %s by this authority is in force until %s", h.Serial, h.NotAfter.Format(time.RFC3339)))
		}
		if h.BundleSHA256 == bundle || !inForce && leads {
			continue
		}
		if h.ReportedAt == nil {
			add(h, "it has sent no heartbeat")
		} else {
			add(h, fmt.Sprintf("its last heartbeat, of %s, doesn't say that it trusts the present bundle", h.ReportedAt.Format(time.RFC3339)))
		}
	}
	return list
}
