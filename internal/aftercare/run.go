package aftercare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// Systemd is what carries out the units' part of a plan. A systemd.Manager is one.
type Systemd interface {
	Jobs(ctx context.Context, verb systemd.Verb, units []string, within time.Duration) ([]systemd.Outcome, error)
	Reload(ctx context.Context) error
	Units(ctx context.Context, names []string) ([]systemd.UnitState, error)
}

// The times that are given by default.
const (
	ProgramTime = time.Minute
	// UnitTime is more than systemd's own for one that starts (DefaultTimeoutStartSec=).
	UnitTime = 2 * time.Minute
	// SettleTime is how long after its start a unit is looked at again.
	SettleTime = 500 * time.Millisecond
)

// Runner carries out plans.
type Runner struct {
	// Root is the directory that programs run in as their root; "" is "/".
	Root string
	// Systemd is the service manager; nil is the machine's.
	Systemd Systemd
	// ProgramTime bounds each program, UnitTime each kind of jobs; SettleTime is how long after a start it is checked that the
	// unit still runs. 0 is the default.
	ProgramTime, UnitTime, SettleTime time.Duration
	// Note gets each step when it is done; nil drops it.
	Note func(Step)
}

// Action is what a step does.
type Action string

// The actions, in their order.
const (
	StopUnits    Action = "stop"
	RunProgram   Action = "run"
	DaemonReload Action = "daemon-reload"
	ReloadUnit   Action = "reload"
	RestartUnit  Action = "restart"
	StartUnit    Action = "start"
)

// Step is what became of one step.
type Step struct {
	Action Action `json:"action"`
	// What is the unit or the program's name.
	What string `json:"what,omitempty"`
	// File is that of the unit, as UnitStep.File.
	File string `json:"-"`
	// Error is why it isn't done; Output the end of what the program said then.
	Error  string `json:"error,omitempty"`
	Output string `json:"output,omitempty"`
	Millis int64  `json:"duration_ms"`
}

// String returns the step in words.
func (s Step) String() string {
	text := strings.TrimSpace(string(s.Action) + " " + s.What)
	if s.Error != "" {
		text += ": " + s.Error
	}
	return text
}

// Report is what was done of a plan.
type Report struct {
	Steps []Step `json:"steps"`
}

// Failed returns the steps that failed.
func (r Report) Failed() []Step {
	var failed []Step
	for _, s := range r.Steps {
		if s.Error != "" {
			failed = append(failed, s)
		}
	}
	return failed
}

// Before carries out what comes before the swap.
func (r *Runner) Before(ctx context.Context, p *Plan) Report {
	var report Report
	r.jobs(ctx, &report, StopUnits, systemd.Stop, p.Stop)
	return report
}

// After carries out what comes after the swap. It goes on after a step that fails, until ctx ends.
func (r *Runner) After(ctx context.Context, p *Plan) Report {
	report := r.Programs(ctx, p.Run)
	if len(p.DaemonReload) > 0 {
		begun := time.Now()
		r.note(&report, Step{Action: DaemonReload}, begun, r.systemd().Reload(ctx))
	}
	r.jobs(ctx, &report, ReloadUnit, systemd.Reload, p.Reload)
	from := len(report.Steps)
	// What somebody stopped since the plan was made stays so.
	r.jobs(ctx, &report, RestartUnit, systemd.TryRestart, p.Restart)
	r.jobs(ctx, &report, StartUnit, systemd.Start, p.Start)
	r.settle(ctx, report.Steps[from:])
	return report
}

// Programs runs programs of the root, one after the other, and goes on after one that fails.
func (r *Runner) Programs(ctx context.Context, programs []Program) Report {
	var report Report
	for _, program := range programs {
		begun := time.Now()
		output, err := r.program(ctx, program)
		step := Step{Action: RunProgram, What: program.Name}
		if err != nil {
			step.Output = output
		}
		r.note(&report, step, begun, err)
	}
	return report
}

func (r *Runner) systemd() Systemd {
	if r.Systemd == nil {
		return systemd.Manager{}
	}
	return r.Systemd
}

func (r *Runner) note(report *Report, s Step, begun time.Time, err error) {
	s.Millis = time.Since(begun).Milliseconds()
	if err != nil {
		s.Error = err.Error()
	}
	report.Steps = append(report.Steps, s)
	if r.Note != nil {
		r.Note(s)
	}
}

// jobs does the same with several units, all at once: systemd keeps their order.
func (r *Runner) jobs(ctx context.Context, report *Report, action Action, verb systemd.Verb, units []UnitStep) {
	if len(units) == 0 {
		return
	}
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.Unit
	}
	begun := time.Now()
	outcomes, err := r.systemd().Jobs(ctx, verb, names, orDefault(r.UnitTime, UnitTime))
	for i, name := range names {
		failed := err
		if i < len(outcomes) && outcomes[i].Unit == name {
			failed = failure(outcomes[i])
		}
		r.note(report, Step{Action: action, What: name, File: units[i].File}, begun, failed)
	}
}

// failure returns why a job isn't done; nil where it is.
func failure(o systemd.Outcome) error {
	switch {
	case o.Done():
		return nil
	case o.Err != nil:
		return o.Err
	case o.Result == "dependency":
		return errors.New("a unit that it needs failed")
	case o.Result == systemd.JobUnfinished:
		return errors.New("it isn't done yet")
	}
	return fmt.Errorf("the job ended as %q", o.Result)
}

// settle looks once more at units that were started: a service of the simple kind counts as started before it has run
// its program.
func (r *Runner) settle(ctx context.Context, started []Step) {
	var names []string
	for _, s := range started {
		if s.Error == "" {
			names = append(names, s.What)
		}
	}
	if len(names) == 0 {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(orDefault(r.SettleTime, SettleTime)):
	}
	states, err := r.systemd().Units(ctx, names)
	if err != nil {
		return // nobody knows better; the health of the units is watched elsewhere
	}
	for _, state := range states {
		if state.Active != "failed" && state.Sub != "auto-restart" {
			continue
		}
		for i := range started {
			if started[i].What == state.Name {
				started[i].Error = fmt.Sprintf("it ended right after its start (%s)", state.Result)
			}
		}
	}
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
