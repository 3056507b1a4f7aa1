package nodeapi

// The paths of a node's configuration, below the platform's URL.
const (
	PathConfig         = Base + "/config"
	PathAuthorizedKeys = PathConfig + "/authorized_keys"
)

// Bounds of a node's configuration: users, keys of one user, bytes of a line of authorized_keys, entries
// of /etc/hosts, names of one of them, and bytes of the whole as JSON.
const (
	MaxConfigUsers = 32
	MaxUserKeys    = 256
	MaxKeyLine     = 8192
	MaxHosts       = 1024
	MaxHostNames   = 16
	MaxNodeConfig  = 1 << 20
)

// NodeConfig is what the operator has set of a node beside its modules. What isn't told stays as the
// node has it.
type NodeConfig struct {
	// Digest names this configuration: 64 hexadecimal digits, the same as in HeartbeatResponse. A node
	// compares it, and doesn't compute it. "" is a platform that tells authorized keys only.
	Digest string `json:"digest"`
	// Hostname is the node's; "" tells none.
	Hostname string `json:"hostname,omitempty"`
	// Hosts are the platform's entries of /etc/hosts: nil tells nothing, an empty list takes those away
	// that were there.
	Hosts []HostEntry `json:"hosts,omitzero"`
	// Users are those whose authorized keys are told. Of others nothing changes.
	Users []UserKeys `json:"users"`
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// UserKeys are the keys that let into a user's account, beside those that the node has of its own.
type UserKeys struct {
	Name string `json:"name"`
	// AuthorizedKeys are lines of authorized_keys(5). None is a mistake, and changes nothing, unless
	// NoKeys says that it is meant.
	AuthorizedKeys []string `json:"authorized_keys"`
	NoKeys         bool     `json:"no_keys,omitempty"`
}

// AuthorizedKeys is the answer to GET config/authorized_keys: the keys of one user.
type AuthorizedKeys struct {
	// AuthorizedKeys are lines, joined by line feeds, without one at the end.
	AuthorizedKeys string `json:"authorized_keys"`
	KeysCount      int    `json:"keys_count"`
	TargetUser     string `json:"target_user"`
	// Config says that this platform has GET config, so that a node to which that failed asks again, and doesn't take this
	// for all that there is. The existing platform doesn't send it.
	Config bool `json:"config,omitempty"`
}
