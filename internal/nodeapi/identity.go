package nodeapi

import "time"

// The paths of the life of a node's certificate, below the platform's URL. None but PathRefresh asks
// for a certificate.
const (
	PathTime    = Base + "/time"
	PathCA      = Base + "/ca"
	PathClaim   = Base + "/claim"
	PathRefresh = Base + "/enroll/refresh"
	PathRenew   = Base + "/enroll/renew"
)

// The codes by which a platform tells the holder of a certificate why it isn't good any more.
const (
	CodeCertificateRevoked    Code = "CERTIFICATE_REVOKED"    // 401: an operator, or a new enrollment, ended it
	CodeCertificateExpired    Code = "CERTIFICATE_EXPIRED"    // 401: outside its validity by the platform's clock
	CodeCertificateSuperseded Code = "CERTIFICATE_SUPERSEDED" // 401: its successor has been used: a restored backup, or a second machine
	CodeNodeInactive          Code = "NODE_INACTIVE"          // 401: the operator took the node out of service
	CodeRenewalRefused        Code = "RENEWAL_REFUSED"        // 403: the platform's policy, or an operator, said no
	CodeProofOutOfTime        Code = "PROOF_OUT_OF_TIME"      // 422: a renewal's proof is further than ProofTime from the platform's clock
	CodeTooManyRequests       Code = "TOO_MANY_REQUESTS"      // 429
)

// TimeRequest asks for the platform's time.
type TimeRequest struct {
	// Nonce is 32 random bytes as 64 lower-case hexadecimal digits.
	Nonce string `json:"nonce"`
}

// TimeResponse is the platform's time, signed by its CA. The signature is ECDSA over SHA-256, or
// Ed25519, by the signer's key, of what TimeMessage returns.
type TimeResponse struct {
	Nonce string `json:"nonce"`
	// ServerTime is RFC 3339 with nanoseconds, UTC, exactly as it was signed.
	ServerTime string `json:"server_time"`
	// CABundleSHA256 is that of the CA bundle which nodes shall trust, as in CAResponse, and signed too: who has only
	// a server's key can't tell nodes of another CA.
	CABundleSHA256 string `json:"ca_bundle_sha256"`
	// SignerPEM is the CA certificate whose key signed, then those that lead from an older CA to it.
	SignerPEM string `json:"signer_pem"`
	Signature []byte `json:"signature"`
}

// TimeMessage returns the text that is signed: no X.509 structure begins like it, so that a CA's key
// may sign both.
func TimeMessage(nonce, serverTime, bundleSHA256 string) []byte {
	return []byte("powernode-time/1\n" + nonce + "\n" + serverTime + "\n" + bundleSHA256 + "\n")
}

// CAResponse is what nodes shall trust from now on: one CA, or several while it rolls. It proves nothing by itself:
// a node follows a bundle whose SHA-256 a TimeResponse has signed.
type CAResponse struct {
	BundlePEM string `json:"bundle_pem"`
	// BundleSHA256 is the SHA-256 of BundlePEM in lower-case hexadecimal digits, as heartbeats tell it.
	BundleSHA256 string `json:"bundle_sha256"`
}

// ClaimRequest is what a machine without a token says of itself. The field names are the existing
// platform's, without ClaimKey.
type ClaimRequest struct {
	MAC          string `json:"mac"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
	Hostname     string `json:"hostname,omitempty"`
	AgentVersion string `json:"agent_version,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	PlatformHint string `json:"platform_hint,omitempty"`
	// ClaimKey is a secret of the machine's own, 32 random bytes in hexadecimal digits: a claim that was
	// begun with one is answered to who has it only, whatever MAC another machine says.
	ClaimKey string `json:"claim_key,omitempty"`
}

// ClaimStatus is where a claim stands.
type ClaimStatus string

// The statuses.
const (
	ClaimPending ClaimStatus = "pending"
	ClaimClaimed ClaimStatus = "claimed"
	ClaimExpired ClaimStatus = "expired"
	ClaimError   ClaimStatus = "error"
)

// ClaimResponse is the answer to a poll.
type ClaimResponse struct {
	Status           ClaimStatus `json:"status"`
	PollAfterSeconds int         `json:"poll_after_seconds"`
	// ClaimCode is 8 characters of ClaimAlphabet, while Status is "pending".
	ClaimCode string `json:"claim_code,omitempty"`
	Message   string `json:"message,omitempty"`
	// The rest comes with "claimed".
	BootstrapToken string `json:"bootstrap_token,omitempty"`
	InstanceUUID   string `json:"instance_uuid,omitempty"`
	PlatformURL    string `json:"platform_url,omitempty"`
	CAPEMURL       string `json:"ca_pem_url,omitempty"`
}

// ClaimAlphabet is what claim codes are made of: no character looks like another.
const ClaimAlphabet = "ABCDEFGHJKMNPQRSTUVWXYZ2346789"

// ClaimCodeLength is the length of a claim code.
const ClaimCodeLength = 8

// RefreshRequest asks, over the certificate that is in force, for its successor with a new key. The
// answer is an EnrollResponse. The same request with the same key gives the same certificate again.
type RefreshRequest struct {
	CSRPEM       string `json:"csr_pem"`
	AgentVersion string `json:"agent_version,omitempty"`
}

// RenewRequest asks for a certificate by the key of one that has ended, or was superseded. It needs no TLS
// certificate. A request for the same key gives the same certificate again.
type RenewRequest struct {
	CSRPEM string `json:"csr_pem"`
	// CertificatePEM is the certificate that has ended.
	CertificatePEM string `json:"certificate_pem"`
	// SignedAt is when Proof was made: RFC 3339, by the node's clock, which is the platform's signed time unless the node was
	// told otherwise, exactly as it was signed.
	SignedAt string `json:"signed_at"`
	// Proof is the signature of RenewMessage by that certificate's key: ECDSA over SHA-256 (ASN.1), or Ed25519.
	Proof        []byte `json:"proof"`
	AgentVersion string `json:"agent_version,omitempty"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
}

// ProofTime is how far SignedAt may be from the platform's clock, either way: what was held back is worth nothing later.
const ProofTime = 10 * time.Minute

// RenewMessage returns the text that Proof signs; csrDER is the request in CSRPEM. Who sends it again gets a
// certificate for a key that they don't have.
func RenewMessage(signedAt string, csrDER []byte) []byte {
	return append([]byte("powernode-renew/2\n"+signedAt+"\n"), csrDER...)
}

// RenewStatus is where a renewal stands.
type RenewStatus string

// The statuses.
const (
	RenewIssued  RenewStatus = "issued"
	RenewWaiting RenewStatus = "waiting" // for an operator's approval
)

// RenewResponse is the answer to a RenewRequest. A refusal is an error, CodeRenewalRefused.
type RenewResponse struct {
	Status RenewStatus `json:"status"`
	// PollAfterSeconds and Message come with "waiting": when to ask again, and what the operator is to do.
	PollAfterSeconds int    `json:"poll_after_seconds,omitempty"`
	Message          string `json:"message,omitempty"`
	// Certificate comes with "issued".
	Certificate *EnrollResponse `json:"certificate,omitempty"`
}

// Machine is what a heartbeat says of the machine itself, so that a platform sees when two machines have
// one identity. Empty fields are unknown.
type Machine struct {
	DMIUUID string `json:"dmi_uuid,omitempty"`
	// VMGenerationID changes when a virtual machine is cloned, or restored from a snapshot.
	VMGenerationID string `json:"vm_generation_id,omitempty"`
}
