package module

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/powernode/powernode-agent/internal/fault"
)

var (
	serviceForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	userForm    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	envForm     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,255}$`)
	portForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	hostForm    = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

func (p *parser) services(m *Manifest, n *yaml.Node, where string) {
	var nodes []*yaml.Node
	p.list(servicesMax, func(n *yaml.Node, where string) {
		s := p.service(n, where)
		if p.err == nil && slices.ContainsFunc(m.Services, func(o Service) bool { return o.Name == s.Name }) {
			p.fail(n, where, "give each service a name of its own", "the service name %q is used twice", s.Name)
		}
		m.Services, nodes = append(m.Services, s), append(nodes, n)
	})(n, where)
	if p.err != nil {
		return
	}
	if cycle := serviceCycle(m.Services); cycle != nil {
		p.fail(n, where, "remove one of these dependencies", "services wait for each other: %s", strings.Join(cycle, " -> "))
	}
	for i, s := range m.Services {
		for _, d := range s.Dependencies {
			if !slices.ContainsFunc(m.Services, func(o Service) bool { return o.Name == d.Service }) {
				p.fail(nodes[i], fmt.Sprintf("%s[%d].dependencies", where, i), "name a service of this manifest", "there is no service %q", d.Service)
			}
		}
	}
}

func (p *parser) service(n *yaml.Node, where string) Service {
	s := Service{RestartPolicy: RestartAlways}
	policy := string(s.RestartPolicy)
	p.object(n, where, map[string]field{
		"name":              p.line(&s.Name, lineMax, match(serviceForm, "use lower-case letters, digits and hyphens")),
		"start_command":     p.line(&s.StartCommand, lineMax),
		"stop_command":      p.line(&s.StopCommand, lineMax),
		"restart_policy":    p.line(&policy, lineMax, oneOf("never", "on-failure", "always")),
		"user":              p.line(&s.User, lineMax, match(userForm, "write a login name, such as www-data")),
		"working_directory": p.line(&s.WorkingDirectory, lineMax, checkDirectory),
		"capabilities":      p.lines(&s.Capabilities, listMax, checkCapability),
		"env": func(n *yaml.Node, where string) {
			s.Env = make(map[string]string)
			p.pairs(n, where, func(key, value *yaml.Node, where string) {
				if !envForm.MatchString(key.Value) {
					p.fail(key, where, "use letters, digits and _, no digit first", "not a name for an environment variable")
				}
				var v string
				p.line(&v, lineMax)(value, where)
				s.Env[key.Value] = v
			})
		},
		"exposed_ports": p.list(listMax, func(n *yaml.Node, where string) {
			port, number := Port{Protocol: "tcp"}, 0
			p.object(n, where, map[string]field{
				"port":     p.integer(&number, 1, 65535),
				"protocol": p.line(&port.Protocol, lineMax, oneOf("tcp", "udp", "sctp")),
				"name":     p.line(&port.Name, lineMax, match(portForm, "use letters, digits, dots, hyphens and underscores")),
			})
			if port.Port = uint16(number); number == 0 {
				p.fail(n, where, "add it", "port is missing")
			}
			s.ExposedPorts = append(s.ExposedPorts, port)
		}),
		"health": func(n *yaml.Node, where string) {
			s.Health = &Health{Method: "GET", IntervalSeconds: 30, TimeoutSeconds: 5, InitialDelaySeconds: 10}
			const day = 86400
			p.object(n, where, map[string]field{
				"endpoint":              p.line(&s.Health.Endpoint, lineMax),
				"method":                p.line(&s.Health.Method, lineMax, oneOf("GET", "POST", "PUT", "TCP", "EXEC")),
				"interval_seconds":      p.integer(&s.Health.IntervalSeconds, 1, day),
				"timeout_seconds":       p.integer(&s.Health.TimeoutSeconds, 1, day),
				"initial_delay_seconds": p.integer(&s.Health.InitialDelaySeconds, 0, day),
			})
		},
		"dependencies": p.list(listMax, func(n *yaml.Node, where string) {
			d := ServiceDependency{Kind: "requires_health"}
			p.object(n, where, map[string]field{
				"service": p.line(&d.Service, lineMax),
				"kind":    p.line(&d.Kind, lineMax, oneOf("requires_health", "start_before", "softdep")),
			})
			s.Dependencies = append(s.Dependencies, d)
		}),
		"metadata": func(n *yaml.Node, where string) {
			s.Metadata, _ = p.value(n, where).(map[string]any)
			if s.Metadata == nil {
				p.fail(n, where, "", "want a mapping of keys to values, got %s", kindOf(n))
			}
		},
	})
	s.RestartPolicy = RestartPolicy(policy)
	if s.Name == "" || strings.TrimSpace(s.StartCommand) == "" {
		p.fail(n, where, "add it", "name or start_command is missing")
	}
	return s
}

// serviceCycle returns the names along a cycle of dependencies, the first repeated at the end,
// or nil.
func serviceCycle(services []Service) []string {
	next := make(map[string][]ServiceDependency)
	for _, s := range services {
		next[s.Name] = s.Dependencies
	}
	done := make(map[string]bool)
	var trail []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if i := slices.Index(trail, name); i >= 0 {
			return append(slices.Clone(trail[i:]), name)
		}
		if done[name] {
			return nil
		}
		trail = append(trail, name)
		for _, d := range next[name] {
			if cycle := visit(d.Service); cycle != nil {
				return cycle
			}
		}
		trail = trail[:len(trail)-1]
		done[name] = true
		return nil
	}
	for _, s := range services {
		if cycle := visit(s.Name); cycle != nil {
			return cycle
		}
	}
	return nil
}

func (p *parser) security(s *Security, n *yaml.Node, where string) {
	profile := func(dst *string) field { return orNull(p.line(dst, lineMax)) }
	p.object(n, where, map[string]field{
		"capabilities":     p.lines(&s.Capabilities, listMax, checkCapability),
		"selinux_profile":  profile(&s.SELinuxProfile),
		"apparmor_profile": profile(&s.AppArmorProfile),
		"seccomp_profile":  profile(&s.SeccompProfile),
		"egress_allow": p.list(listMax, func(n *yaml.Node, where string) {
			var text string
			if p.line(&text, lineMax)(n, where); p.err != nil {
				return
			}
			e, err := parseEndpoint(text)
			if err != nil {
				p.reject(n, where, err)
			}
			s.EgressAllow = append(s.EgressAllow, e)
		}),
		"privileged":     p.boolean(&s.Privileged),
		"user_namespace": p.boolean(&s.UserNamespace),
	})
	if s.Privileged && (len(s.Capabilities) > 0 || s.SELinuxProfile+s.AppArmorProfile+s.SeccompProfile != "") {
		p.fail(n, where, "remove privileged, or the restrictions", "privileged: true lifts the capabilities and profiles that stand beside it")
	}
}

// parseEndpoint reads "host" or "host:port".
func parseEndpoint(s string) (Endpoint, error) {
	bad := func(why string) (Endpoint, error) {
		return Endpoint{}, fault.New(fault.Refuse, fault.Input, "write host or host:port, IPv6 as [2001:db8::1]:443", "%.100q: %s", s, why)
	}
	host, port, hasPort := s, "", false
	if rest, bracketed := strings.CutPrefix(s, "["); bracketed {
		var after string
		var closed bool
		if host, after, closed = strings.Cut(rest, "]"); !closed {
			return bad("the bracket is not closed")
		}
		if port, hasPort = strings.CutPrefix(after, ":"); after != "" && !hasPort {
			return bad("something follows the bracket")
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return bad("there is no IPv6 address in the brackets")
		}
	} else if strings.Count(s, ":") == 1 {
		host, port, hasPort = strings.Cut(s, ":")
	}
	e := Endpoint{Host: strings.ToLower(host)}
	if hasPort {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 || port[0] == '+' {
			return bad("the port is not a number from 1 to 65535")
		}
		e.Port = uint16(number)
	}
	if addr, err := netip.ParseAddr(e.Host); err == nil && addr.Zone() == "" {
		e.Host = addr.String()
	} else if len(e.Host) > 253 || !hostForm.MatchString(e.Host) {
		return bad("the host is neither a DNS name nor an IP address")
	}
	return e, nil
}

func oneOf(allowed ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(allowed, s) {
			return fault.New(fault.Refuse, fault.Input, "use one of "+strings.Join(allowed, ", "), "%.100q is not allowed here", s)
		}
		return nil
	}
}

func checkDirectory(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s {
		return fault.New(fault.Refuse, fault.Input, "write an absolute path without \".\", \"..\" or a slash at the end", "%.100q is not a directory's path", s)
	}
	return nil
}
