package operatorapi

import "time"

// The paths of claims. {code} takes a claim code in either case, with a hyphen or without.
const (
	PathClaims      = Base + "/claims"
	PathClaimAccept = PathClaims + "/{code}/accept"
	PathClaimReject = PathClaims + "/{code}/reject"
)

// ClaimState is where a claim stands.
type ClaimState string

// The states.
const (
	// ClaimPending waits for the operator.
	ClaimPending ClaimState = "pending"
	// ClaimAccepted waits for the machine to enroll.
	ClaimAccepted ClaimState = "accepted"
	// ClaimRejected was refused; it may still be accepted.
	ClaimRejected ClaimState = "rejected"
	// ClaimDone is enrolled.
	ClaimDone ClaimState = "done"
)

// Claim is a machine without a token that asks to become a node. All that it says of itself is a
// stranger's word; only the code is this machine's: it is on its console.
type Claim struct {
	// Code is the claim code as people read it, "ABCD-EFGH".
	Code  string     `json:"code"`
	State ClaimState `json:"state"`
	MAC   string     `json:"mac"`
	// Protected says that the machine has a secret of its own. Where it has none, whoever says its MAC gets
	// its token.
	Protected    bool   `json:"protected"`
	Hostname     string `json:"hostname,omitempty"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`
	PlatformHint string `json:"platform_hint,omitempty"`
	// Address is where the last poll came from.
	Address string `json:"address"`
	// NodeID and NodeName are those of the node that it was accepted for.
	NodeID    string    `json:"node_id,omitempty"`
	NodeName  string    `json:"node_name,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	PolledAt  time.Time `json:"polled_at"`
	// SilentSeconds is how long ago the last poll was when the platform answered.
	SilentSeconds int64 `json:"silent_seconds"`
	// ExpiresAt is when the platform forgets the claim unless the machine asks again.
	ExpiresAt time.Time `json:"expires_at"`
	// Remarks are what the operator should know before accepting it, as another machine with the same MAC.
	Remarks []string `json:"remarks,omitempty"`
}

// ClaimList is the claims that are alive, oldest first.
type ClaimList struct {
	Claims []Claim `json:"claims"`
	Count  int     `json:"count"`
}

// ClaimAccept says which node a machine becomes: one of Node and Create.
type ClaimAccept struct {
	// Node is the ID or name of a node.
	Node string `json:"node,omitempty"`
	// Create is the name of a node to make, of the machine's architecture.
	Create string `json:"create,omitempty"`
	// Replace gives away the identity of a node that is running: its machine loses it.
	Replace bool `json:"replace,omitempty"`
}
