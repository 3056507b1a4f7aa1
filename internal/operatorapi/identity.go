package operatorapi

import "time"

// The paths of a certificate's life, below the platform's URL.
const (
	PathRevoke  = PathNode + "/revoke"
	PathApprove = PathNode + "/approve"
	PathUnfiled = Base + "/renewals/unfiled"
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

// ApproveRequest is an operator's word about what waits at a node: a renewal, or a doubt about its identity. Where
// both do, or several renewals, one of the fields must say which is meant.
type ApproveRequest struct {
	// Renewal is the ID of the renewal that is meant, or its beginning of at least four characters; "" where only one waits.
	Renewal string `json:"renewal,omitempty"`
	// Attention says that the operator knows why the node calls for attention; no renewal is approved by it.
	Attention bool `json:"attention,omitempty"`
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
	// Unfiled says that it wasn't on file when it was shown: the database is older than it.
	Unfiled bool `json:"unfiled,omitempty"`
	// State is "waiting", "approved" (the node hasn't fetched it yet) or "denied".
	State       string    `json:"state"`
	AskedAt     time.Time `json:"asked_at"`
	LastAskedAt time.Time `json:"last_asked_at"`
	// From is the address that asked last; DMIUUID and AgentVersion are what the node said of itself.
	From         string `json:"from"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`
}

// UnfiledList is what there is of renewals, of all nodes, by certificates that weren't on file, as after a backup of the
// database was restored.
type UnfiledList struct {
	// Renewals are those that an approval of all is for: "waiting" before it, "approved" after it.
	Renewals []UnfiledRenewal `json:"renewals"`
	// Left are those that need a word of their own.
	Left []UnfiledRenewal `json:"left"`
}

// UnfiledRenewal is one of them.
type UnfiledRenewal struct {
	NodeID   string  `json:"node_id"`
	NodeName string  `json:"node_name"`
	Renewal  Renewal `json:"renewal"`
	// Why says why it needs a word of its own.
	Why string `json:"why,omitempty"`
}
