package operatorapi

import "time"

// PathNodeConfig is the path of what is set of a node beside its modules.
const PathNodeConfig = PathNode + "/config"

// MaxConfigChange bounds a NodeConfigChange, in bytes of JSON.
const MaxConfigChange = 1 << 20

// NodeConfig is what is set of a node beside its modules.
type NodeConfig struct {
	NodeID   string `json:"node_id"`
	NodeName string `json:"node_name"`
	// Digest names this configuration; nodes compare it.
	Digest string `json:"digest"`
	// ChangedAt is missing while nothing was ever set.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	// Hostname is "" where the node's own stays.
	Hostname string `json:"hostname,omitempty"`
	// Hosts are the entries of /etc/hosts: missing where none were ever set.
	Hosts []HostEntry `json:"hosts,omitzero"`
	// Users are by name.
	Users []UserKeys `json:"users"`
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// UserKeys are a user's authorized keys.
type UserKeys struct {
	Name           string   `json:"name"`
	AuthorizedKeys []string `json:"authorized_keys"`
	// NoKeys says that the user is to have none of the platform's; otherwise an empty list is refused.
	NoKeys bool `json:"no_keys,omitempty"`
}

// NodeConfigChange says what is to change; what is left out stays.
type NodeConfigChange struct {
	// Hostname "" leaves the node its own from now on.
	Hostname *string `json:"hostname,omitempty"`
	// Hosts take the place of those that were set; an empty list takes them from the node.
	Hosts *[]HostEntry `json:"hosts,omitempty"`
	// Users take the place of those of the same names.
	Users []UserKeys `json:"users,omitempty"`
	// ForgetUsers are users of whom nothing is said any more: what nodes have of them stays there.
	ForgetUsers []string `json:"forget_users,omitempty"`
}
