package module

// SchemaVersion is the only manifest.yaml schema that this package reads.
const SchemaVersion = 1

// ManifestMax is the largest manifest.yaml in bytes.
const ManifestMax = 256 << 10

// Manifest is a module's description of itself, as manifest.yaml holds it. ParseManifest makes
// one; what it returns has been checked and has its defaults filled in.
type Manifest struct {
	SchemaVersion int    `json:"schema_version"`
	Name          string `json:"name"`
	DisplayName   string `json:"display_name,omitempty"`
	Description   string `json:"description,omitempty"`
	License       string `json:"license,omitempty"`

	// Mask are globs of paths that the module doesn't ship and hides in modules that it wins
	// over. The package documentation says what a glob matches; package compose says what a
	// composition makes of each spec.
	Mask []string `json:"mask,omitempty"`
	// FileSpec are globs of the paths that belong to the module; empty means all.
	FileSpec []string `json:"file_spec,omitempty"`
	// ProtectedSpec are globs of paths that no other module may ship.
	ProtectedSpec []string `json:"protected_spec,omitempty"`
	// DependencySpec is the file_spec that the module's children inherit.
	DependencySpec []string `json:"dependency_spec,omitempty"`
	// PackageSpec are Debian packages, each "name" or "name=version".
	PackageSpec []string `json:"package_spec,omitempty"`

	Dependencies   Dependencies `json:"dependencies,omitzero"`
	Init           Init         `json:"init,omitzero"`
	RebootRequired bool         `json:"reboot_required,omitempty"`
	Security       Security     `json:"security,omitzero"`
	// Skills is passed on as it is: strings, bools, int64, float64, nil, []any, map[string]any.
	Skills   []any     `json:"skills,omitempty"`
	Build    Build     `json:"build,omitzero"`
	Services []Service `json:"services,omitempty"`
}

// Dependencies says what a module needs of others and gives to them.
type Dependencies struct {
	Requires []Requirement `json:"requires,omitempty"`
	// Provides are capability tags; informational.
	Provides []string `json:"provides,omitempty"`
}

// Requirement is one entry of dependencies.requires: "owner/module@constraint".
type Requirement struct {
	Owner  string `json:"owner"`
	Module string `json:"module"`
	// Constraint is "*" or a version with ^, ~ or = in front or nothing; "" where none is given.
	Constraint string `json:"constraint,omitempty"`
}

// String returns the form that manifest.yaml has it in.
func (r Requirement) String() string {
	s := r.Owner + "/" + r.Module
	if r.Constraint != "" {
		s += "@" + r.Constraint
	}
	return s
}

// Init is the legacy form of a service: command lines.
type Init struct {
	Start   string `json:"start,omitempty"`
	Stop    string `json:"stop,omitempty"`
	Restart string `json:"restart,omitempty"`
}

// Security restricts a module's services.
type Security struct {
	// Capabilities are the kernel's names, "CAP_NET_BIND_SERVICE".
	Capabilities    []string `json:"capabilities,omitempty"`
	SELinuxProfile  string   `json:"selinux_profile,omitempty"`
	AppArmorProfile string   `json:"apparmor_profile,omitempty"`
	SeccompProfile  string   `json:"seccomp_profile,omitempty"`
	// EgressAllow are the peers to which services may connect.
	EgressAllow []Endpoint `json:"egress_allow,omitempty"`
	// Privileged goes with none of the restrictions but EgressAllow.
	Privileged    bool `json:"privileged,omitempty"`
	UserNamespace bool `json:"user_namespace,omitempty"`
}

// Endpoint is "host" or "host:port"; host is a DNS name or an IP address, IPv6 in brackets where
// a port follows.
type Endpoint struct {
	// Host is a DNS name in lower case or an IP address without brackets.
	Host string `json:"host"`
	// Port is 0 where none is given.
	Port uint16 `json:"port,omitempty"`
}

// Build pins what a module is built from.
type Build struct {
	// UbuntuDigest is "" or an OCI digest, "sha256:…".
	UbuntuDigest string `json:"ubuntu_digest,omitempty"`
	// APTSnapshot is "" or a moment of a package archive, "20260415T000000Z".
	APTSnapshot  string `json:"apt_snapshot,omitempty"`
	FirmwareRepo string `json:"firmware_repo,omitempty"`
	FirmwareRef  string `json:"firmware_ref,omitempty"`
	K3sVersion   string `json:"k3s_version,omitempty"`
}
