package services

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// Where below /run the helpers keep what they know, which ends with the machine's run.
const (
	healthDir = "powernode/health"
	egressDir = "powernode/egress"

	recordMax = 64 << 10
)

// Manager is the service manager, as *systemd.Manager is one.
type Manager interface {
	Jobs(ctx context.Context, verb systemd.Verb, units []string, within time.Duration) ([]systemd.Outcome, error)
	Units(ctx context.Context, names []string) ([]systemd.UnitState, error)
}

// Checker carries out one health check of a service and writes down what it found.
type Checker struct {
	Systemd Manager
	// Run is the directory /run.
	Run string
	// Unit is the service.
	Unit   string
	Policy HealthPolicy
	Now    func() time.Time
}

// queueTimeout is how long a check waits for systemd to take a restart. It doesn't wait for the restart.
const queueTimeout = 3 * time.Second

// Check asks the target, and settles what it saw.
func (c Checker) Check(ctx context.Context, t Target, timeout time.Duration) (Health, error) {
	return c.settle(ctx, func() (string, error) { return t.Probe(ctx, timeout) })
}

// Record settles the end of a check that systemd carried out: result, code and status are SERVICE_RESULT, EXIT_CODE and EXIT_STATUS of
// systemd.exec(5).
func (c Checker) Record(ctx context.Context, result, code, status string) (Health, error) {
	return c.settle(ctx, func() (string, error) {
		switch {
		case result == "timeout":
			return "", errors.New("it took too long")
		case code == "exited" && status == "0":
			return "exit code 0", nil
		case code == "exited":
			return "", fmt.Errorf("exit code %s", status)
		case code != "":
			return "", fmt.Errorf("%s by %s", code, status)
		}
		return "", fmt.Errorf("it didn't run: %s", result)
	})
}

// settle returns what is known after one more check. Of a service that is unhealthy the error says so, so that the check's own
// unit fails and is seen where failed units are.
func (c Checker) settle(ctx context.Context, probe func() (string, error)) (Health, error) {
	unit, err := one(ctx, c.Systemd, c.Unit)
	if err != nil {
		return Health{}, err
	}
	before, err := ReadHealth(c.Run, c.Unit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		before = Health{} // a record that can't be read says nothing
	}
	seen := Observation{Running: unit.Active == "active", Invocation: unit.Invocation, Since: unit.Since}
	if seen.Running {
		detail, err := probe()
		seen.Good, seen.Detail = err == nil, detail
		if err != nil {
			seen.Detail = fault.OneLine(err.Error())
		}
	}
	seen.At = c.Now()
	before.Unit = c.Unit
	now, restart := c.Policy.Next(before, seen)
	if err := writeRecord(c.Run, healthDir, c.Unit, now); err != nil {
		return now, err
	}
	if restart {
		if _, err := c.Systemd.Jobs(ctx, systemd.TryRestart, []string{c.Unit}, queueTimeout); err != nil {
			return now, err
		}
	}
	if now.State == HealthBad {
		return now, fault.New(fault.Retry, fault.Service, "see journalctl -u "+c.Unit, "%s is unhealthy: %s", c.Unit, now.Detail)
	}
	return now, nil
}

func one(ctx context.Context, m Manager, name string) (systemd.UnitState, error) {
	states, err := m.Units(ctx, []string{name})
	if err != nil {
		return systemd.UnitState{}, err
	}
	return states[0], nil
}

// Wait returns once the service was found healthy since it last started, or when ctx ends. It looks at what the checks wrote down,
// as often as every is.
func (c Checker) Wait(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		h, err := ReadHealth(c.Run, c.Unit)
		if err == nil && h.State == HealthGood {
			unit, err := one(ctx, c.Systemd, c.Unit)
			if err != nil {
				return err
			}
			if unit.Invocation == h.Invocation {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be healthy: %w", c.Unit, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// ReadHealth returns what the checks of a service found, from below run. The error wraps fs.ErrNotExist where there was none yet.
func ReadHealth(run, unit string) (Health, error) {
	var h Health
	err := readRecord(run, healthDir, unit, &h)
	return h, err
}
