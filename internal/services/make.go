package services

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// Module is a module whose services are to run.
type Module struct {
	Name, Version string
	Manifest      *module.Manifest
}

// Node is what units depend on besides the manifest.
type Node struct {
	// Agent is the absolute path of the agent's program in the running system.
	Agent string
	// AppArmor and SELinux say that the kernel runs with them.
	AppArmor, SELinux bool
	// NoEgress is why the kernel can't hold a unit to the peers that it may talk to; "" where it can.
	NoEgress string
	// Profiles are the profiles of AppArmor that are loaded; nil where nobody knows, as before the system has started.
	Profiles []string
	// Privileged are the modules that the trust policy lets have services and an init that aren't held to anything.
	Privileged []string
}

// Made is what one module's manifest makes.
type Made struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	// Services are in the order of their dependencies, each after those that it needs.
	Services []Service `json:"services"`
	// Remarks are what a person should know although everything was made.
	Remarks []string `json:"remarks,omitempty"`
	Units   []Unit   `json:"-"`
}

// Service is a service of a module, or its init, as it runs.
type Service struct {
	// Name is "" for an init.
	Name string `json:"name,omitempty"`
	Unit string `json:"unit"`
	Kind Kind   `json:"kind"`
	// Health says that it has a health check, and Ports where it listens by its manifest.
	Health bool          `json:"health"`
	Ports  []module.Port `json:"ports,omitempty"`
	// Helpers are the other units that it has.
	Helpers []string `json:"helpers,omitempty"`
}

