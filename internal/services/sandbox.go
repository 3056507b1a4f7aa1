package services

import (
	"regexp"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
)

// sandbox is what a unit may do.
type sandbox struct {
	security     module.Security
	capabilities []string
	user         string
	// legacy is for lines of an init, which begin daemons and manage the system: they are held to what the manifest
	// names, and to nothing by default.
	legacy bool
}

// newSandbox joins what the module and one of its services may do. What the module names is the most that a service may have.
func newSandbox(security module.Security, s module.Service) (sandbox, error) {
	b := sandbox{security: security, capabilities: security.Capabilities, user: s.User}
	if len(s.Capabilities) > 0 {
		for _, c := range s.Capabilities {
			if len(security.Capabilities) > 0 && !slices.Contains(security.Capabilities, c) {
				return b, refused("add it to security.capabilities, or leave it out", "the service wants %s, which the module's security doesn't allow", c)
			}
		}
		if security.Privileged {
			return b, refused("remove privileged, or the capabilities", "privileged lifts the capabilities that the service names")
		}
		b.capabilities = s.Capabilities
	}
	for _, c := range b.capabilities {
		if !capabilityForm.MatchString(c) {
			return b, refused("see capabilities(7)", "%.80q is not a capability", c)
		}
	}
	return b, nil
}

var (
	capabilityForm = regexp.MustCompile(`^CAP_[A-Z_]{2,40}$`)
	appArmorForm   = regexp.MustCompile(`^[A-Za-z0-9_/][A-Za-z0-9_/.:-]{0,254}$`)
	seLinuxForm    = regexp.MustCompile(`^[A-Za-z0-9_.]+:[A-Za-z0-9_.]+:[A-Za-z0-9_.]+(:[A-Za-z0-9_.,:-]+)?$`)
)

// write writes the directives of [Service].
func (b sandbox) write(w *writer, node Node) error {
	if err := b.egress(w, node); err != nil {
		return err
	}
	if b.security.Privileged {
		return nil
	}
	if err := b.profiles(w, node); err != nil {
		return err
	}
	if b.security.UserNamespace {
		w.yes("PrivateUsers")
	}
	if b.legacy {
		if len(b.capabilities) > 0 {
			w.set("CapabilityBoundingSet", strings.Join(b.capabilities, " "))
		}
		return nil
	}
	// Empty takes all of them away.
	w.set("CapabilityBoundingSet", strings.Join(b.capabilities, " "))
	if len(b.capabilities) > 0 && b.unprivilegedUser() {
		w.set("AmbientCapabilities", strings.Join(b.capabilities, " "))
	}
	w.yes("NoNewPrivileges")
	// Not strict: a manifest doesn't say where its services write.
	w.set("ProtectSystem", "full")
	w.yes("PrivateTmp", "LockPersonality", "RestrictSUIDSGID")
	w.set("SystemCallArchitectures", "native")
	b.withoutCapabilities(w)
	return nil
}

func (b sandbox) unprivilegedUser() bool { return b.user != "" && b.user != "root" }

func (b sandbox) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(b.capabilities, "CAP_"+n) })
}

// withoutCapabilities takes away ways to what a service lacks the capability for anyway. Not ProtectClock=, which would
// take all devices away as well.
func (b sandbox) withoutCapabilities(w *writer) {
	if !b.has("SYS_MODULE") {
		w.yes("ProtectKernelModules")
	}
	if !b.has("SYSLOG") {
		w.yes("ProtectKernelLogs")
	}
	if !b.has("SYS_NICE") {
		w.yes("RestrictRealtime")
	}
	if !b.has("SYS_ADMIN") {
		w.yes("ProtectHostname", "ProtectControlGroups")
		if !b.security.UserNamespace {
			w.yes("RestrictNamespaces")
		}
		if !b.has("NET_ADMIN", "SYS_RESOURCE") {
			w.yes("ProtectKernelTunables")
		}
		if !b.has("NET_ADMIN", "NET_RAW", "BPF") {
			w.set("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK")
		}
	}
}

// profiles writes what confines beyond systemd's own means. What this kernel lacks is refused: a service must not run with less
// than its manifest names.
func (b sandbox) profiles(w *writer, node Node) error {
	if p := b.security.AppArmorProfile; p != "" {
		switch {
		case !appArmorForm.MatchString(p):
			return refused("write the name of a profile that is loaded", "apparmor_profile %.80q is not the name of a profile", p)
		case !node.AppArmor:
			return refused("boot a kernel with AppArmor switched on, or remove apparmor_profile", "apparmor_profile %s: this kernel runs without AppArmor", p)
		}
		if node.Profiles != nil && !slices.Contains(node.Profiles, p) {
			return refused("load it with apparmor_parser and do this again, or restart the machine if a module brings it in /etc/apparmor.d", "apparmor_profile %s isn't loaded", p)
		}
		w.set("AppArmorProfile", p)
	}
	if p := b.security.SELinuxProfile; p != "" {
		switch {
		case !seLinuxForm.MatchString(p):
			return refused("write user:role:type, and a level if need be", "selinux_profile %.80q is not a security context", p)
		case !node.SELinux:
			return refused("boot a kernel with SELinux switched on, or remove selinux_profile", "selinux_profile %s: this kernel runs without SELinux", p)
		}
		w.set("SELinuxContext", p)
	}
	if b.legacy && b.security.SeccompProfile == "" {
		return nil
	}
	groups, err := systemCalls(b.security.SeccompProfile, b.capabilities)
	if err != nil {
		return err
	}
	for _, g := range groups {
		w.set("SystemCallFilter", g)
	}
	w.set("SystemCallErrorNumber", "EPERM")
	return nil
}
