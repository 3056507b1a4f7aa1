package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Errors by which a claim isn't accepted, or no further one taken.
var (
	ErrClaimsFull  = errors.New("too many machines ask to be claimed")
	ErrNetworkFull = fmt.Errorf("%w from one network", ErrClaimsFull)
	ErrClaimDone   = errors.New("the machine is enrolled already")
	ErrClaimTaken  = errors.New("the claim was accepted for another node")
	ErrNodeRunning = errors.New("the node is running")
)

// The kinds of events of claims.
const (
	EventClaimBegun    = "claim.begun"
	EventClaimAccepted = "claim.accepted"
	EventClaimRejected = "claim.rejected"
	EventClaimsFull    = "claim.full"
)

// ClaimState is where a claim stands.
type ClaimState string

// The states.
const (
	ClaimPending  ClaimState = "pending"  // waits for the operator
	ClaimAccepted ClaimState = "accepted" // waits for the machine to use its token
	ClaimRejected ClaimState = "rejected"
	ClaimDone     ClaimState = "done" // a token of it was used
)

// Claim is a machine without a token that asks to become a node.
type Claim struct {
	ID   string
	Code string
	MAC  string
	// Protected says that the machine has a secret of its own: no other gets its answer.
	Protected                                                 bool
	DMIUUID, Hostname, AgentVersion, Architecture, Hint, From string
	State                                                     ClaimState
	// NodeID and NodeName are those of the node that it was accepted for, or "".
	NodeID, NodeName               string
	CreatedAt, PolledAt, ExpiresAt time.Time
}

const selectClaims = `SELECT c.id, c.code, c.mac, length(c.key_hash) > 0, c.dmi_uuid, c.hostname, c.agent_version, c.architecture, c.platform_hint, c.heard_from,
	CASE WHEN EXISTS (SELECT 1 FROM tokens t WHERE t.claim_id = c.id AND t.used_at IS NOT NULL) THEN 'done' ELSE c.state END,
	coalesce(n.id, ''), coalesce(n.name, ''), c.created_at, c.polled_at, c.expires_at
	FROM claims c LEFT JOIN nodes n ON n.id = c.node_id `

// scanClaim reads one row by scan, of sql.Row or sql.Rows.
func scanClaim(scan func(...any) error, c *Claim) error {
	var created, polled, expires int64
	err := scan(&c.ID, &c.Code, &c.MAC, &c.Protected, &c.DMIUUID, &c.Hostname, &c.AgentVersion, &c.Architecture, &c.Hint, &c.From,
		&c.State, &c.NodeID, &c.NodeName, &created, &polled, &expires)
	c.CreatedAt, c.PolledAt, c.ExpiresAt = moment(created), moment(polled), moment(expires)
	return err
}

// Claims returns the claims that are alive, oldest first.
func (d *DB) Claims(ctx context.Context) ([]Claim, error) {
	rows, err := d.read.Query(ctx, selectClaims+"WHERE c.expires_at > ? ORDER BY c.created_at, c.code", millis(d.now()))
	list, err := collect(rows, err, func(rows *sql.Rows, c *Claim) error { return scanClaim(rows.Scan, c) })
	return list, d.explain(err)
}

// claimBy reads the claim of a code that is alive.
func (d *DB) claimBy(ctx context.Context, tx *txn, code string) (Claim, error) {
	var c Claim
	err := scanClaim(tx.QueryRow(ctx, selectClaims+"WHERE c.code = ? AND c.expires_at > ?", code, millis(d.now())).Scan, &c)
	return c, err
}

// Acceptance says which node a claim's machine becomes.
type Acceptance struct {
	Code string
	// Node is the ID or name of a node that there is, or, with Create, the name of one that is made now.
	Node   string
	Create bool
	// BusySince is the time since which a node that sent a heartbeat counts as running: its identity isn't given away.
	// The zero time gives it away all the same.
	BusySince time.Time
}

