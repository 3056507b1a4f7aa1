package operatorapi

import (
	"slices"
	"time"
)

// Operators' tokens, and what was done by them.
const (
	PathOperators = Base + "/operators"
	PathOperator  = PathOperators + "/{operator}"
	PathAudit     = Base + "/audit"
)

// Role is what an operator's token is good for.
type Role string

// The roles. Each may do what those before it may.
const (
	// RoleRead sees everything but the audit log and the operators' tokens, and pulls from the registry.
	RoleRead Role = "read"
	// RoleDeploy pushes to the registry, registers and assigns modules, and asks nodes for tasks.
	RoleDeploy Role = "deploy"
	// RoleAdmin decides who is a node, who is an operator, and who may log in on a node.
	RoleAdmin Role = "admin"
)

// Roles returns every role, the one that may least first.
func Roles() []Role { return []Role{RoleRead, RoleDeploy, RoleAdmin} }

// May reports whether who has the role may do what needs another. An unknown role may do nothing, and nothing that needs one is
// allowed.
func (r Role) May(needed Role) bool {
	has, needs := slices.Index(Roles(), r), slices.Index(Roles(), needed)
	return needs >= 0 && has >= needs
}

// Bounds and defaults.
const (
	// FirstOperator is the name of the token that the platform makes at its first start: an admin's, which can be replaced but not revoked.
	FirstOperator = "operator"
	// MaxOperatorName is the longest name of an operator's token in bytes.
	MaxOperatorName = 63
)

// OperatorCreate asks for a further operator's token.
type OperatorCreate struct {
	// Name is whose it is: lower-case letters, digits, dots, hyphens and underscores, at most MaxOperatorName.
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// OperatorToken is a token that was made. The platform keeps only its hash: this is the only time it is seen. As a file, it is
// Credentials.
type OperatorToken struct {
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	CreatedAt time.Time `json:"created_at"`
	URL       string    `json:"url"`
	CAPEM     string    `json:"ca_pem"`
	Token     string    `json:"token"`
}

// Operator is an operator's token as the platform knows it.
type Operator struct {
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	CreatedAt time.Time `json:"created_at"`
	// CreatedBy is the name of the token by which it was made; "" of the first.
	CreatedBy string `json:"created_by,omitempty"`
}

// OperatorList is every operator's token, the first and then the others by name.
type OperatorList struct {
	Operators []Operator `json:"operators"`
	Count     int        `json:"count"`
}

// The parameters of GET PathAudit beside QueryLimit.
const (
	// QueryBy is the name of the token whose entries are wanted.
	QueryBy = "by"
	// QueryBefore is the ID before which to go on.
	QueryBefore = "before"
)

// AuditEntry is one thing that an operator changed, or tried to.
type AuditEntry struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
	// By is the name of the operator's token, Role its role then, From the address that it came from.
	By   string `json:"by"`
	Role Role   `json:"role"`
	From string `json:"from"`
	// Action is what was to be done, as module.assign, and Target to what: names or IDs.
	Action string `json:"action"`
	Target string `json:"target,omitempty"`
	// Request is the beginning of what was sent.
	Request string `json:"request,omitempty"`
	// Result is "ok", or the code of the error, with Error.
	Result string `json:"result"`
	Error  string `json:"error,omitempty"`
	// RequestID is that of the platform's log.
	RequestID string `json:"request_id,omitempty"`
}

// AuditList is the latest of what operators changed, the newest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Count   int          `json:"count"`
}