// Refusal is a module whose services can't be made.
type Refusal struct {
	Module string `json:"module"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
	Err    error  `json:"-"`
}

// Set is what all modules of a node make.
type Set struct {
	Modules []Made    `json:"modules"`
	Refused []Refusal `json:"refused,omitempty"`
}

// Units returns the units of all modules.
func (s Set) Units() []Unit {
	var out []Unit
	for _, m := range s.Modules {
		out = append(out, m.Units...)
	}
	return out
}

// MakeAll makes the units of several modules. One that can't be made keeps no other back. Modules without services are left out.
func MakeAll(modules []Module, node Node) Set {
	var set Set
	for _, m := range modules {
		made, err := Make(m, node)
		switch {
		case err != nil:
			set.Refused = append(set.Refused, Refusal{Module: m.Name, Reason: err.Error(), Hint: fault.HintOf(err), Err: err})
		case len(made.Services) > 0:
			set.Modules = append(set.Modules, made)
		}
	}
	return set
}

// Make makes the units of a module, all of them or none. A module with services has no use for the older init, which
// would start the same again. The error is a fault.Refuse, in area Policy where the trust policy's consent is missing.
func Make(m Module, node Node) (Made, error) {
	made := Made{Module: m.Name, Version: m.Version}
	err := fill(&made, m, node)
	if err != nil {
		return Made{}, fault.New(fault.Refuse, fault.AreaOf(err), fault.HintOf(err), "make the services of module %s: %w", m.Name, err)
	}
	return made, nil
}

func fill(made *Made, m Module, node Node) error {
	if err := module.CheckName(m.Name); err != nil {
		return err
	}
	legacy := m.Manifest.Init != (module.Init{})
	if len(m.Manifest.Services) == 0 && !legacy {
		return nil
	}
	if err := consent(m, node); err != nil {
		return err
	}
	made.Remarks = egressRemarks(m.Name, m.Manifest)
	if len(m.Manifest.Services) == 0 {
		return makeInit(made, m, node)
	}
	if legacy {
		made.Remarks = append(made.Remarks, "init of module "+m.Name+" isn't run: its services take its place")
	}
	list, err := inOrder(m.Manifest.Services)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := makeService(made, m, s, node); err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	return nil
}

// consent reports whether the trust policy allows what isn't held to anything: privileged services, and the older init, a root's shell,
// where security doesn't name what that is held to.
func consent(m Module, node Node) error {
	security := m.Manifest.Security
	switch {
	case slices.Contains(node.Privileged, m.Name):
	case security.Privileged:
		return fault.New(fault.Refuse, fault.Policy, "add the module to allow_privileged_services in the trust policy, or remove privileged",
			"it asks for privileged services, and the trust policy doesn't allow that")
	case len(m.Manifest.Services) == 0 && !confined(security):
		return fault.New(fault.Refuse, fault.Policy, "add the module to allow_privileged_services in the trust policy, name capabilities or a profile in security, or write services in place of init",
			"its init runs as root with all rights, and the trust policy doesn't allow that")
	}
	return nil
}

// confined reports whether a module's security takes anything from the lines of an init.
func confined(s module.Security) bool {
	return len(s.Capabilities) > 0 || s.UserNamespace || s.SeccompProfile != "" || s.AppArmorProfile != "" || s.SELinuxProfile != ""
}

// multiUser starts what a node is there for.
const multiUser = "multi-user.target"

func makeService(made *Made, m Module, s module.Service, node Node) error {
	if !serviceName(s.Name) {
		return refused("use lower-case letters, digits and hyphens", "the service name %.80q", s.Name)
	}
	box, err := newSandbox(m.Manifest.Security, s)
	if err != nil {
		return err
	}
	unit := unitName(m.Name, s.Name, KindService)
	relations, err := relate(m.Name, s, m.Manifest.Services)
	if err != nil {
		return err
	}
	helpers, err := helpersOf(m, s, box, node)
	if err != nil {
		return err
	}
	for _, h := range helpers {
		switch h.Kind {
		case KindHealthTimer, KindReady, KindEgress, KindEgressTimer:
			relations.wants = append(relations.wants, h.Name)
		case KindService, KindInit, KindHealth:
		}
	}
	w := newWriter(m.Name)
	w.unit(s.Name + " of module " + m.Name)
	w.list("Requires", relations.requires)
	w.list("Wants", relations.wants)
	w.list("After", append(relations.after, "network.target"))
	w.in("Service")
	// The start is done once the program runs, and fails where it can't be run.
	w.set("Type", "exec")
	if err := runAs(w, s, "", s.StartCommand); err != nil {
		return fmt.Errorf("start_command: %w", err)
	}
	if s.StopCommand != "" {
		stop, err := command(s.StopCommand, withMainPID(s.Env))
		if err != nil {
			return fmt.Errorf("stop_command: %w", err)
		}
		w.set("ExecStop", stop)
	}
	restart, err := restartOf(s.RestartPolicy)
	if err != nil {
		return err
	}
	w.set("Restart", restart)
	w.set("RestartSec", "5s")
	if err := box.write(w, node); err != nil {
		return err
	}
	text, err := w.text()
	if err != nil {
		return err
	}
	made.Units = append(made.Units, Unit{Name: unit, Module: m.Name, Service: s.Name, Kind: KindService, Text: text, WantedBy: multiUser})
	made.Units = append(made.Units, helpers...)
	made.Services = append(made.Services, Service{
		Name: s.Name, Unit: unit, Kind: KindService, Health: s.Health != nil, Ports: s.ExposedPorts, Helpers: namesOf(helpers),
	})
	return nil
}

// runAs writes what a program is run as, and the program, with a prefix of systemd's.
func runAs(w *writer, s module.Service, prefix, line string) error {
	if s.User != "" {
		if !userName(s.User) {
			return refused("write a login name, such as www-data", "the user %.80q", s.User)
		}
		w.set("User", s.User)
	}
	if s.WorkingDirectory != "" {
		w.path("WorkingDirectory", s.WorkingDirectory)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		if !variableName(name) {
			return refused("use letters, digits and _, no digit first", "env: the name %.80q", name)
		}
		if err := checkText(s.Env[name]); err != nil {
			return fmt.Errorf("env: %s: %w", name, err)
		}
		w.set("Environment", assignment(name, s.Env[name]))
	}
	start, err := command(line, s.Env)
	w.set("ExecStart", prefix+start)
	return err
}

func restartOf(p module.RestartPolicy) (string, error) {
	switch p {
	case module.RestartAlways, "":
		return "always", nil
	case module.RestartOnFailure:
		return "on-failure", nil
	case module.RestartNever:
		return "no", nil
	}
	return "", refused("use never, on-failure or always", "the restart_policy %.40q", p)
}

func withMainPID(env map[string]string) map[string]string {
	out := maps.Clone(env)
	if out == nil {
		out = make(map[string]string)
	}
	out[mainPID] = mainPIDMark
	return out
}

func namesOf(units []Unit) []string {
	var out []string
	for _, u := range units {
		out = append(out, u.Name)
	}
	return out
}

func seconds(n int) string { return strconv.Itoa(n) + "s" }
