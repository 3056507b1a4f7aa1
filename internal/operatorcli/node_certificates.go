package operatorcli

import (
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// shownCertificates is how many certificates a person is shown; --output json has all that are kept.
const shownCertificates = 8

func certificateRows(list []operatorapi.Certificate) [][]string {
	var rows [][]string
	for i, c := range list {
		if i == shownCertificates {
			return append(rows, []string{fmt.Sprintf("and %d more", len(list)-i), "", "", "", "", ""})
		}
		rows = append(rows, []string{c.Serial, string(c.State), orDash(certificateSince(c)), c.Origin, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)})
	}
	return rows
}

// certificateSince returns since when a certificate has been in its state.
func certificateSince(c operatorapi.Certificate) string {
	var at *time.Time
	switch c.State {
	case operatorapi.CertificateInForce:
		at = c.UsedAt
	case operatorapi.CertificateSuperseded:
		at = c.SupersededAt
	case operatorapi.CertificateRevoked:
		at = c.RevokedAt
	case operatorapi.CertificateExpired:
		at = &c.NotAfter
	case operatorapi.CertificateUnused:
	}
	if at == nil {
		return ""
	}
	return at.Format(time.RFC3339)
}

// renewalWaiting is the state of a renewal that an operator hasn't decided.
const renewalWaiting = "waiting"

// renewalText says of a renewal what there is to know before it is approved, and how that is done.
func renewalText(n operatorapi.Node, r operatorapi.Renewal) string {
	return fmt.Sprintf("%s: certificate %s is %s, asked for %s from %s; if that machine is the node, powernode node approve %s --renewal %s",
		shortID(r.ID), r.Serial, renewalReason(r), r.AskedAt.Format(time.RFC3339), orDash(r.From), n.Name, shortID(r.ID))
}

func renewalReason(r operatorapi.Renewal) string {
	if r.Unfiled {
		return r.Reason + ", and wasn't on file"
	}
	return r.Reason
}

// shortID returns as much of an ID as names it.
func shortID(id string) string { return id[:min(8, len(id))] }

func renewalRows(list []operatorapi.Renewal) [][]string {
	var rows [][]string
	for _, r := range list {
		rows = append(rows, []string{
			r.ID, r.State, r.Serial, renewalReason(r), r.AskedAt.Format(time.RFC3339), r.LastAskedAt.Format(time.RFC3339),
			r.From, orDash(r.DMIUUID), orDash(r.AgentVersion),
		})
	}
	return rows
}
