package db

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Bounds of claims.
const (
	// ClaimTTL is how long a claim lives after its machine's last poll.
	ClaimTTL = 24 * time.Hour
	// claimSilence is how long a pending claim must have been silent to give way to another where there are too many: a machine
	// that still asks isn't pushed out.
	claimSilence = 5 * time.Minute
)

// claimBounds are how many claims may be alive: all, and those last heard of from one site and from one network.
type claimBounds struct{ all, site, network int }

var usualBounds = claimBounds{all: 2048, site: 1024, network: 256}

// ClaimPoll is what a machine says at a poll, after it was checked.
type ClaimPoll struct {
	MAC string
	// KeyHash is the hash of the machine's own secret; empty where it sent none.
	KeyHash                                                   []byte
	DMIUUID, Hostname, AgentVersion, Architecture, Hint, From string
	// Network is what counts as one address of From, and Site what may have many of these: of IPv6 64 and 56 bits.
	Network, Site string
	// Token becomes the machine's bootstrap token, good for TokenTTL, if the claim was accepted.
	Token    string
	TokenTTL time.Duration
	// Announce is asked whether to record an event of a new claim.
	Announce func() bool

	bounds claimBounds // none are the usual ones
}

// PollClaim finds the machine's claim, or begins one, and renews it. An accepted one gets in.Token as its only token that isn't used.
// ErrClaimsFull says that no further claim is taken, or, as ErrNetworkFull, none from there; ErrNodeInactive that the node it was accepted for is out of service.
func (d *DB) PollClaim(ctx context.Context, in ClaimPoll) (Claim, error) {
	var c Claim
	if in.KeyHash == nil {
		in.KeyHash = []byte{}
	}
	if c, answered, err := d.knownClaim(ctx, in); answered {
		return c, err
	}
	err := d.update(ctx, func(tx *txn) error {
		if _, err := tx.Exec(ctx, "DELETE FROM claims WHERE expires_at <= ?", millis(d.now())); err != nil {
			return err
		}
		known := func() error {
			return scanClaim(tx.QueryRow(ctx, selectClaims+"WHERE c.mac = ? AND c.key_hash = ?", in.MAC, in.KeyHash).Scan, &c)
		}
		err := known()
		again := len(in.KeyHash) == 0 && c.State == ClaimDone // nothing tells that machine from one that begins anew
		gone := c.State == ClaimAccepted && c.NodeID == ""    // the node that it was accepted for
		if err == nil && (again || gone) {
			if _, err := tx.Exec(ctx, "DELETE FROM claims WHERE id = ?", c.ID); err != nil {
				return err
			}
			err = sql.ErrNoRows
		}
		if errors.Is(err, sql.ErrNoRows) {
			if err := d.beginClaim(ctx, tx, in); err != nil {
				return err
			}
			return known()
		}
		if err != nil || c.State == ClaimDone {
			return err
		}
		if err := d.renewClaim(ctx, tx, c, in); err != nil {
			return err
		}
		return known()
	})
	return c, err
}

