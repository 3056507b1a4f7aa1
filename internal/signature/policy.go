package signature

import (
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

// Policy says whose signatures count for which images. LoadPolicy makes one; it doesn't change.
type Policy struct {
	integrity     Level
	recoveryShell bool
	ephemeralRoot bool
	nodeKey       NodeKey
	privileged    []string
	rules         []rule
}

// rule is one entry of a policy. Any one of its keys and identities is enough.
type rule struct {
	name       string
	images     []pattern
	modules    []pattern // none means every module
	keys       []key
	identities []identity
	trusted    *root.TrustedRoot // nil only without identities
}

// key is a public key that may sign.
type key struct {
	name     string
	id       string // as signing.Key.ID and a bundle's hint: base64 of the SHA-256 of the PKIX form
	verifier sigstore.Verifier
	// buffers says that the algorithm needs the whole message in memory.
	buffers             bool
	notBefore, notAfter time.Time // zero for no limit
}

// identity is a keyless signer: who Fulcio certified it to be.
type identity struct {
	issuer, subject string
	matcher         verify.CertificateIdentity
}

// Integrity returns the least integrity level that the policy accepts.
func (p *Policy) Integrity() Level { return p.integrity }

// RecoveryShell reports whether a person at the console of the node may stop its boot, and may have a
// shell in its recovery environment, with all rights and without a password.
func (p *Policy) RecoveryShell() bool { return p.recoveryShell }

// EphemeralRoot reports whether nothing but /var and /persist may outlive a boot, whatever the kernel
// command line asks for.
func (p *Policy) EphemeralRoot() bool { return p.ephemeralRoot }

// NodeKey returns where the private key of the node's certificate is to be kept.
func (p *Policy) NodeKey() NodeKey { return p.nodeKey }

// PrivilegedServices returns the names of the modules whose services may ask for everything that root may do.
func (p *Policy) PrivilegedServices() []string { return slices.Clone(p.privileged) }

// NodeKey says where the private key of a node's certificate is kept. The words are those of
// package enroll's KeyKind.
type NodeKey string

// The places of a node's key.
const (
	// NodeKeyFile is a file on the node's disk. It is what a policy says that says nothing.
	NodeKeyFile NodeKey = "file"
	// NodeKeyTPM is the machine's TPM, and no other place.
	NodeKeyTPM NodeKey = "tpm"
	// NodeKeyTPMIfPresent is the TPM of a machine that has one, and a file elsewhere.
	NodeKeyTPMIfPresent NodeKey = "tpm-if-present"
)

// known reports whether k is one of the places.
func (k NodeKey) known() bool { return k == NodeKeyFile || k == NodeKeyTPM || k == NodeKeyTPMIfPresent }

// RuleSummary is a rule as people are shown it.
type RuleSummary struct {
	Name    string   `json:"name"`
	Images  []string `json:"images"`
	Modules []string `json:"modules,omitempty"`
	// Signers are the rule's keys and identities in words.
	Signers []string `json:"signers"`
}

// Rules returns a summary of the rules in their order.
func (p *Policy) Rules() []RuleSummary {
	out := make([]RuleSummary, 0, len(p.rules))
	for _, r := range p.rules {
		s := RuleSummary{Name: r.name, Images: texts(r.images), Modules: texts(r.modules)}
		for _, k := range r.keys {
			s.Signers = append(s.Signers, "key "+k.name+" ("+k.id+")")
		}
		for _, id := range r.identities {
			s.Signers = append(s.Signers, id.subject+" certified by "+id.issuer)
		}
		out = append(out, s)
	}
	return out
}

func texts(patterns []pattern) []string {
	var out []string
	for _, p := range patterns {
		out = append(out, p.text)
	}
	return out
}

// find returns the rule that decides about a module pulled from a repository: the first that
// covers both. nil means that nothing does.
func (p *Policy) find(repository, moduleName string) *rule {
	for i := range p.rules {
		r := &p.rules[i]
		if r.coversImage(repository) && (len(r.modules) == 0 || matchAny(r.modules, moduleName)) {
			return r
		}
	}
	return nil
}

func (r *rule) coversImage(repository string) bool { return matchAny(r.images, repository) }

func matchAny(patterns []pattern, name string) bool {
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.match(name) })
}