// AcceptClaim gives a claim's machine a node, and reports whether it did: doing it again changes nothing. The errors are ErrNotFound for a
// code that isn't alive, and for a node that there isn't ErrNoNode; ErrExists for a name that is taken, ErrClaimDone,
// ErrClaimTaken, ErrNodeInactive, ErrNodeRunning and ErrArchitecture.
func (d *DB) AcceptClaim(ctx context.Context, in Acceptance) (c Claim, changed bool, err error) {
	err = d.update(ctx, func(tx *txn) (err error) {
		if c, err = d.claimBy(ctx, tx, in.Code); err != nil {
			return err
		}
		switch {
		case c.State == ClaimDone:
			return ErrClaimDone
		case c.State == ClaimAccepted && (in.Node == c.NodeID || in.Node == c.NodeName):
			return nil
		case c.State == ClaimAccepted:
			return fmt.Errorf("%w, %s", ErrClaimTaken, c.NodeName)
		}
		node, err := d.claimedNode(ctx, tx, c, in)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE claims SET state = 'accepted', node_id = ? WHERE id = ?", node, c.ID); err != nil {
			return err
		}
		if err := d.event(ctx, tx, EventClaimAccepted, node, "the machine of claim "+claimWords(c)+" becomes this node"); err != nil {
			return err
		}
		changed = true
		c, err = d.claimBy(ctx, tx, in.Code)
		return err
	})
	return c, changed && err == nil, err
}

// ErrNoNode says that there is no node of that ID or name.
var ErrNoNode = errors.New("there is no such node")

// claimedNode returns the ID of the node that a claim's machine is to become, after making it if that is asked for.
func (d *DB) claimedNode(ctx context.Context, tx *txn, c Claim, in Acceptance) (string, error) {
	if in.Create {
		id := NewID()
		_, err := tx.Exec(ctx, "INSERT INTO nodes (id, name, architecture, created_at) VALUES (?, ?, ?, ?)",
			id, in.Node, c.Architecture, millis(d.now()))
		return id, err
	}
	var id, architecture string
	var active bool
	var heard sql.NullInt64
	err := tx.QueryRow(ctx, `SELECT n.id, n.architecture, n.state = 'active', (SELECT received_at FROM reports r WHERE r.node_id = n.id)
		FROM nodes n WHERE n.id = ?1 OR n.name = ?1 AND NOT EXISTS (SELECT 1 FROM nodes WHERE id = ?1)`, in.Node).Scan(&id, &architecture, &active, &heard)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", ErrNoNode
	case err != nil:
		return "", err
	case !active:
		return "", ErrNodeInactive
	case architecture != "" && c.Architecture != "" && architecture != c.Architecture:
		return "", fmt.Errorf("%w: %s, and the machine says %s", ErrArchitecture, architecture, c.Architecture)
	case heard.Valid && !in.BusySince.IsZero() && moment(heard.Int64).After(in.BusySince):
		return "", ErrNodeRunning
	}
	return id, nil
}

// RejectClaim refuses a claim, or takes an acceptance back whose token wasn't used, and reports whether it did:
// ErrClaimDone where one was.
func (d *DB) RejectClaim(ctx context.Context, code string) (c Claim, changed bool, err error) {
	err = d.update(ctx, func(tx *txn) (err error) {
		if c, err = d.claimBy(ctx, tx, code); err != nil {
			return err
		}
		switch c.State {
		case ClaimDone:
			return ErrClaimDone
		case ClaimRejected:
			return nil
		case ClaimPending, ClaimAccepted:
		}
		if err := forgetClaimTokens(ctx, tx, c.ID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE claims SET state = 'rejected', node_id = NULL WHERE id = ?", c.ID); err != nil {
			return err
		}
		if err := d.event(ctx, tx, EventClaimRejected, c.NodeID, "claim "+claimWords(c)+" rejected"); err != nil {
			return err
		}
		changed = true
		c, err = d.claimBy(ctx, tx, code)
		return err
	})
	return c, changed && err == nil, err
}

// forgetClaimTokens ends the tokens of a claim that weren't used.
func forgetClaimTokens(ctx context.Context, tx *txn, claimID string) error {
	_, err := tx.Exec(ctx, "DELETE FROM tokens WHERE claim_id = ? AND used_at IS NULL", claimID)
	return err
}

// claimWords names a claim in an event.
func claimWords(c Claim) string {
	words := nodeapi.ShowClaimCode(c.Code) + " (MAC " + c.MAC
	if c.Hostname != "" {
		words += ", host name " + c.Hostname
	}
	return words + ", from " + c.From + ")"
}