// beginClaim makes a row for a machine that wasn't known.
func (d *DB) beginClaim(ctx context.Context, tx *txn, in ClaimPoll) error {
	if err := d.roomForClaim(ctx, tx, in); err != nil {
		return err
	}
	now := d.now()
	c := Claim{Code: newClaimCode(), MAC: in.MAC, Hostname: in.Hostname, From: in.From}
	// Two equal codes among some thousand are one chance in 10^8; the machine then asks again.
	if _, err := tx.Exec(ctx, `INSERT INTO claims (id, code, mac, key_hash, dmi_uuid, hostname, agent_version, architecture, platform_hint, heard_from,
		network, site, created_at, polled_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		NewID(), c.Code, in.MAC, in.KeyHash, in.DMIUUID, in.Hostname, in.AgentVersion, in.Architecture, in.Hint, in.From, in.Network, in.Site,
		millis(now), millis(now), millis(now.Add(ClaimTTL))); err != nil {
		return err
	}
	if in.Announce == nil || !in.Announce() {
		return nil
	}
	text := "a machine asks to be claimed: " + claimWords(c)
	var others int
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM claims WHERE mac = ?", in.MAC).Scan(&others); err != nil {
		return err
	}
	if others > 1 {
		text += fmt.Sprintf("; %d claims say that MAC: compare the code with the one on the machine's console", others)
	}
	return d.event(ctx, tx, EventClaimBegun, "", text)
}

// claimLimit is how many of some claims may be alive, and what is said where there are.
type claimLimit struct {
	most  int
	where string
	args  []any
	full  error
}

// limits are those for a new claim, the narrow ones first: who fills its own network pushes out nobody else's claim.
func (in ClaimPoll) limits() []claimLimit {
	most := cmp.Or(in.bounds, usualBounds)
	return []claimLimit{
		{most.network, "network = ?", []any{in.Network}, ErrNetworkFull},
		{most.site, "site = ?", []any{in.Site}, ErrNetworkFull},
		{most.all, "1 = 1", nil, ErrClaimsFull},
	}
}

// roomForClaim makes room for one more claim, or returns ErrNetworkFull or ErrClaimsFull.
func (d *DB) roomForClaim(ctx context.Context, tx *txn, in ClaimPoll) error {
	for _, bound := range in.limits() {
		var n int
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM claims WHERE "+bound.where, bound.args...).Scan(&n); err != nil {
			return err
		}
		if n < bound.most {
			continue
		}
		dropped, err := tx.Exec(ctx, `DELETE FROM claims WHERE id = (SELECT id FROM claims WHERE state = 'pending' AND polled_at < ? AND `+bound.where+`
			ORDER BY polled_at LIMIT 1)`, append([]any{millis(d.now().Add(-claimSilence))}, bound.args...)...)
		if err != nil {
			return err
		}
		if dropped == 0 {
			return bound.full
		}
	}
	return nil
}

// renewClaim keeps what a poll of a known machine says, and gives it a token if it was accepted. What the machine is called is kept
// from its first poll: the operator may have read it.
func (d *DB) renewClaim(ctx context.Context, tx *txn, c Claim, in ClaimPoll) error {
	now := d.now()
	if _, err := tx.Exec(ctx, `UPDATE claims SET dmi_uuid = CASE dmi_uuid WHEN '' THEN ? ELSE dmi_uuid END,
		hostname = CASE hostname WHEN '' THEN ? ELSE hostname END, agent_version = ?, architecture = ?, platform_hint = ?, heard_from = ?,
		network = ?, site = ?, polled_at = ?, expires_at = ? WHERE id = ?`,
		in.DMIUUID, in.Hostname, in.AgentVersion, in.Architecture, in.Hint, in.From, in.Network, in.Site, millis(now), millis(now.Add(ClaimTTL)), c.ID); err != nil {
		return err
	}
	if c.State != ClaimAccepted {
		return nil
	}
	var active bool
	if err := tx.QueryRow(ctx, "SELECT state = 'active' FROM nodes WHERE id = ?", c.NodeID).Scan(&active); err != nil {
		return err
	}
	if !active {
		return ErrNodeInactive
	}
	if err := forgetClaimTokens(ctx, tx, c.ID); err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(in.Token))
	_, err := tx.Exec(ctx, "INSERT INTO tokens (id, node_id, hash, created_at, expires_at, claim_id) VALUES (?, ?, ?, ?, ?, ?)",
		NewID(), c.NodeID, hash[:], millis(now), millis(now.Add(in.TokenTTL)), c.ID)
	return err
}

// newClaimCode returns a random claim code.
func newClaimCode() string {
	const alphabet = nodeapi.ClaimAlphabet
	code := make([]byte, 0, nodeapi.ClaimCodeLength)
	for len(code) < nodeapi.ClaimCodeLength {
		var b [1]byte
		// crypto/rand.Read never fails: it ends the process where the system has no randomness.
		_, _ = rand.Read(b[:])
		// The rest of the range would favour the first letters.
		if n := int(b[0]); n < 256/len(alphabet)*len(alphabet) {
			code = append(code, alphabet[n%len(alphabet)])
		}
	}
	return string(code)
}
