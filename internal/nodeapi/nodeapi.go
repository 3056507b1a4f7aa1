// Package nodeapi is the contract between agent and platform: paths, wire structs, the envelope
// and its error codes. Both sides, and nothing else, speak through it.
//
// It promises that paths, fields and envelope are those of the existing platform's node_api
// wherever those work; where ours differ, docs/protocol.md lists the difference. It imports only
// the standard library and trusts nothing: who reads a struct off the wire checks what is in it.
package nodeapi

import (
	"encoding/json"
	"time"
)

// Version is the protocol version that this repository speaks. It grows by one with each change
// that an older peer would misread; additions of optional fields don't count.
const Version = 1

// Base is the path under which the whole node_api lies.
const Base = "/api/v1/system/node_api"

// The paths, below the platform's URL.
const (
	PathEnroll    = Base + "/enroll"
	PathHeartbeat = Base + "/status/heartbeat"
	PathModules   = Base + "/modules"
)

// MaxResponse bounds, in bytes, every JSON answer that an agent reads.
const MaxResponse = 4 << 20

// Envelope is the frame of every answer.
type Envelope struct {
	Success bool            `json:"success"`
	Data    json.RawMessage `json:"data,omitempty"`
	Error   string          `json:"error,omitempty"`
	Code    Code            `json:"code,omitempty"`
	Details json.RawMessage `json:"details,omitempty"`
}

// Code is the machine-readable reason of a failed call.
type Code string

// The codes.
const (
	CodeUnauthorized     Code = "UNAUTHORIZED"      // 401: no valid certificate
	CodeForbidden        Code = "FORBIDDEN"         // 403
	CodeNotFound         Code = "NOT_FOUND"         // 404
	CodeParameterMissing Code = "PARAMETER_MISSING" // 400
	CodeValidation       Code = "VALIDATION_ERROR"  // 422
	CodeTokenRefused     Code = "TOKEN_REFUSED"     // 422: unknown, used by another key, or expired; a stranger isn't told which
	CodeConflict         Code = "CONFLICT"          // 409
	CodeTooLarge         Code = "TOO_LARGE"         // 413
	CodeInternal         Code = "INTERNAL_ERROR"    // 500
)

// EnrollRequest exchanges a bootstrap token and a certificate request for a certificate.
// The same token with the same key gives the same certificate again.
type EnrollRequest struct {
	BootstrapToken string `json:"bootstrap_token"`
	// CSRPEM is a PKCS#10 request, PEM, signed by an Ed25519 key; its subject is ignored.
	CSRPEM       string `json:"csr_pem"`
	AgentVersion string `json:"agent_version,omitempty"`
	// InstanceID is the instance that the node believes to be; "" lets the token say it.
	InstanceID   string `json:"instance_id,omitempty"`
	DMIUUID      string `json:"dmi_uuid,omitempty"`
	Architecture string `json:"architecture,omitempty"`
}

// EnrollResponse is the certificate with what belongs to it.
type EnrollResponse struct {
	CertPEM       string    `json:"cert_pem"`
	CAChainPEM    string    `json:"ca_chain_pem"`
	InstanceID    string    `json:"instance_id"`
	MTLSSubject   string    `json:"mtls_subject"`
	NotAfter      time.Time `json:"not_after"`
	CertificateID string    `json:"certificate_id"`
}

// MountState says what the agent has made of its modules.
type MountState string

// The mount states.
const (
	MountMounted       MountState = "mounted"
	MountUnmounted     MountState = "unmounted"
	MountTransitioning MountState = "transitioning"
)

