package services

import (
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
)

// HelperCommand is the agent's command that the helper units run, with HelperHealth, HelperRecord, HelperWait or HelperEgress
// as its first argument.
const (
	HelperCommand = "unit-helper"
	HelperHealth  = "health"
	HelperRecord  = "record"
	HelperWait    = "wait"
	HelperEgress  = "egress"
)

// helpersOf returns the units that a service has besides its own.
func helpersOf(m Module, s module.Service, box sandbox, node Node) ([]Unit, error) {
	var units []Unit
	if s.Health != nil {
		made, err := healthUnits(m, s, box, node)
		if err != nil {
			return nil, fmt.Errorf("health: %w", err)
		}
		units = made
	}
	_, names, err := peers(m.Manifest.Security.EgressAllow)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		made, err := egressUnits(m, s, names, node)
		if err != nil {
			return nil, err
		}
		units = append(units, made...)
	}
	return units, nil
}

// helper begins a unit that helps a service.
type helper struct {
	*writer
	unit Unit
}

func newHelper(m Module, s module.Service, kind Kind, description string) helper {
	h := helper{newWriter(m.Name), Unit{Name: unitName(m.Name, s.Name, kind), Module: m.Name, Service: s.Name, Kind: kind}}
	h.writer.unit(description + " of " + s.Name + " of module " + m.Name)
	return h
}

func (h helper) done(units *[]Unit) error {
	text, err := h.text()
	h.unit.Text = text
	*units = append(*units, h.unit)
	return err
}

// agentCommand is a call of the agent in a unit.
func agentCommand(node Node, prefix, what string, flags ...string) (string, error) {
	if !pathForm.MatchString(node.Agent) {
		return "", refused("", "the agent's path %.80q", node.Agent)
	}
	for _, f := range flags {
		if err := checkText(f); err != nil {
			return "", err
		}
	}
	return prefix + arguments(append([]string{node.Agent, HelperCommand, what}, flags...)), nil
}

// agentSandbox is for the agent where it helps a unit: it speaks with systemd and, on the network, with whom the unit says. It
// needs no /tmp of its own, which systemd would make and remove for each check: it can write to none.
func agentSandbox(w *writer, directory string) {
	w.set("RuntimeDirectory", directory)
	w.set("RuntimeDirectoryPreserve", "yes")
	w.set("CapabilityBoundingSet", "")
	w.yes("NoNewPrivileges", "PrivateDevices", "ProtectHome", "ProtectHostname", "ProtectControlGroups", "ProtectKernelTunables",
		"ProtectKernelModules", "ProtectKernelLogs", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute")
	w.set("ProtectSystem", "strict")
	w.set("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK")
	w.set("SystemCallArchitectures", "native")
	w.set("SystemCallFilter", "@system-service")
	w.set("SystemCallErrorNumber", "EPERM")
}

// timer writes a timer of a service: first so many seconds after it was started, and then after each end of what it starts.
func timer(m Module, s module.Service, kind Kind, description string, first, then int, units *[]Unit) error {
	service := unitName(m.Name, s.Name, KindService)
	h := newHelper(m, s, kind, description)
	if kind == KindHealthTimer {
		h.set("BindsTo", service)
		h.set("After", service)
	} else {
		// A timer goes before what it starts, and that goes before the service: it can't come after it.
		h.set("PartOf", service)
	}
	h.in("Timer")
	h.set("OnActiveSec", seconds(first))
	h.set("OnUnitInactiveSec", seconds(then))
	// systemd's own minute would be longer than most intervals.
	h.set("AccuracySec", "100ms")
	return h.done(units)
}

// egressInterval is how often names are resolved again, in seconds.
const egressInterval = 300

// egressUnits resolve the names that a service may connect to, before it starts and while it runs. One that can't be resolved
// stays closed, and keeps the service from nothing else.
func egressUnits(m Module, s module.Service, names []string, node Node) ([]Unit, error) {
	fixed, _, err := peers(m.Manifest.Security.EgressAllow)
	if err != nil {
		return nil, err
	}
	service := unitName(m.Name, s.Name, KindService)
	flags := []string{"--unit", service}
	for _, a := range fixed {
		flags = append(flags, "--address", a.String())
	}
	for _, n := range names {
		flags = append(flags, "--name", n)
	}
	run, err := agentCommand(node, "", HelperEgress, flags...)
	if err != nil {
		return nil, err
	}
	var units []Unit
	h := newHelper(m, s, KindEgress, "Addresses for the egress")
	h.set("Before", service)
	h.set("After", "network.target nss-lookup.target")
	h.in("Service")
	h.set("Type", "oneshot")
	h.set("ExecStart", run)
	h.set("TimeoutStartSec", "1min")
	agentSandbox(h.writer, "powernode/egress")
	if err := h.done(&units); err != nil {
		return nil, err
	}
	return units, timer(m, s, KindEgressTimer, "Looking up anew the addresses for the egress", egressInterval, egressInterval, &units)
}

// makeInit makes the unit of the older form of a service: lines of a shell, which begin something and end it.
func makeInit(made *Made, m Module, node Node) error {
	box, err := newSandbox(m.Manifest.Security, module.Service{}, node.consents(m.Name))
	if err != nil {
		return err
	}
	if box.free = box.consent; !box.free {
		made.Remarks = append(made.Remarks, "init of module "+m.Name+" may do what a service may, and no more: the trust policy doesn't have it in allow_privileged_services")
	}
	switch _, names, err := peers(m.Manifest.Security.EgressAllow); {
	case err != nil:
		return err
	case len(names) > 0:
		return refused("list addresses, or write services in place of init", "egress_allow names %s, and names are looked up for services only", names[0])
	}
	w := newWriter(m.Name)
	w.unit("init of module " + m.Name)
	w.set("After", "network.target")
	w.in("Service")
	w.set("Type", "oneshot")
	w.yes("RemainAfterExit")
	init := m.Manifest.Init
	for _, line := range []struct{ key, text string }{{"ExecStart", init.Start}, {"ExecStop", init.Stop}, {"ExecReload", init.Restart}} {
		if strings.TrimSpace(line.text) == "" {
			continue
		}
		if err := checkText(line.text); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		w.set(line.key, arguments([]string{"/bin/sh", "-c", line.text}))
	}
	if strings.TrimSpace(init.Start) == "" {
		w.set("ExecStart", "/bin/true")
	}
	if err := box.write(w, node); err != nil {
		return err
	}
	text, err := w.text()
	if err != nil {
		return err
	}
	unit := unitName(m.Name, "", KindInit)
	made.Units = append(made.Units, Unit{Name: unit, Module: m.Name, Kind: KindInit, Text: text, WantedBy: multiUser})
	made.Services = append(made.Services, Service{Unit: unit, Kind: KindInit})
	return nil
}
