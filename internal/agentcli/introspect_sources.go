package agentcli

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/identity/places"
)

// sourceRow says what became of asking one source.
func sourceRow(r identity.Report) [2]string {
	words := string(r.Status)
	if len(r.Fields) > 0 {
		words += " " + strings.Join(r.Fields, ", ")
	}
	if r.Where != "" && !strings.Contains(r.Source, r.Where) {
		words += " in " + r.Where
	}
	if r.Reason != "" {
		words += ": " + r.Reason
	}
	words = fmt.Sprintf("%s (%s)", words, r.Took.Round(time.Microsecond))
	if len(r.Warnings) > 0 {
		words += "; " + strings.Join(r.Warnings, "; ")
	}
	return [2]string{"source " + r.Source, cli.Printable(words)}
}

// claimReport says whether this machine is being claimed, or may be. It asks nobody. serve says that the node has credentials that do.
func claimReport(dir string, found identity.Identity, serve bool) identity.Report {
	start := time.Now()
	r := identity.Report{Source: places.ClaimName, Status: identity.StatusAbsent}
	platform, accepted, err := claim.Kept(dir)
	switch {
	case serve:
		r.Status, r.Reason = identity.StatusSkipped, "this node has a certificate"
	case err != nil:
		r.Status, r.Reason = identity.StatusInvalid, err.Error()
	case !found.Token.IsZero():
		r.Status, r.Reason = identity.StatusSkipped, "there is a token"
	case accepted:
		r.Status, r.Where, r.Reason = identity.StatusFound, dir, "this machine was claimed at "+platform+", and isn't enrolled yet"
	case platform != "":
		r.Status, r.Where, r.Reason = identity.StatusFound, dir, "this machine asks "+platform+" to be claimed; the code is on its console"
	case found.OnlyTokenMissing():
		r.Reason = "no claim was begun; enroll --claim, or a boot with nothing to run, begins one"
	default:
		r.Reason = "there is no platform to ask"
	}
	r.Took = time.Since(start)
	return r
}

// identityRows says what the sources say together, each field with its source.
func identityRows(i *identity.Identity) [][2]string {
	var rows [][2]string
	for _, f := range []struct{ name, value, from string }{
		{"node", i.InstanceID, i.From.InstanceID},
		{"platform", i.PlatformURL, i.From.PlatformURL},
		{"token", i.Token.String(), i.From.Token},
		{"CA", orNothing(len(i.CAPEM) > 0, "a certificate"), i.From.CA},
		{"CA fingerprint", strings.Join(i.CASHA256, ", "), i.From.CASHA256},
		{"CA URL", i.CAURL.String(), i.From.CAURL},
		{"proxy", i.Proxy.String(), i.From.Proxy},
		{"clock", string(i.Clock), i.From.Clock},
		{"DMI UUID", i.DMIUUID, i.From.DMIUUID},
	} {
		if f.value != "" {
			rows = append(rows, [2]string{"identity: " + f.name, cli.Printable(fmt.Sprintf("%s (from %s)", f.value, f.from))})
		}
	}
	return rows
}

func orNothing(there bool, word string) string {
	if there {
		return word
	}
	return ""
}
