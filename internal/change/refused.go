package change

import (
	"slices"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

// servant is a System that says of which modules it can't make the services. running is false where they are for a boot.
type servant interface {
	RefusedServices(modules []*assemble.Proven, running bool) []services.Refusal
}

// RefusedServices returns those of the modules whose services can't be made here: what would be refused once they are there. running says that they
// are for the running system, and not for one that a boot starts.
func (m *Machine) RefusedServices(modules []*assemble.Proven, running bool) []services.Refusal {
	if m.Care == nil || !m.Care.hasSystemd() {
		return nil
	}
	list := make([]services.Module, len(modules))
	for i, p := range modules {
		list[i] = services.Module{Name: p.Wanted.Name, Version: p.Wanted.Version, Manifest: p.Manifest}
	}
	care := *m.Care
	care.Next = care.Next || !running
	return care.set(list).Refused
}

// leaveOutRefused leaves out the new modules whose services are refused, as it does those that can't be proven: a module that is there without them would
// look like one that works. It returns the reason where that is all that was asked for, and says whether there were any. What goes back isn't kept
// by it, and is done in part.
func (w *work) leaveOutRefused() (bool, error) {
	s, ok := w.c.System.(servant)
	if !ok {
		return false, nil
	}
	var news []*assemble.Proven
	for _, p := range w.proven {
		i := slices.IndexFunc(w.parts, func(o part) bool { return o.want == p.Wanted })
		if i >= 0 && !w.runs(w.parts[i]) && (len(p.Manifest.Services) > 0 || p.Manifest.Init != (module.Init{})) {
			news = append(news, p)
		}
	}
	if len(news) == 0 {
		return false, nil
	}
	goesLive := w.maybeLive()
	refused := s.RefusedServices(news, goesLive)
	for _, r := range refused {
		switch {
		case w.request.Kind == Rollback && goesLive && !w.request.DryRun:
			w.undone(fault.OneLine(r.Reason))
			continue
		case w.request.Kind == Rollback:
			w.remark(fault.OneLine(r.Reason))
			continue
		case w.single():
			return true, r.Err
		}
		i := slices.IndexFunc(w.parts, func(p part) bool { return p.want.Name == r.Module })
		w.instead(w.parts[i], r.Err)
		w.proven = slices.DeleteFunc(w.proven, func(p *assemble.Proven) bool { return p.Wanted.Name == r.Module })
	}
	return len(refused) > 0 && w.request.Kind != Rollback, nil
}

// maybeLive reports whether the change may go live, as far as that is known before it is composed.
func (w *work) maybeLive() bool {
	if w.stages() || w.c.Running.NotLive != "" || w.from.Number == 0 {
		return false
	}
	return !slices.ContainsFunc(w.proven, func(m *assemble.Proven) bool {
		i := slices.IndexFunc(w.parts, func(p part) bool { return p.want == m.Wanted })
		return i >= 0 && !w.runs(w.parts[i]) && (m.Manifest.RebootRequired || w.parts[i].assigned.RebootRequired)
	})
}
