package operatorapi

import "time"

// Base is the path under which the whole operator API lies.
const Base = "/api/v1/operator"

// The paths, below the platform's URL. {node} and {module} take an ID or a name.
const (
	PathInfo        = Base + "/info"
	PathNodes       = Base + "/nodes"
	PathNode        = PathNodes + "/{node}"
	PathTokens      = PathNode + "/tokens"
	PathAssignments = PathNode + "/assignments"
	PathAssignment  = PathAssignments + "/{module}"
	PathModules     = Base + "/modules"
	PathModule      = PathModules + "/{module}"
	PathEvents      = Base + "/events"
)

// RegistryUser is the user name with which the operator token opens the platform's registry by
// HTTP basic authentication.
const RegistryUser = "operator"

// Bounds of what a caller may ask for.
const (
	// MaxNameLength is the longest name of a node in bytes.
	MaxNameLength = 63
	// MaxTokenTTL is the longest life of a bootstrap token.
	MaxTokenTTL = 7 * 24 * time.Hour
	// DefaultTokenTTL is the life of a bootstrap token where none is asked for.
	DefaultTokenTTL = time.Hour
	// MaxPriority is the highest priority of a module within its category: effective priority
	// is category position x 1000 + priority, and categories must not overlap.
	MaxPriority = 999
	// MaxCategoryPosition is the highest position of a category.
	MaxCategoryPosition = 999
)

// StaleAfter is the age from which a node's last heartbeat counts as stale; on a platform that lets nodes report less often than each 45 s, four
// times as long as that.
const StaleAfter = 3 * time.Minute

// Info says whom the caller is talking to.
type Info struct {
	Version   string `json:"version"`
	PublicURL string `json:"public_url"`
	// Registry is the host and port of the platform's OCI registry, as image names hold it.
	Registry   string    `json:"registry"`
	ServerTime time.Time `json:"server_time"`
}

// NodeStatus is what the platform concludes from a node's heartbeats.
type NodeStatus string

// The statuses.
const (
	// NodePending has never sent a heartbeat.
	NodePending NodeStatus = "pending"
	// NodeRunning sent one within StaleAfter.
	NodeRunning NodeStatus = "running"
	// NodeStale sent one, but not within StaleAfter.
	NodeStale NodeStatus = "stale"
)

// NodeCreate asks for a new node.
type NodeCreate struct {
	// Name is a DNS label: lower-case letters, digits and hyphens, at most MaxNameLength.
	Name string `json:"name"`
	// Architecture is "amd64", "arm64", or "" to let the first enrollment say it.
	Architecture string `json:"architecture,omitempty"`
}

// Node is one machine as the platform knows it.
type Node struct {
	// ID is the node's identity: the common name of its certificates.
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Status    NodeStatus `json:"status"`
	CreatedAt time.Time  `json:"created_at"`
	// Architecture is the declared one, or the one that the node enrolled with.
	Architecture string `json:"architecture"`
	// Modules is the number of assignments.
	Modules int `json:"modules"`
	// ExpectedRootDigest is the root digest that the platform computed from the assignments; ""
	// while there are none or where ExpectedRootError says why not.
	ExpectedRootDigest string `json:"expected_root_digest"`
	ExpectedRootError  string `json:"expected_root_error,omitempty"`
	// InStep reports that the node said it runs exactly ExpectedRootDigest.
	InStep bool `json:"in_step"`
	// State says whether the node runs what it should, StateReason why it doesn't, or why that isn't known.
	State       NodeState `json:"state"`
	StateReason string    `json:"state_reason,omitempty"`
	// Attention says why an operator should look at the node's identity, as when two machines use it:
	// sentences, until a new enrollment or an approval clears them.
	Attention []string `json:"attention,omitempty"`
	// WaitingRenewals is the number of renewals that wait for an approval.
	WaitingRenewals int `json:"waiting_renewals,omitempty"`
	// Report is the last heartbeat; nil before the first.
	Report *Report `json:"report,omitempty"`
}

// Report is a node's last heartbeat as the platform keeps it.
type Report struct {
	ReceivedAt time.Time `json:"received_at"`
	// AgeSeconds is the heartbeat's age when the platform answered.
	AgeSeconds     int64             `json:"age_seconds"`
	BootID         string            `json:"boot_id"`
	AgentVersion   string            `json:"agent_version"`
	Architecture   string            `json:"architecture"`
	UptimeSeconds  int64             `json:"uptime_seconds"`
	ModuleDigests  map[string]string `json:"module_digests"`
	MountState     string            `json:"mount_state"`
	LoadAverage    string            `json:"load_average,omitempty"`
	MemoryFreeKB   int64             `json:"memory_free_kb,omitempty"`
	RootDigest     string            `json:"root_digest"`
	IntegrityLevel string            `json:"integrity_level"`
	Generation     uint64            `json:"generation"`
	// Remarks are what the node says that an operator should know, as damage that can't be mended.
	Remarks []string `json:"remarks,omitempty"`
}

// NodeList is every node, by name.
type NodeList struct {
	Nodes []Node `json:"nodes"`
	Count int    `json:"count"`
}

// NodeDetail is one node with what belongs to it.
type NodeDetail struct {
	Node        Node     `json:"node"`
	Assignments []Module `json:"assignments"`
	// RemoveMost is as in AssignmentList.
	RemoveMost   bool          `json:"remove_most,omitempty"`
	Certificates []Certificate `json:"certificates"`
	// Renewals are those that wait for an operator, or that one has decided; the one that asked last first.
	Renewals []Renewal `json:"renewals"`
	// Conflicts are the paths that several of the assigned modules claim, as composition
	// settled them.
	Conflicts []Conflict `json:"conflicts"`
	// Boots are the node's last, newest first.
	Boots []Boot `json:"boots"`
	// Events are the node's latest, newest first.
	Events []Event `json:"events"`
}

