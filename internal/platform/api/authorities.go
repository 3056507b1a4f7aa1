package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// authorityTrouble says what doesn't fit between the record of the authorities, their keys and the certificates on file:
// the directory with the authorities, or its record, is older than the rest.
//
// It is no reason to refuse service. Nodes that trust an authority which is on record get on, and renew what it doesn't
// vouch for; a platform that doesn't start would help none of the others.
func (a *API) authorityTrouble(holders []db.Holder, now time.Time) ([]string, error) {
	keys, err := a.ca.Unrecorded()
	if err != nil {
		return nil, fmt.Errorf("look for keys of authorities: %w", err)
	}
	held := map[string]map[string]bool{}
	for _, h := range holders {
		if !now.Before(h.NotAfter) || a.ca.Issuer(h.PEM) != "" {
			continue
		}
		name := ca.IssuerName(h.PEM)
		if held[name] == nil {
			held[name] = map[string]bool{}
		}
		held[name][h.NodeID] = true
	}
	const takeUp = "powernode ca prepare --take-up %[1]s, then powernode ca activate"
	var texts []string
	explained := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(held)) {
		text := counted(len(held[name]), "node holds", "nodes hold") + " certificates of " + name + ", which the record of the authorities doesn't name: it is older than they are, " +
			"and nodes that trust that authority alone don't get through"
		mend := "restore the directory ca of the time of the database; where there is none any more, such a node needs the CA and a new token"
		if i := slices.IndexFunc(keys, func(id string) bool { return id != "" && strings.HasSuffix(name, " "+id) }); i >= 0 {
			explained[keys[i]] = true
			mend = fmt.Sprintf("restore a newer ca/authorities.json, or take its key up, which is there: "+takeUp, keys[i])
		}
		texts = append(texts, text+"; "+mend)
	}
	for _, id := range keys {
		if !explained[id] {
			texts = append(texts, fmt.Sprintf("the record of the authorities doesn't name the key in ca/authority-%[1]s.pem: it is older than the key, or the key is left of a preparation "+
				"that was cut off; restore a newer ca/authorities.json, or take the key up with "+takeUp+", or, if no node ever heard of it, remove the file", id))
		}
	}
	return texts, nil
}

// WarnAuthorities logs what authorityTrouble finds. It is for the start.
func (a *API) WarnAuthorities(ctx context.Context) error {
	holders, err := a.db.Holders(ctx)
	if err != nil {
		return err
	}
	texts, err := a.authorityTrouble(holders, a.now())
	for _, text := range texts {
		a.log.Warn("the certificate authority needs attention", "what", text)
	}
	return err
}
