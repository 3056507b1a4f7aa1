package services

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/module"
)

// Action is what may be done with the services of a module.
type Action string

// The actions.
const (
	ActionStart   Action = "start"
	ActionStop    Action = "stop"
	ActionRestart Action = "restart"
	// ActionReload has services read their configuration again where their unit says how, and else restarts those that run.
	ActionReload Action = "reload"
	ActionStatus Action = "status"
)

// Actions are all of them.
func Actions() []Action {
	return []Action{ActionStart, ActionStop, ActionRestart, ActionReload, ActionStatus}
}

var verbs = map[Action]systemd.Verb{
	ActionStart: systemd.Start, ActionStop: systemd.Stop, ActionRestart: systemd.Restart, ActionReload: systemd.Reload,
}

// Report is what became of an action: the documented shape of `init --output json`.
type Report struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	Action  Action `json:"action"`
	// OK says that the action is done with every unit, or, of a status, that every service is as it should be.
	OK       bool            `json:"ok"`
	Services []ServiceReport `json:"services"`
	// Remarks are what a person should know of the way that the services run; of a status alone.
	Remarks []string `json:"remarks,omitempty"`
}

// ServiceReport is one service of a module after an action, in the order of dependencies.
type ServiceReport struct {
	Service string `json:"service,omitempty"`
	Unit    string `json:"unit"`
	// Result is "done", or why the action isn't: "failed", "dependency", "timeout", "canceled", "refused", "unfinished"; "" of a status.
	Result string `json:"result,omitempty"`
	// Error is what systemd said, and Log the unit's last lines, where something is wrong.
	Error string   `json:"error,omitempty"`
	Log   []string `json:"log,omitempty"`
	// Load, Active and Sub are systemd's words, as systemctl prints them; Why is its word for the end of a unit that failed.
	Load   string `json:"load"`
	Active string `json:"active"`
	Sub    string `json:"sub"`
	Why    string `json:"why,omitempty"`
	// Since is when it became active; MainPID and Restarts are those of a service.
	Since    time.Time     `json:"since,omitzero"`
	MainPID  uint32        `json:"main_pid,omitempty"`
	Restarts uint32        `json:"restarts"`
	Ports    []module.Port `json:"ports,omitempty"`
	// Health is what the health checks found; nothing where there is none, or wasn't yet.
	Health *Health `json:"health,omitempty"`
}

// wrong reports whether a person should look at the service.
func (s ServiceReport) wrong(a Action) bool {
	switch {
	case s.Result != "" && s.Result != systemd.JobDone, s.Load != "loaded", s.Active == "failed", s.Sub == "auto-restart":
		return true
	case a == ActionStop:
		return s.Active != "inactive"
	case a == ActionStatus:
		return s.Active != "active" || s.Health != nil && s.Health.State == HealthBad
	}
	return false
}

// Logs returns the last lines that a unit logged.
type Logs func(ctx context.Context, unit string) ([]string, error)

// Control has systemd act on the services of a module.
type Control struct {
	Systemd Manager
	// Run is the directory /run, where Place left which units there are.
	Run string
	// Only is the unit of the service that it is about; "" for all of a module.
	Only string
	// Logs may be nil.
	Logs Logs
	// Within bounds how long an action is waited for; 0 is three minutes.
	Within time.Duration
}

const defaultWithin = 3 * time.Minute

// Do does one action with all services of a module, each as far as it goes, and returns how they are then. The error is that the
// module has no services here, or that systemd can't be asked; what is wrong with a service is in the report.
func (c Control) Do(ctx context.Context, name string, action Action) (Report, error) {
	made, err := c.module(ctx, name)
	if err != nil {
		return Report{}, err
	}
	if made, err = c.only(made); err != nil {
		return Report{}, err
	}
	report := Report{Module: made.Module, Version: made.Version, Action: action, OK: true}
	if action == ActionStatus {
		report.Remarks = slices.Clone(made.Remarks)
	}
	units := make([]string, len(made.Services))
	for i, s := range made.Services {
		units[i] = s.Unit
		report.Services = append(report.Services, ServiceReport{Service: s.Name, Unit: s.Unit, Ports: s.Ports})
	}
	if action != ActionStatus {
		if err := c.act(ctx, action, made, &report); err != nil {
			return Report{}, cannotAsk(err)
		}
	}
	states, err := c.Systemd.Units(ctx, units)
	if err != nil {
		return Report{}, cannotAsk(err)
	}
	for i := range report.Services {
		s := &report.Services[i]
		s.see(states[i])
		if action == ActionStatus {
			report.Remarks = append(report.Remarks, made.Services[i].egressRemarks(c.Run)...)
		}
		if made.Services[i].Health {
			if h, err := ReadHealth(c.Run, s.Unit); err == nil {
				s.Health = &h
			}
		}
		if s.wrong(action) {
			report.OK = false
			c.explain(ctx, s)
		}
	}
	return report, nil
}

