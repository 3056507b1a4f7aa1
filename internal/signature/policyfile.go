package signature

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// The bounds of a trust policy and of the files that it names.
const (
	// PolicyMax is the largest trust.yaml in bytes.
	PolicyMax = 256 << 10
	// PolicySchemaVersion is the only schema_version that is read.
	PolicySchemaVersion = 1

	keyFileMax     = 64 << 10
	trustedRootMax = 1 << 20
	rulesMax       = 64
	imagesMax      = 64
	modulesMax     = 256
	signersMax     = 32
	regexpMax      = 1024
)

// The document as it is written; the package documentation describes it.
type (
	policyDoc struct {
		SchemaVersion int    `yaml:"schema_version"`
		Integrity     string `yaml:"integrity"`
		RecoveryShell bool   `yaml:"recovery_shell"`
		EphemeralRoot bool   `yaml:"ephemeral_root"`
		NodeKey       string `yaml:"node_key"`
		// AllowPrivileged are names of modules.
		AllowPrivileged []string  `yaml:"allow_privileged_services"`
		Rules           []ruleDoc `yaml:"rules"`
	}
	ruleDoc struct {
		Name        string        `yaml:"name"`
		Images      []string      `yaml:"images"`
		Modules     []string      `yaml:"modules"`
		Keys        []keyDoc      `yaml:"keys"`
		Identities  []identityDoc `yaml:"identities"`
		TrustedRoot string        `yaml:"trusted_root"`
	}
	keyDoc struct {
		Name      string `yaml:"name"`
		PEM       string `yaml:"pem"`
		File      string `yaml:"file"`
		NotBefore string `yaml:"not_before"`
		NotAfter  string `yaml:"not_after"`
	}
	identityDoc struct {
		Issuer        string `yaml:"issuer"`
		Subject       string `yaml:"subject"`
		SubjectRegexp string `yaml:"subject_regexp"`
	}
)

var ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

// LoadPolicy reads a trust policy. files is the directory of trust.yaml (os.Root.FS, so that no
// path leads out of it), from which keys and trusted roots are read; nil if the policy names none.
// The error is a fault.Refuse in area Verify that names the rule and what is wrong with it.
func LoadPolicy(text []byte, files fs.FS) (*Policy, error) {
	p, err := loadPolicy(text, files)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "correct the trust policy; docs/trust.md describes it", "read the trust policy: %w", err)
	}
	return p, nil
}

func loadPolicy(text []byte, files fs.FS) (*Policy, error) {
	doc, err := parsePolicy(text)
	if err != nil {
		return nil, err
	}
	p := &Policy{integrity: LevelChecked, recoveryShell: doc.RecoveryShell, ephemeralRoot: doc.EphemeralRoot, nodeKey: NodeKeyFile}
	if doc.Integrity != "" {
		p.integrity = Level(doc.Integrity)
	}
	if doc.NodeKey != "" {
		p.nodeKey = NodeKey(doc.NodeKey)
	}
	switch {
	case doc.SchemaVersion != PolicySchemaVersion:
		return nil, fmt.Errorf("schema_version is %d; this program reads %d", doc.SchemaVersion, PolicySchemaVersion)
	case !p.integrity.known():
		return nil, fmt.Errorf("integrity %.40q isn't known; it is enforced or checked", doc.Integrity)
	case !p.nodeKey.known():
		return nil, fmt.Errorf("node_key %.40q isn't known; it is file, tpm or tpm-if-present", doc.NodeKey)
	case len(doc.AllowPrivileged) > modulesMax:
		return nil, fmt.Errorf("allow_privileged_services has more than %d modules", modulesMax)
	case len(doc.Rules) == 0:
		return nil, errors.New("it has no rules, so it trusts nobody")
	case len(doc.Rules) > rulesMax:
		return nil, fmt.Errorf("it has more than %d rules", rulesMax)
	}
	for _, name := range doc.AllowPrivileged {
		if err := module.CheckName(name); err != nil {
			return nil, fmt.Errorf("allow_privileged_services: %w", err)
		}
	}
	p.privileged = doc.AllowPrivileged
	for i, rd := range doc.Rules {
		if !ruleName.MatchString(rd.Name) {
			return nil, fmt.Errorf("rule %d: its name %.80q is not 1 to 63 letters, digits and hyphens", i+1, rd.Name)
		}
		if slices.ContainsFunc(p.rules, func(r rule) bool { return r.name == rd.Name }) {
			return nil, fmt.Errorf("two rules are named %q", rd.Name)
		}
		r, err := newRule(rd, files)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", rd.Name, err)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

// parsePolicy reads the document's shape, strictly.
func parsePolicy(text []byte) (*policyDoc, error) {
	if len(text) > PolicyMax {
		return nil, fmt.Errorf("it is larger than %d bytes", PolicyMax)
	}
	var tree yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&tree); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty, so it trusts nobody")
		}
		return nil, plainYAML(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it holds more than one document")
	}
	if line := anchored(&tree); line > 0 {
		return nil, fmt.Errorf("line %d has an anchor, an alias or a merge key; write it out", line)
	}
	var doc policyDoc
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&doc); err != nil {
		return nil, plainYAML(err)
	}
	return &doc, nil
}

// anchored returns the line of the first anchor, alias or merge key, or 0: what a reviewer reads
// at one place must not come from another.
func anchored(n *yaml.Node) int {
	if n.Anchor != "" || n.Kind == yaml.AliasNode || n.Tag == "!!merge" {
		return n.Line
	}
	for _, child := range n.Content {
		if line := anchored(child); line > 0 {
			return line
		}
	}
	return 0
}
