package aftercare

import (
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/module"
)

// unitWork collects what is to be done with units.
type unitWork struct {
	*change
	touched                             *touched
	stop, reload, restart, start, later steps
	// running are the loaded units that run, by name.
	running map[string]systemd.LoadedUnit
}

// oneshots carry out the files of a directory, as systemd's own units; they are run again when such files come.
var oneshots = []struct{ dir, unit string }{
	{"sysctl.d", "systemd-sysctl.service"}, {"binfmt.d", "systemd-binfmt.service"}, {"modules-load.d", "systemd-modules-load.service"},
}

// units adds to the plan what is to be done with units.
func (c *change) units(p *Plan) {
	w := &unitWork{change: c, touched: c.touch(), running: make(map[string]systemd.LoadedUnit)}
	for _, u := range c.Units {
		if u.Runs() && u.Load != "masked" {
			w.running[u.Name] = u
		}
	}
	for _, u := range c.Units {
		if _, runs := w.running[u.Name]; runs {
			w.unit(u)
		}
	}
	w.others()
	w.generated()
	w.configuration()
	w.starts()
	w.finish(p)
}

// unit looks at what changed of one that runs.
func (w *unitWork) unit(u systemd.LoadedUnit) {
	if at := w.touched.of(u.Name); at != "" {
		from, to := w.files(u)
		switch {
		case from.exists() && !to.exists() && !from.local && !to.local:
			w.stopIt(u.Name, "%s goes away", from.path)
			return
		case w.unitChanged(u.Name, from, to):
			if u.Type == "oneshot" && find(w.all(to), "Unit", "DefaultDependencies") == "no" {
				w.later.add(u.Name, "%s differs, and it is part of the start of the machine", at)
				return
			}
			w.restartIt(u.Name, "%s differs", at)
		}
	}
	if kindOf(u.Name) == "service" && u.Type != "oneshot" {
		w.program(u)
	}
}

// files returns the unit's file before and after. What systemd has from elsewhere, /run for one, isn't the images'.
func (w *unitWork) files(u systemd.LoadedUnit) (from, to unitFile) {
	from, to = w.effective(w.From, u.Name), w.effective(w.To, u.Name)
	if u.Fragment == "" || from.path == "" {
		return from, to
	}
	loaded, _ := resolve(w.From, u.Fragment)
	known, _ := resolve(w.From, from.path)
	if loaded != known {
		from.local, to.local = true, true
	}
	return from, to
}

// all returns every setting of the image's file.
func (w *unitWork) all(f unitFile) []setting {
	text, err := w.read(f.node)
	if err != nil {
		return nil
	}
	return parseUnit(string(text))
}

// program looks at what a service runs.
func (w *unitWork) program(u systemd.LoadedUnit) {
	for _, program := range u.Programs {
		before, was := resolve(w.From, program)
		after, is := resolve(w.To, program)
		e, differs := w.Difference.Entry(before)
		switch {
		case was == nil || w.local(before) || w.local(program):
		case is == nil:
			w.restartIt(u.Name, "%s, which it runs, goes away", program)
		case before != after:
			w.restartIt(u.Name, "%s, which it runs, is %s", program, after)
		case differs && e.What >= difference.Content:
			w.restartIt(u.Name, "%s, which it runs, is changed", before)
		}
	}
	if len(u.EnvironmentFiles) == 0 && !slices.ContainsFunc(u.Arguments, path.IsAbs) {
		return
	}
	for _, e := range w.entries {
		if slices.Contains(u.Programs, e.Path) || e.Kind == difference.Changed && e.What < difference.Content {
			continue
		}
		_, config := below(e.Path, "/etc")
		switch {
		case slices.ContainsFunc(u.EnvironmentFiles, func(pattern string) bool { ok, err := path.Match(pattern, e.Path); return ok && err == nil }):
			w.restartIt(u.Name, "%s, its environment, is %s", e.Path, e.Kind)
		case !config && slices.Contains(u.Arguments, e.Path):
			w.restartIt(u.Name, "%s, which it runs, is %s", e.Path, e.Kind)
		}
	}
}

