package services

import (
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
)

// The kinds of a dependency.
const (
	requiresHealth = "requires_health"
	startBefore    = "start_before"
	softDependency = "softdep"
)

// inOrder returns the services so that each comes after those that it depends on, and else in the order of the manifest. Dependencies that go
// in a circle, or on what isn't there, are an error that names them.
func inOrder(list []module.Service) ([]module.Service, error) {
	byName := make(map[string]module.Service, len(list))
	for _, s := range list {
		if _, twice := byName[s.Name]; twice {
			return nil, refused("give each a name of its own", "two services are named %q", s.Name)
		}
		byName[s.Name] = s
	}
	out := make([]module.Service, 0, len(list))
	done := make(map[string]bool)
	var trail []string
	var visit func(name string) error
	visit = func(name string) error {
		if i := slices.Index(trail, name); i >= 0 {
			return refused("remove one of these dependencies", "services wait for each other: %s", strings.Join(append(slices.Clone(trail[i:]), name), " -> "))
		}
		if done[name] {
			return nil
		}
		s, ok := byName[name]
		if !ok {
			return refused("name a service of this manifest", "%s depends on %q, which isn't a service of the module", trail[len(trail)-1], name)
		}
		trail = append(trail, name)
		for _, d := range s.Dependencies {
			if err := visit(d.Service); err != nil {
				return err
			}
		}
		trail = trail[:len(trail)-1]
		done[name] = true
		out = append(out, s)
		return nil
	}
	for _, s := range list {
		if err := visit(s.Name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// relations are what systemd is told of a service's neighbours.
type relations struct{ requires, wants, after []string }

// relate says what [Unit] of the service says of others of its module.
//
//	requires_health  Requires= and After= of the other's ready unit, or of the other itself where it has no health check
//	start_before     Requires= and After=
//	softdep          Wants= and After=
//
// Requires= alone never starts a service again that failed only because what it needs failed: so the other unit wants
// this one in turn, and brings it along whenever it comes up.
func relate(name string, s module.Service, all []module.Service) (relations, error) {
	var r relations
	for _, d := range s.Dependencies {
		other := unitName(name, d.Service, KindService)
		r.after = append(r.after, other)
		switch d.Kind {
		case softDependency:
			r.wants = append(r.wants, other)
		case startBefore:
			r.requires = append(r.requires, other)
		case requiresHealth:
			r.requires = append(r.requires, other)
			if hasHealth(d.Service, all) {
				ready := unitName(name, d.Service, KindReady)
				r.requires, r.after = append(r.requires, ready), append(r.after, ready)
			}
		default:
			return r, refused("use requires_health, start_before or softdep", "dependency on %s: %.40q isn't a kind of dependency", d.Service, d.Kind)
		}
	}
	for _, o := range all {
		for _, d := range o.Dependencies {
			// What waits for health is brought along by the ready unit.
			if d.Service == s.Name && (d.Kind == startBefore || d.Kind == requiresHealth && s.Health == nil) {
				r.wants = append(r.wants, unitName(name, o.Name, KindService))
			}
		}
	}
	return r, nil
}

func hasHealth(name string, all []module.Service) bool {
	return slices.ContainsFunc(all, func(s module.Service) bool { return s.Name == name && s.Health != nil })
}

// awaits returns the units of the services that wait for the health of one.
func awaits(name, service string, all []module.Service) []string {
	var out []string
	for _, o := range all {
		if slices.ContainsFunc(o.Dependencies, func(d module.ServiceDependency) bool { return d.Service == service && d.Kind == requiresHealth }) {
			out = append(out, unitName(name, o.Name, KindService))
		}
	}
	return out
}