// Conflict is one path that several modules claim.
type Conflict struct {
	Path   string   `json:"path"`
	Winner string   `json:"winner"`
	Losers []string `json:"losers"`
	Reason string   `json:"reason"`
}

// Certificate is one certificate that the platform issued to a node.
type Certificate struct {
	ID string `json:"id"`
	// Serial is the serial number in upper-case hexadecimal digits.
	Serial string           `json:"serial"`
	State  CertificateState `json:"state"`
	// Origin is "enroll", "refresh" or "renew".
	Origin    string    `json:"origin"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// UsedAt is the time of the first request by it.
	UsedAt       *time.Time `json:"used_at,omitempty"`
	SupersededAt *time.Time `json:"superseded_at,omitempty"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
}

// TokenCreate asks for a bootstrap token.
type TokenCreate struct {
	// TTLSeconds is the token's life; 0 means DefaultTokenTTL.
	TTLSeconds int64 `json:"ttl_seconds,omitempty"`
}

// Token is a bootstrap token. The platform keeps only its hash: this is the only time it is seen.
type Token struct {
	Token     string    `json:"token"`
	NodeID    string    `json:"node_id"`
	NodeName  string    `json:"node_name"`
	ExpiresAt time.Time `json:"expires_at"`
	// PlatformURL and CAPEM are what a node needs besides the token.
	PlatformURL string `json:"platform_url"`
	CAPEM       string `json:"ca_pem"`
}

// AssignmentCreate assigns a module to a node.
type AssignmentCreate struct {
	// Module is the module's ID or name.
	Module string `json:"module"`
	// AllowDowngrade says whether the node may go down to the module's current version from a higher one; nil leaves
	// that as it is. It counts for that version, not for what becomes current later.
	AllowDowngrade *bool `json:"allow_downgrade,omitempty"`
}

// RemoveMost is the query parameter of DELETE PathAssignment that says, as "true", that the node may lose more than half of its
// modules at once, until it reports that it runs nothing of the platform's that isn't assigned. A module that isn't assigned any
// more is no error then.
const RemoveMost = "remove_most"

// AssignmentList is the modules assigned to a node, the one that wins first.
type AssignmentList struct {
	Assignments []Module `json:"assignments"`
	Count       int      `json:"count"`
	// ExpectedRootDigest and ExpectedRootError are as in Node.
	ExpectedRootDigest string `json:"expected_root_digest"`
	ExpectedRootError  string `json:"expected_root_error,omitempty"`
	// RemoveMost reports that the node may lose more than half of its modules at once.
	RemoveMost bool `json:"remove_most,omitempty"`
}

// ModuleRegister tells the platform of a module that was pushed to its registry.
type ModuleRegister struct {
	// Repository is the repository's path in the platform's registry, with or without the
	// registry's host and port before it.
	Repository string `json:"repository"`
	// Digest is that of an image manifest, or of an index with one for each architecture.
	Digest string `json:"digest"`
	// Variety is "subscription", "config" or "instance"; "" means subscription.
	Variety string `json:"variety,omitempty"`
	// CategoryPosition is the category's place, 0 to MaxCategoryPosition; nil takes the
	// variety's own: 10, 20 or 30.
	CategoryPosition *int `json:"category_position,omitempty"`
	// Priority is the module's own within its category, 0 to MaxPriority.
	Priority int `json:"priority"`
}

// Module is a module in its current version.
type Module struct {
	ID                string    `json:"id"`
	Name              string    `json:"name"`
	Version           string    `json:"version"`
	Variety           string    `json:"variety"`
	CategoryPosition  int       `json:"category_position"`
	Priority          int       `json:"priority"`
	EffectivePriority int       `json:"effective_priority"`
	RebootRequired    bool      `json:"reboot_required"`
	Repository        string    `json:"repository"`
	Digest            string    `json:"digest"`
	RegisteredAt      time.Time `json:"registered_at"`
	// AllowDowngrade says of an assigned module that the node may go down to this version from a higher one.
	AllowDowngrade bool    `json:"allow_downgrade,omitempty"`
	Images         []Image `json:"images"`
}

// Image is a module's version for one architecture.
type Image struct {
	Architecture   string `json:"architecture"`
	ManifestDigest string `json:"manifest_digest"`
	// Seal is the seal that the platform computed from the layers and found equal to the annotation.
	Seal string `json:"seal"`
}

// ModuleList is every module, by name.
type ModuleList struct {
	Modules []Module `json:"modules"`
	Count   int      `json:"count"`
}

// Event is something that happened, for the operator to see.
type Event struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	NodeID string    `json:"node_id,omitempty"`
	Text   string    `json:"text"`
}

// EventList is the latest events, newest first.
type EventList struct {
	Events []Event `json:"events"`
	Count  int     `json:"count"`
}

// CodeSealRefused (422) says that a module's seal or annotations don't fit its content.
const CodeSealRefused = "SEAL_REFUSED"

// Details is what the details of an error may hold.
type Details struct {
	// Hint says what the operator can do next, as an imperative clause.
	Hint string `json:"hint,omitempty"`
	// RequestID is that of the platform's log, and of the header X-Request-Id.
	RequestID string `json:"request_id,omitempty"`
}

// CredentialName is the name of the credential file in the platform's data directory.
const CredentialName = "operator.json"

// Credentials is the content of the credential file: which platform, how to know it, and how to
// be known to it. Who reads the token keeps it out of every output.
type Credentials struct {
	URL   string `json:"url"`
	CAPEM string `json:"ca_pem"`
	Token string `json:"token"`
}