// others looks at what processes and mount namespaces tell.
func (w *unitWork) others() {
	for _, process := range w.Processes {
		// A job runs to its end, and is new the next time.
		if process.Unit != "" && len(process.Uses) > 0 && w.running[process.Unit].Type != "oneshot" {
			w.restartIt(process.Unit, "%s (%d) uses %s, which differs", process.Name, process.PID, process.Uses[0].Path)
		}
	}
	for _, held := range w.Held {
		switch {
		case held.Unit == "" || w.running[held.Unit].Type == "oneshot":
		case w.differs(held.Keeps):
			w.restartIt(held.Unit, "%s", held.Why)
		default:
			w.later.add(held.Unit, "%s, in which manifests of modules differ and nothing else", held.Why)
		}
	}
	for _, o := range oneshots {
		if _, runs := w.running[o.unit]; !runs {
			continue
		}
		for _, e := range w.entries {
			dir, name := path.Split(e.Path)
			if e.Kind != difference.Removed && strings.HasSuffix(name, ".conf") && slices.ContainsFunc(configDirs, func(base string) bool { return dir == base+"/"+o.dir+"/" }) {
				w.restartIt(o.unit, "%s is %s", e.Path, e.Kind)
			}
		}
	}
}

func (w *unitWork) stopIt(unit, format string, args ...any) {
	if why := w.refusal(unit); why != "" {
		w.later.add(unit, format+", and "+why, args...)
		return
	}
	w.stop.add(unit, format, args...)
}

// differs reports whether anything changes below these names in "/", or below any, that a service may want to see. The
// manifests of modules, of which each change of modules changes one, are the agent's.
func (w *unitWork) differs(tops []string) bool {
	return slices.ContainsFunc(w.entries, func(e difference.Entry) bool {
		const manifests = "/" + module.ModulesDir + "/"
		if strings.HasPrefix(e.Path, manifests) || strings.HasPrefix(manifests, e.Path+"/") {
			return false
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(e.Path, "/"), "/")
		return len(tops) == 0 || slices.Contains(tops, top)
	})
}

func (w *unitWork) restartIt(unit, format string, args ...any) {
	if why := w.refusal(unit); why != "" {
		w.later.add(unit, format+", and "+why, args...)
		return
	}
	w.restart.add(unit, format, args...)
}

// refusal says why a unit can't be stopped; "" where it can.
func (w *unitWork) refusal(unit string) string {
	if why := hands(unit); why != "" {
		return why
	}
	if w.running[unit].RefuseStop {
		return "systemd lets nobody stop it"
	}
	return ""
}

// finish puts the work into the plan, each unit once.
func (w *unitWork) finish(p *Plan) {
	later := w.later.list()
	once := func(list []UnitStep, others ...*steps) []UnitStep {
		return slices.DeleteFunc(list, func(s UnitStep) bool {
			return slices.ContainsFunc(others, func(o *steps) bool { return o.has(s.Unit) })
		})
	}
	p.Stop = w.stop.list()
	p.Restart = once(w.restart.list(), &w.stop, &w.later)
	p.Reload = once(w.reload.list(), &w.stop, &w.restart)
	p.Start = once(w.start.list(), &w.stop, &w.restart)
	p.Later = once(later, &w.stop)
	// What would start a service again goes first; a service lets go of its socket before that is made anew.
	slices.SortStableFunc(p.Stop, func(a, b UnitStep) int { return rank(a) - rank(b) })
	slices.SortStableFunc(p.Restart, func(a, b UnitStep) int { return rank(b) - rank(a) })
	for _, list := range [][]UnitStep{p.Stop, p.Reload, p.Restart, p.Start} {
		for i := range list {
			list[i].File = w.file(list[i].Unit)
		}
	}
	if len(w.touched.reload) > 0 {
		p.DaemonReload = w.touched.reload.list()
	}
	for _, file := range w.touched.whole {
		p.Remarks = append(p.Remarks, file+" is for all units of its kind: it takes effect for each when that is started again")
	}
}

// file returns UnitStep.File of a unit.
func (w *unitWork) file(unit string) string {
	from, to := w.effective(w.From, unit), w.effective(w.To, unit)
	if u, runs := w.running[unit]; runs {
		from, to = w.files(u)
	}
	switch {
	case from.local || to.local:
		return ""
	case to.path != "":
		return to.path
	}
	return from.path
}

// rank puts what starts services before the services.
func rank(s UnitStep) int {
	if kindOf(s.Unit) == "service" {
		return 1
	}
	return 0
}
