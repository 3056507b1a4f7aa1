package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

// serviceDoc is a service of a module; `init MODULE status` says more of it.
type serviceDoc struct {
	Module string `json:"module"`
	// Service is "" for a module's init.
	Service string `json:"service,omitempty"`
	Unit    string `json:"unit"`
	// Active and Sub are systemd's words; missing where it doesn't run.
	Active string `json:"active,omitempty"`
	Sub    string `json:"sub,omitempty"`
	// Health is what its health checks found; missing where there is none, or wasn't yet.
	Health services.HealthState `json:"health,omitempty"`
	Ports  []module.Port        `json:"ports,omitempty"`
}

// wrong says what is wrong with a service; "" where nothing is. One that somebody stopped isn't.
func (s serviceDoc) wrong() string {
	switch {
	case s.Active == "failed":
		return "failed"
	case s.Sub == "auto-restart":
		return "ends again and again"
	case s.Active == "active" && s.Health == services.HealthBad:
		return "is unhealthy"
	}
	return ""
}

func (s serviceDoc) name() string {
	if s.Service == "" {
		return "init"
	}
	return s.Service
}

// services adds those of the modules that run, by what was placed in the directory run.
func (d *statusDoc) services(ctx context.Context, run string) {
	set, err := services.Placed(run)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		d.Remarks = append(d.Remarks, err.Error())
		return
	}
	var units []string
	for _, m := range set.Modules {
		for _, s := range m.Services {
			doc := serviceDoc{Module: m.Module, Service: s.Name, Unit: s.Unit, Ports: s.Ports}
			if s.Health {
				if h, err := services.ReadHealth(run, s.Unit); err == nil {
					doc.Health = h.State
				}
			}
			d.Services = append(d.Services, doc)
			units = append(units, s.Unit)
		}
	}
	states, err := systemd.Manager{Run: run}.Units(ctx, units)
	switch {
	case err == nil:
		for i, state := range states {
			d.Services[i].Active, d.Services[i].Sub = state.Active, state.Sub
		}
	case !errors.Is(err, systemd.ErrNone):
		d.unknown("how the services of modules are", err)
	}
	for _, r := range set.Refused {
		d.Reasons = append(d.Reasons, fmt.Sprintf("the services of module %s aren't there: %s", r.Module, r.Reason))
	}
	for _, s := range d.Services {
		if wrong := s.wrong(); wrong != "" {
			d.Reasons = append(d.Reasons, fmt.Sprintf("service %s of module %s %s; powernode-agent init %s status says more", s.name(), s.Module, wrong, s.Module))
		}
	}
}
