package services

import (
	"fmt"
	"strconv"

	"github.com/powernode/powernode-agent/internal/module"
)

// MethodExec is the health method that runs a command: the endpoint is its line, and its exit code 0 is good.
const MethodExec = "EXEC"

// readySlack is how long a service may take to become healthy beyond its own timings, in seconds, before what waits for it is told that it
// didn't. It goes on being checked, and brings along what waits once it is healthy.
const readySlack = 60

// healthUnits make the health check of a service, its timer, and, where others wait for it, the unit that they wait for.
//
// A check over the network is the agent's own, and reaches the machine alone. A command is the module's: it runs as the service
// does, with the service's rights and no more, and the agent writes down afterwards how it ended.
func healthUnits(m Module, s module.Service, box sandbox, node Node) ([]Unit, error) {
	target, err := ParseTarget(s.Health.Method, s.Health.Endpoint, s.ExposedPorts)
	if err != nil {
		return nil, err
	}
	if s.Health.IntervalSeconds < 1 || s.Health.TimeoutSeconds < 1 || s.Health.InitialDelaySeconds < 0 {
		return nil, refused("use whole seconds, 1 or more", "interval_seconds, timeout_seconds or initial_delay_seconds is too small")
	}
	service := unitName(m.Name, s.Name, KindService)
	flags := []string{"--unit", service, "--initial-delay", seconds(s.Health.InitialDelaySeconds)}
	if s.RestartPolicy != module.RestartNever {
		flags = append(flags, "--restart")
	}
	var units []Unit
	h := newHelper(m, s, KindHealth, "Health")
	h.in("Service")
	h.set("Type", "oneshot")
	if target.Method == MethodExec {
		if err := execCheck(h.writer, s, box, node, flags); err != nil {
			return nil, err
		}
	} else {
		flags = append(flags, "--method", target.Method, "--endpoint", target.Endpoint, "--timeout", seconds(s.Health.TimeoutSeconds))
		run, err := agentCommand(node, "", HelperHealth, flags...)
		if err != nil {
			return nil, err
		}
		h.set("ExecStart", run)
		h.set("TimeoutStartSec", seconds(s.Health.TimeoutSeconds+20))
		agentSandbox(h.writer, "powernode/health")
		h.set("IPAddressDeny", "any")
		h.set("IPAddressAllow", "localhost")
	}
	if err := h.done(&units); err != nil {
		return nil, err
	}
	if err := timer(m, s, KindHealthTimer, "When to check the health", s.Health.InitialDelaySeconds, s.Health.IntervalSeconds, &units); err != nil {
		return nil, err
	}
	if waiting := awaits(m.Name, s.Name, m.Manifest.Services); len(waiting) > 0 {
		return units, readyUnit(m, s, waiting, node, &units)
	}
	return units, nil
}

// execCheck writes a health check by a command. Whether its end is good is for the agent to say: the "-" keeps systemd
// from calling the unit failed for the first one that isn't.
func execCheck(w *writer, s module.Service, box sandbox, node Node, flags []string) error {
	if err := runAs(w, s, "-", s.Health.Endpoint); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	record, err := agentCommand(node, "+", HelperRecord, flags...)
	if err != nil {
		return err
	}
	w.set("ExecStopPost", record)
	w.set("TimeoutStartSec", seconds(s.Health.TimeoutSeconds))
	w.set("TimeoutStopSec", "20s")
	return box.write(w, node)
}

// readyUnit is active once the service was found healthy for the first time since it started. What waits for it is brought along
// when that takes longer than they were told to wait.
func readyUnit(m Module, s module.Service, waiting []string, node Node, units *[]Unit) error {
	service := unitName(m.Name, s.Name, KindService)
	within := s.Health.InitialDelaySeconds + 3*(s.Health.IntervalSeconds+s.Health.TimeoutSeconds) + readySlack
	run, err := agentCommand(node, "", HelperWait, "--unit", service)
	if err != nil {
		return err
	}
	h := newHelper(m, s, KindReady, "First good health")
	h.set("Requires", service)
	h.set("After", service)
	h.list("Wants", waiting)
	h.in("Service")
	h.set("Type", "oneshot")
	h.yes("RemainAfterExit")
	h.set("ExecStart", run)
	h.set("TimeoutStartSec", strconv.Itoa(within)+"s")
	h.set("Restart", "on-failure")
	h.set("RestartSec", "5s")
	agentSandbox(h.writer, "powernode/health")
	return h.done(units)
}
