package services

import (
	"time"
)

// HealthState says how a service is by its checks.
type HealthState string

// The states.
const (
	// HealthStopped is a service that doesn't run.
	HealthStopped HealthState = "stopped"
	// HealthStarting is one that wasn't healthy yet, and needn't be.
	HealthStarting HealthState = "starting"
	HealthGood     HealthState = "healthy"
	// HealthFailing is one whose last checks weren't good, fewer than Threshold.
	HealthFailing HealthState = "failing"
	HealthBad     HealthState = "unhealthy"
)

// Threshold is how many checks in a row have to fail before a service counts as unhealthy.
const Threshold = 3

// detailMax bounds what a check says, in bytes.
const detailMax = 300

// Health is what the checks of a service found, as it lies in /run/powernode/health/UNIT.json.
type Health struct {
	Unit  string      `json:"unit"`
	State HealthState `json:"state"`
	// Since is when that state began, CheckedAt when the last check was.
	Since     time.Time `json:"since"`
	CheckedAt time.Time `json:"checked_at"`
	// Failures counts the checks in a row that weren't good, Restarts how often the service was restarted for it.
	Failures int `json:"failures"`
	Restarts int `json:"restarts"`
	// Detail is what the last check saw.
	Detail string `json:"detail,omitempty"`
	// Invocation is the run of the service that all this is of (systemd's InvocationID).
	Invocation string `json:"invocation,omitempty"`
}

// Observation is what one check saw.
type Observation struct {
	At time.Time
	// Running says that the service runs, Invocation which run it is and Since when that began.
	Running    bool
	Invocation string
	Since      time.Time
	// Good is the check's result, and Detail what it saw.
	Good   bool
	Detail string
}

// HealthPolicy is what follows from checks.
type HealthPolicy struct {
	// InitialDelay is how long a service that started may be without good health.
	InitialDelay time.Duration
	// Restart has a service restarted when it is found unhealthy: it is set unless restart_policy is never.
	Restart bool
}

// Next returns what is known of a service after one more check, and whether it is to be restarted now. A service that
// was restarted begins anew, so restarts are at least Threshold intervals apart.
func (p HealthPolicy) Next(before Health, seen Observation) (Health, bool) {
	now := before
	now.CheckedAt, now.Detail = seen.At, seen.Detail[:min(len(seen.Detail), detailMax)]
	if seen.Invocation != before.Invocation {
		now.Invocation, now.Failures = seen.Invocation, 0
		now.State = HealthStarting
	}
	restart := false
	switch {
	case !seen.Running:
		now.State, now.Failures = HealthStopped, 0
	case seen.Good:
		now.State, now.Failures = HealthGood, 0
	case seen.At.Sub(seen.Since) < p.InitialDelay && (now.State == HealthStarting || now.State == HealthStopped || now.State == ""):
		now.State = HealthStarting
	default:
		now.Failures++
		now.State = HealthFailing
		if now.Failures >= Threshold {
			now.State = HealthBad
			restart = p.Restart && now.Failures%Threshold == 0
		}
	}
	if restart {
		now.Restarts++
	}
	if now.State != before.State || now.Invocation != before.Invocation {
		now.Since = seen.At
	}
	return now, restart
}
