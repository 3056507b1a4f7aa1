package identity

import (
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// complete reports whether no further source needs to be asked. The instance isn't waited for: the token says it, and what a later source
// says might be a stranger's, or another life's of the disk.
func (i Identity) complete() bool { return len(i.missing()) == 0 }

// OnlyTokenMissing reports whether the platform and its CA are known, and no token: whoever is such a node may
// ask the platform to be claimed.
func (i Identity) OnlyTokenMissing() bool {
	if !i.Token.IsZero() {
		return false
	}
	i.Token = secret.New("any")
	return len(i.missing()) == 0
}

// incomplete is the error of an identity that doesn't suffice.
func incomplete(id Identity, reports []Report) error {
	hint := "write SERVER, KEY and CA_PEM_FILE into identity.cfg on the boot partition, or name such a file with --identity-file"
	type group struct {
		names  []string
		reason string
	}
	var groups []group // of neighbours that say the same
	for _, rep := range reports {
		if rep.Status == StatusInvalid {
			hint = "correct what " + rep.Source + " says"
			if rep.hint != "" {
				hint += ": " + rep.hint
			}
		}
		reason := rep.Reason
		switch {
		case rep.away:
			reason = "this machine isn't there"
		case reason == "":
			reason = "gives " + strings.Join(rep.Fields, ", ")
		}
		if n := len(groups); n == 0 || groups[n-1].reason != reason {
			groups = append(groups, group{reason: reason})
		}
		last := &groups[len(groups)-1]
		last.names = append(last.names, rep.Source)
	}
	why := make([]string, 0, len(groups)+1)
	if len(reports) == 0 {
		why = append(why, "no source was asked")
	}
	for _, g := range groups {
		why = append(why, strings.Join(g.names, ", ")+": "+g.reason)
	}
	return fault.New(fault.Refuse, fault.Input, hint,
		"find out who this node is: no %s (%s)", strings.Join(id.missing(), ", no "), strings.Join(why, "; "))
}

// add takes from found what id lacks. Where something was passed over it returns why.
func (id *Identity) add(source string, found Found) (reason string) {
	// Whoever may not say which CA counts may not say either that its signed time doesn't.
	anchored := len(id.CAPEM) > 0 || len(id.CASHA256) > 0
	switch {
	case found.InstanceID == "" || id.InstanceID != "":
	case !id.Token.IsZero() && !found.Token.IsZero() && !id.Token.Equal(found.Token):
		// As of an identity.cfg that an earlier life of the disk left there.
		reason = fmt.Sprintf("its instance %s is passed over: it goes with its own token, and the one of %s counts", found.InstanceID, id.From.Token)
	default:
		id.InstanceID, id.From.InstanceID = found.InstanceID, source
	}
	switch {
	case found.Token.IsZero() || !id.Token.IsZero():
	case found.InstanceID != "" && found.InstanceID != id.InstanceID:
		reason = fmt.Sprintf("its token is passed over: it is for instance %s, and %s names %s", found.InstanceID, id.From.InstanceID, id.InstanceID)
	default:
		id.Token, id.From.Token = found.Token, source
	}
	if id.PlatformURL == "" && found.PlatformURL != "" {
		id.PlatformURL, id.From.PlatformURL = found.PlatformURL, source
	}
	// What counts as the CA is one source's word. A bundle beside an earlier source's fingerprint is
	// only where its certificate may be found.
	if len(id.CAPEM) == 0 && len(id.CASHA256) == 0 && len(found.CASHA256) > 0 {
		id.CASHA256, id.From.CASHA256 = found.CASHA256, source
	}
	if len(id.CAPEM) == 0 && len(found.CAPEM) > 0 {
		bundle, err := found.CAPEM, error(nil)
		if len(id.CASHA256) > 0 {
			bundle, err = SelectCAs(bundle, id.CASHA256)
		}
		if err != nil {
			reason = strings.TrimPrefix(reason+"; its CA is passed over: "+id.From.CASHA256+" names another fingerprint", "; ")
		} else {
			id.CAPEM, id.From.CA = bundle, source
		}
	}
	if id.CAURL.IsZero() && !found.CAURL.IsZero() {
		id.CAURL, id.From.CAURL = found.CAURL, source
	}
	if id.Proxy.IsZero() && !found.Proxy.IsZero() {
		id.Proxy, id.From.Proxy = found.Proxy, source
	}
	switch {
	case id.Clock != "" || found.Clock == "":
	case anchored:
		reason = strings.TrimPrefix(reason+"; its clock is passed over: the CA is another source's word", "; ")
	default:
		id.Clock, id.From.Clock = found.Clock, source
	}
	if id.DMIUUID == "" && found.DMIUUID != "" {
		id.DMIUUID, id.From.DMIUUID = found.DMIUUID, source
	}
	return reason
}
