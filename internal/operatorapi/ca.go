package operatorapi

import "time"

// The paths of the certificate authority, below the platform's URL.
const (
	PathCA         = Base + "/ca"
	PathCAPrepare  = PathCA + "/prepare"
	PathCAActivate = PathCA + "/activate"
	PathCARetire   = PathCA + "/retire"
)

// HeaderCABundle is the header, of every answer to the operator, with the SHA-256 of the CA bundle that is
// to be trusted, in lower-case hexadecimal digits. Who has another one fetches it from nodeapi.PathCA.
const HeaderCABundle = "Powernode-Ca-Bundle"

// AuthorityState is where an authority stands in its life.
type AuthorityState string

// The states, in the order in which an authority goes through them.
const (
	// AuthorityPrepared is told to the nodes and signs nothing yet.
	AuthorityPrepared AuthorityState = "prepared"
	// AuthorityActive signs.
	AuthorityActive AuthorityState = "active"
	// AuthorityTrusted signs no more, and what it signed is good.
	AuthorityTrusted AuthorityState = "trusted"
	// AuthorityRetired has no key any more, and nobody is told to trust it.
	AuthorityRetired AuthorityState = "retired"
)

// Authority is one key by which the platform signs, or signed.
type Authority struct {
	// ID is eight hexadecimal digits; they stand in Name, too.
	ID    string         `json:"id"`
	Name  string         `json:"name"`
	State AuthorityState `json:"state"`
	// SHA256 is that of the certificate, in lower-case hexadecimal digits.
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// CrossSignedBy is the ID of the authority before it, by whose signature those who trust that one only
	// are led to this one, until CrossNotAfter.
	CrossSignedBy string    `json:"cross_signed_by,omitempty"`
	CrossNotAfter time.Time `json:"cross_not_after,omitzero"`
	// Presents says that the platform shows itself by this one.
	Presents    bool      `json:"presents"`
	PreparedAt  time.Time `json:"prepared_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	RetiredAt   time.Time `json:"retired_at,omitzero"`
	// Certificates is how many of the nodes' certificates in force it signed.
	Certificates int `json:"certificates"`
}

// CAList is every authority, the oldest first.
type CAList struct {
	Authorities  []Authority `json:"authorities"`
	BundleSHA256 string      `json:"bundle_sha256"`
	// Behind are, while one authority follows another, the nodes that aren't done: those that don't say that they
	// trust the next one, and, once that signs, those that hold certificates by the old one.
	Behind []CABehind `json:"behind"`
	// Attention is what the operator should know, as sentences: what doesn't fit between the authorities, their keys and
	// the certificates on file, and, in the answer to a retiring by force, what that does to nodes.
	Attention []string `json:"attention,omitempty"`
}

// CAPrepare asks for the next authority.
type CAPrepare struct {
	// TakeUp is the ID of an authority whose key the platform has and whose record it lost; "" makes a new one.
	TakeUp string `json:"take_up,omitempty"`
}

// CABehind is a node that isn't done with the old authority.
type CABehind struct {
	NodeID   string   `json:"node_id"`
	NodeName string   `json:"node_name"`
	Reasons  []string `json:"reasons"`
}

// CARetire asks for the end of an authority.
type CARetire struct {
	// Authority is the ID; "" means the oldest that is trusted.
	Authority string `json:"authority,omitempty"`
	// Force retires it though nodes are behind.
	Force bool `json:"force,omitempty"`
}
