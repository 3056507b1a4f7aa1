package nodeapi

// PathRegistryAccess tells a node what opens the repository of one of its modules (GET, with QueryRepository). It is for registries other
// than the platform's own, which knows a node by its certificate. A node asks when such a registry wants credentials.
const (
	PathRegistryAccess = Base + "/registry/access"
	QueryRepository    = "repository"
)

// RegistryAccess opens one repository for reading. A node keeps it in memory only, sends it to no other host than the repository's,
// and asks again when the registry doesn't take it any more. Without a token and a user, there is nothing that the platform could give.
type RegistryAccess struct {
	// Token goes to the registry as bearer token.
	Token string `json:"token,omitempty"`
	// Username and Password are for a registry that knows passwords only.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}
