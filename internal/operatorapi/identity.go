package operatorapi

import "time"

// The paths of a certificate's life, below the platform's URL.
const (
	PathRevoke  = PathNode + "/revoke"
	PathApprove = PathNode + "/approve"
)

// CertificateState is what a certificate is worth.
type CertificateState string

// The states.
const (
	// CertificateInForce is good, and was used.
	CertificateInForce CertificateState = "in force"
	// CertificateUnused is good, and wasn't used yet: its predecessor is good until then.
	CertificateUnused CertificateState = "unused"
	// CertificateSuperseded ended when its successor was used; CertificateExpired by its time;
	// CertificateRevoked by an operator, a new enrollment, or a newer successor.
	CertificateSuperseded CertificateState = "superseded"
	CertificateExpired    CertificateState = "expired"
	CertificateRevoked    CertificateState = "revoked"
)

// RevokeRequest ends what a node may do.
type RevokeRequest struct {
	// Serial is that of one certificate, upper-case hexadecimal digits; "" ends all of them, the tokens
	// that wait, and the renewals.
	Serial string `json:"serial,omitempty"`
}

// RevokeResult is what was ended now: nothing where it had ended before.
type RevokeResult struct {
	Serials []string `json:"serials"`
	Tokens  int64    `json:"tokens"`
}

// ApproveRequest is an operator's word about what waits at a node.
type ApproveRequest struct {
	// Renewal is the ID of the renewal that is meant, or its beginning; "" where only one waits.
	Renewal string `json:"renewal,omitempty"`
	// Deny refuses what waits, for good.
	Deny bool `json:"deny,omitempty"`
}

// ApproveResult is what the word did.
type ApproveResult struct {
	// Renewals are those that were approved, or denied.
	Renewals []Renewal `json:"renewals"`
	// Cleared are the texts of Node.Attention that were cleared by an approval.
	Cleared []string `json:"cleared"`
}

// Renewal is a node's request for a certificate by the key of one that has ended.
type Renewal struct {
	ID string `json:"id"`
	// Serial is that of the certificate that has ended, Reason "expired" or "superseded".
	Serial string `json:"serial"`
	Reason string `json:"reason"`
	// State is "waiting", "approved" (the node hasn't fetched it yet) or "denied".
	State       string    `json:"state"`
	AskedAt     time.Time `json:"asked_at"`
	LastAskedAt time.Time `json:"last_asked_at"`
	// From is the address that asked last; DMIUUID and AgentVersion are what the node said of itself.
	From         string `json:"from"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`
}
