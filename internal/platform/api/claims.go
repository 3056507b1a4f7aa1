package api

import (
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Bounds of what strangers may do with claims.
const (
	maxClaim      = 16 << 10               // bytes of a poll
	maxHostname   = 253                    // RFC 1035
	claimBurst    = 60                     // polls at once from one address: a rack of machines behind one router starts together
	claimInterval = 200 * time.Millisecond // between polls after that
	// claimFull is when a machine asks again that found no room, and claimsFullEvery how often the operator is told.
	claimFull       = time.Minute
	claimsFullEvery = time.Hour
)

// When a machine asks again. One that was switched on just now has a person before it.
const (
	claimSoon    = 10
	claimLater   = 30
	claimRefused = 300
	claimYoung   = 30 * time.Minute
)

// claim answers a machine that has no token. What it says is cut and cleaned rather than refused: a machine that can't
// be claimed for an odd host name would be lost.
func (a *API) claim(w http.ResponseWriter, r *http.Request) (any, error) {
	if wait, ok := a.claimAsked.allow(r); !ok {
		return nil, tooMany(w, wait)
	}
	in, err := read[nodeapi.ClaimRequest](w, r, maxClaim)
	if err != nil {
		return nil, err
	}
	poll, err := claimPoll(in)
	if err != nil {
		return nil, err
	}
	poll.From, poll.Token, poll.TokenTTL = host(r), NewToken(), operatorapi.DefaultTokenTTL
	poll.Network, poll.Site = claimNetworks(r)
	poll.Announce = func() bool { return a.strangers.allow(db.EventClaimBegun) }
	c, err := a.db.PollClaim(r.Context(), poll)
	switch {
	case errors.Is(err, db.ErrClaimsFull):
		a.log.Warn("a claim is refused: there are too many", "from", host(r), "mac", poll.MAC, "error", err)
		if err := a.claimsFull(r, poll, err); err != nil {
			return nil, err
		}
		return nil, tooMany(w, claimFull)
	case errors.Is(err, db.ErrNodeInactive):
		return nodeapi.ClaimResponse{Status: nodeapi.ClaimError, PollAfterSeconds: claimRefused, Message: "the node that this machine was accepted for is out of service"}, nil
	case err != nil:
		return nil, err
	}
	return a.claimAnswer(c, poll.Token), nil
}

// claimNetworks returns the network and the site that claims from there count for.
func claimNetworks(r *http.Request) (network, site string) {
	of := func(bits int) string {
		if n := networkWith(r.RemoteAddr, bits); n.IsValid() {
			return n.String()
		}
		return host(r)
	}
	return of(networkBits), of(siteBits)
}

// claimsFull lets the operator see that machines find no room. That one network has too many is an event of its own:
// it can be brought about by one stranger, and must not keep the other from being told.
func (a *API) claimsFull(r *http.Request, poll db.ClaimPoll, full error) error {
	told, text := a.allClaimsTold, "no further machine can ask to be claimed: too many do"
	if errors.Is(full, db.ErrNetworkFull) {
		told, text = a.netClaimsTold, "no further machine of its network can ask to be claimed: too many do from there"
	}
	if !told.allow() {
		return nil
	}
	return a.db.RecordEvent(r.Context(), db.EventClaimsFull, "", text+"; the machine with MAC "+poll.MAC+" at "+poll.From+
		" was told to come again; see powernode claim list, and give urgent machines a token")
}

// claimAnswer says where a claim stands. token is its token, if it was accepted.
func (a *API) claimAnswer(c db.Claim, token string) nodeapi.ClaimResponse {
	switch c.State {
	case db.ClaimAccepted:
		return nodeapi.ClaimResponse{
			Status: nodeapi.ClaimClaimed, PollAfterSeconds: claimLater, BootstrapToken: token, InstanceUUID: c.NodeID, PlatformURL: a.publicURL.String(),
		}
	case db.ClaimDone:
		return nodeapi.ClaimResponse{Status: nodeapi.ClaimExpired, PollAfterSeconds: claimLater, Message: "this claim's token was used"}
	case db.ClaimRejected:
		return nodeapi.ClaimResponse{Status: nodeapi.ClaimError, PollAfterSeconds: claimRefused, Message: "the operator rejected this machine's claim, " + nodeapi.ShowClaimCode(c.Code)}
	case db.ClaimPending:
	}
	after := claimLater
	if a.now().Sub(c.CreatedAt) < claimYoung {
		after = claimSoon
	}
	return nodeapi.ClaimResponse{Status: nodeapi.ClaimPending, PollAfterSeconds: after, ClaimCode: c.Code}
}

// claimPoll reads what a machine says of itself.
func claimPoll(in nodeapi.ClaimRequest) (db.ClaimPoll, error) {
	mac, err := net.ParseMAC(strings.TrimSpace(in.MAC))
	switch {
	case strings.TrimSpace(in.MAC) == "":
		return db.ClaimPoll{}, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "mac is required")
	case err != nil:
		return db.ClaimPoll{}, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "mac %.60q: want a hardware address, as 52:54:00:12:34:56", in.MAC)
	}
	poll := db.ClaimPoll{
		MAC: mac.String(), DMIUUID: cleaned(in.DMIUUID, maxWord), Hostname: cleaned(in.Hostname, maxHostname),
		AgentVersion: cleaned(in.AgentVersion, maxVersion), Hint: cleaned(in.PlatformHint, maxWord),
	}
	if checkArchitecture(in.Architecture, true) == nil {
		poll.Architecture = in.Architecture
	}
	if in.ClaimKey != "" {
		// Not shown in the error: it is a secret.
		if !isSHA256(in.ClaimKey) {
			return poll, invalid("claim_key: want 32 random bytes as 64 lower-case hexadecimal digits")
		}
		hash := sha256.Sum256([]byte(in.ClaimKey))
		poll.KeyHash = hash[:]
	}
	return poll, nil
}

// cleaned makes a stranger's text one that can be shown: printable characters, at most n bytes.
func cleaned(s string, n int) string {
	s = strings.TrimSpace(strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, clip(s, 4*n)))
	for len(s) > n {
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
	return s
}

// ClaimPage answers people who opened the URL that a machine shows: it says what the operator does. It knows no claim, so
// that nobody learns by it which codes there are.
func (a *API) ClaimPage(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	code, ok := nodeapi.ParseClaimCode(r.PathValue("code"))
	text := "This is no claim code. One has eight characters and is shown on the machine's console.\n"
	if ok {
		code = nodeapi.ShowClaimCode(code)
		text = "A machine that shows the code " + code + " asks to become a node of this Powernode platform.\n\n" +
			"The operator accepts it on the command line, for a node that there is or for a new one:\n\n" +
			"  powernode claim accept " + code + " --node NODE\n" +
			"  powernode claim accept " + code + " --create NAME\n\n" +
			"powernode claim list shows what waits, powernode claim reject " + code + " refuses it.\n" +
			"Accept a code only if you see it on the machine's own console.\n"
	} else {
		w.WriteHeader(http.StatusNotFound)
	}
	// A caller that went away needs no answer.
	_, _ = w.Write([]byte(text))
}
