package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
)

// egress writes which peers a unit may talk to. Without egress_allow it is all of them. Otherwise the machine itself
// (loopback, where its resolver and the module's other services are), the addresses that are listed, and those of the names, which
// Refresh finds. systemd filters by the peer's address in both directions, and knows no ports.
func (b sandbox) egress(w *writer, node Node) error {
	if len(b.security.EgressAllow) == 0 {
		return nil
	}
	if node.NoEgress != "" {
		return refused("boot a kernel with CONFIG_CGROUP_BPF, or remove egress_allow", "egress_allow: the kernel can't hold services to it: %s", node.NoEgress)
	}
	fixed, _, err := peers(b.security.EgressAllow)
	if err != nil {
		return err
	}
	w.set("IPAddressDeny", "any")
	w.set("IPAddressAllow", "localhost")
	for _, a := range fixed {
		w.set("IPAddressAllow", a.String())
	}
	return nil
}

// peers splits egress_allow into addresses and names, each sorted and there once.
func peers(allow []module.Endpoint) (fixed []netip.Addr, names []string, err error) {
	for _, e := range allow {
		if addr, err := netip.ParseAddr(e.Host); err == nil {
			if addr.Zone() != "" {
				return nil, nil, refused("leave the zone out", "egress_allow: %.80q has a zone", e.Host)
			}
			fixed = append(fixed, addr.Unmap())
			continue
		}
		if !hostName(e.Host) {
			return nil, nil, refused("write host or host:port", "egress_allow: %.80q is neither a DNS name nor an address", e.Host)
		}
		names = append(names, e.Host)
	}
	slices.SortFunc(fixed, netip.Addr.Compare)
	slices.Sort(names)
	return slices.Compact(fixed), slices.Compact(names), nil
}

// hostName reports whether s has only what a DNS name has. It can't be taken for an option.
func hostName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// egressRemarks are what a person should know of what was found when names were looked up for the service.
func (s Service) egressRemarks(run string) []string {
	var e Egress
	looksUp := slices.ContainsFunc(s.Helpers, func(name string) bool { return strings.HasSuffix(name, suffixes[KindEgress]) })
	if !looksUp || readRecord(run, egressDir, s.Unit, &e) != nil || e.Remark() == "" {
		return nil
	}
	return []string{e.Remark()}
}

// egressRemarks are what a person should know of the way that egress is limited.
func egressRemarks(name string, m *module.Manifest) []string {
	var out []string
	allow := m.Security.EgressAllow
	if len(allow) == 0 {
		return nil
	}
	for _, s := range m.Services {
		if len(s.ExposedPorts) > 0 {
			out = append(out, fmt.Sprintf("%s of module %s has exposed_ports and egress_allow: systemd filters by address in both directions, so only the peers of egress_allow and the machine itself reach it", s.Name, name))
		}
	}
	if i := slices.IndexFunc(allow, func(e module.Endpoint) bool { return e.Port != 0 }); i >= 0 {
		out = append(out, fmt.Sprintf("egress_allow of module %s opens every port of %s, not %d alone: systemd filters by address", name, allow[i].Host, allow[i].Port))
	}
	return out
}