// module returns what was placed of a module.
func (c Control) module(ctx context.Context, name string) (Made, error) {
	if err := module.CheckName(name); err != nil {
		return Made{}, err
	}
	set, err := Placed(c.Run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Made{}, err
	}
	if i := slices.IndexFunc(set.Refused, func(r Refusal) bool { return r.Module == name }); i >= 0 {
		return Made{}, fault.New(fault.Refuse, fault.Service, set.Refused[i].Hint, "the services of module %s can't run: %s", name, set.Refused[i].Reason)
	}
	i := slices.IndexFunc(set.Modules, func(m Made) bool { return m.Module == name })
	if i < 0 {
		// Without systemd nothing is placed, whatever the manifest says.
		if _, err := c.Systemd.Units(ctx, nil); errors.Is(err, systemd.ErrNone) {
			return Made{}, cannotAsk(err)
		}
		return Made{}, fault.New(fault.Refuse, fault.Service, "see which modules there are with powernode-agent status", "module %s has no services on this node", name)
	}
	return set.Modules[i], nil
}

// only returns what was placed of a module without the services that it isn't about.
func (c Control) only(made Made) (Made, error) {
	if c.Only == "" {
		return made, nil
	}
	made.Services = slices.DeleteFunc(slices.Clone(made.Services), func(s Service) bool { return s.Unit != c.Only })
	if len(made.Services) == 0 {
		return made, fault.New(fault.Refuse, fault.Service, "see which there are with powernode-agent init "+made.Module+" status",
			"module %s has no service whose unit is %.80q", made.Module, c.Only)
	}
	return made, nil
}

// act queues the jobs in the order of dependencies, for a stop the other way round. systemd goes by its units' own order besides.
func (c Control) act(ctx context.Context, action Action, made Made, report *Report) error {
	verb, ok := verbs[action]
	if !ok {
		return fault.New(fault.Refuse, fault.Input, "use start, stop, restart, reload or status", "the action %.40q", action)
	}
	if action == ActionRestart && made.Services[0].Kind == KindInit {
		verb = systemd.ReloadOrRestart // an init says itself how it restarts
	}
	var units []string
	for _, s := range made.Services {
		units = append(units, s.Unit)
	}
	order := slices.Clone(units)
	if action == ActionStop {
		slices.Reverse(order)
	}
	within := c.Within
	if within == 0 {
		within = defaultWithin
	}
	outcomes, err := c.Systemd.Jobs(ctx, verb, order, within)
	if err != nil {
		return err
	}
	for _, o := range outcomes {
		s := &report.Services[slices.Index(units, o.Unit)]
		if s.Result = o.Result; o.Err != nil {
			s.Error = fault.OneLine(o.Err.Error())
		}
	}
	return nil
}

func (s *ServiceReport) see(state systemd.UnitState) {
	s.Load, s.Active, s.Sub = state.Load, state.Active, state.Sub
	if state.Result != "success" {
		s.Why = state.Result
	}
	if state.Active == "active" {
		s.Since = state.Since.UTC()
	}
	s.MainPID, s.Restarts = state.MainPID, state.Restarts
}

// explain adds what a person needs to see why.
func (c Control) explain(ctx context.Context, s *ServiceReport) {
	if s.Load != "loaded" && s.Error == "" {
		s.Error = "systemd has it as " + s.Load
	}
	if c.Logs == nil || s.Load == "not-found" {
		return
	}
	lines, err := c.Logs(ctx, s.Unit)
	if err != nil {
		lines = []string{"the log can't be read: " + err.Error()}
	}
	s.Log = lines
}

func cannotAsk(err error) error {
	if errors.Is(err, systemd.ErrNone) {
		return fault.New(fault.Refuse, fault.Service, "run it on a node whose first process is systemd", "drive services: %w", err)
	}
	if fault.AreaOf(err) != fault.General {
		return err
	}
	return fault.New(fault.Retry, fault.Service, "", "drive services: %w", err)
}