// Heartbeat is what a node says of itself every NextPollSeconds.
type Heartbeat struct {
	// BootID is the kernel's /proc/sys/kernel/random/boot_id: it changes with the boot, not
	// with the agent's process.
	BootID        string `json:"boot_id"`
	AgentVersion  string `json:"agent_version"`
	Architecture  string `json:"architecture"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	// ModuleDigests maps a module's ID to the OCI manifest digest ("sha256:…") that runs.
	ModuleDigests map[string]string `json:"module_digests"`
	MountState    MountState        `json:"mount_state"`
	// LoadAverage is the first three fields of /proc/loadavg.
	LoadAverage  string `json:"load_average,omitempty"`
	MemoryFreeKB int64  `json:"memory_free_kb,omitempty"`
	// RootDigest is the fs-verity digest of the running root image, 64 hexadecimal digits.
	RootDigest string `json:"root_digest,omitempty"`
	// IntegrityLevel is "enforced", "checked" or an "unsafe…" level.
	IntegrityLevel string `json:"integrity_level,omitempty"`
	Generation     uint64 `json:"generation,omitempty"`
	// Remarks are what the operator should know of the node now, as damage that can't be mended: at most
	// MaxRemarks sentences of MaxBootText bytes.
	Remarks []string `json:"remarks,omitempty"`
	// Machine tells this machine from another with the same credentials.
	Machine Machine `json:"machine,omitzero"`
	// CABundleSHA256 is that of the CA bundle which the node trusts, as in CAResponse.
	CABundleSHA256 string `json:"ca_bundle_sha256,omitempty"`
	// ConfigDigest names the configuration that the node has come to, as in NodeConfig.
	ConfigDigest string `json:"config_digest,omitempty"`
	// StateHash is what Hash returns. A platform that keeps it takes a Pulse from then on, for as long as nothing
	// changes. "" is an agent that always says everything.
	StateHash string `json:"state_hash,omitempty"`
}

// MaxRemarks bounds the remarks of a heartbeat.
const MaxRemarks = 16

// HeartbeatResponse acknowledges a heartbeat.
type HeartbeatResponse struct {
	Acknowledged    bool      `json:"acknowledged"`
	ServerTime      time.Time `json:"server_time"`
	NextPollSeconds int       `json:"next_poll_seconds"`
	// CABundleSHA256 is that of the CA bundle which nodes shall trust; another than the node's own is to be
	// fetched from PathCA. "" says nothing.
	CABundleSHA256 string `json:"ca_bundle_sha256,omitempty"`
	// Refresh asks the node for a certificate of a new key now, as when the CA rolls.
	Refresh bool `json:"refresh,omitempty"`
	// ConfigDigest names the node's configuration, as in NodeConfig: another than the one that the node
	// has come to is to be fetched from PathConfig. "" says nothing.
	ConfigDigest string `json:"config_digest,omitempty"`
	// StateHash is that of the state which the platform has of the node: a node whose state has this hash may send a
	// Pulse. "" is a platform that wants every heartbeat whole.
	StateHash string `json:"state_hash,omitempty"`
	// WantState asks for the whole heartbeat, now.
	WantState bool `json:"want_state,omitempty"`
	// Reconcile says that the node's list of modules has changed since the node read it.
	Reconcile bool `json:"reconcile,omitempty"`
	// TasksWaiting says that there are tasks for the node to lease.
	TasksWaiting bool `json:"tasks_waiting,omitempty"`
}

// ModuleList is the modules assigned to a node.
type ModuleList struct {
	Modules []Module `json:"modules"`
	Count   int      `json:"count"`
	// RootDigest is the root digest that the platform computed from this list, for the node's
	// architecture; "" while it hasn't.
	RootDigest string `json:"root_digest,omitempty"`
	// RemoveMost says that the list is meant even where a node loses more than half of its modules at once by it;
	// without, a node keeps what it has.
	RemoveMost bool `json:"remove_most,omitempty"`
}

// Variety is a module's role among its siblings.
type Variety string

// The varieties, in rising order of position.
const (
	VarietySubscription Variety = "subscription"
	VarietyConfig       Variety = "config"
	VarietyInstance     Variety = "instance"
)

// Module is one entry of a ModuleList.
type Module struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Variety Variety `json:"variety"`
	// Version is the module's version as the signed manifest's annotations give it.
	Version string `json:"version"`
	// Priority is the module's own; EffectivePriority is category position x 1000 + Priority.
	// Higher wins; among equals the smaller name.
	Priority          int  `json:"priority"`
	EffectivePriority int  `json:"effective_priority"`
	RebootRequired    bool `json:"reboot_required"`
	// Repository is the OCI repository, "host:port/path", without tag or digest.
	Repository string `json:"repository"`
	// Digest is what the assignment names in that repository: the digest ("sha256:…") of an
	// OCI image manifest, or of an index with one manifest for each architecture.
	Digest       string   `json:"digest"`
	Dependencies []string `json:"dependencies,omitempty"`
	// AllowDowngrade says that this version is meant although the node has run a higher one.
	AllowDowngrade bool `json:"allow_downgrade,omitempty"`
}

// ModuleDetail is the answer to GET modules/:id.
type ModuleDetail struct {
	Module Module `json:"module"`
}
