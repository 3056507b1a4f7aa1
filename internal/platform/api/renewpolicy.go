package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// DefaultRenewPolicy is the text of the policy where none is given.
const DefaultRenewPolicy = "30d"

// maxRenewDays bounds the N of "<N>d": more is "always".
const maxRenewDays = 3650

// RenewPolicy says what becomes of a node whose certificate expired while it was off. The zero value is
// that of DefaultRenewPolicy.
type RenewPolicy struct {
	mode   renewMode
	within time.Duration
}

type renewMode int

const (
	renewDefault renewMode = iota
	renewAlways
	renewNever
	renewApproval
	renewWithin
)

// ParseRenewPolicy reads "always", "never", "approval" or "<N>d", N days from 1 to 3650.
func ParseRenewPolicy(s string) (RenewPolicy, error) {
	switch s {
	case "always":
		return RenewPolicy{mode: renewAlways}, nil
	case "never":
		return RenewPolicy{mode: renewNever}, nil
	case "approval":
		return RenewPolicy{mode: renewApproval}, nil
	}
	if number, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.ParseUint(number, 10, 16); err == nil && days >= 1 && days <= maxRenewDays {
			return RenewPolicy{mode: renewWithin, within: time.Duration(days) * 24 * time.Hour}, nil
		}
	}
	return RenewPolicy{}, fault.New(fault.Refuse, fault.Input, "use always, never, approval, or a number of days like 30d",
		"unknown policy for expired certificates %.40q", s)
}

// String returns what ParseRenewPolicy reads.
func (p RenewPolicy) String() string {
	switch p.mode {
	case renewAlways:
		return "always"
	case renewNever:
		return "never"
	case renewApproval:
		return "approval"
	case renewWithin:
		return fmt.Sprintf("%dd", p.within/(24*time.Hour))
	case renewDefault:
	}
	return DefaultRenewPolicy
}

// fate says what becomes, under the policy, of so many nodes whose certificates end now.
func (p RenewPolicy) fate(nodes int) string {
	verb, wait, each := "renew their own", "wait", "they"
	if nodes == 1 {
		verb, wait, each = "renews its own", "waits", "it"
	}
	switch p.mode {
	case renewNever:
		return each + " can't renew: a new token for each (powernode token create), or another policy"
	case renewApproval:
		return each + " " + wait + " for powernode node approve when coming back"
	case renewAlways:
		return each + " " + verb + " when coming back"
	case renewDefault, renewWithin:
	}
	return each + " " + verb + " when coming back within that time, and " + wait + " for powernode node approve after it"
}

// Judge says what becomes of a certificate that expired or was superseded. One that was superseded is
// another machine's, or an older state of this one: only a person can know which of them is the node.
func (p RenewPolicy) Judge(c db.Certificate, now time.Time) db.RenewVerdict {
	if c.SupersededAt != nil {
		return db.RenewAsk
	}
	within := p.within
	switch p.mode {
	case renewAlways:
		return db.RenewIssue
	case renewNever:
		return db.RenewRefuse
	case renewApproval:
		return db.RenewAsk
	case renewDefault:
		within = 30 * 24 * time.Hour
	case renewWithin:
	}
	if now.Sub(c.NotAfter) <= within {
		return db.RenewIssue
	}
	return db.RenewAsk
}
