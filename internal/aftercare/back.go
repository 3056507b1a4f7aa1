package aftercare

// Back returns the plan that takes this one back, once the old root is shown again: what it started is stopped, what
// it stopped is started, and what was started with the new files is started once more. The linker's cache and the
// index of kernel modules are made again; users and temporary files stay.
func (p *Plan) Back() *Plan {
	const why = "the change is taken back"
	again := func(list []UnitStep) []UnitStep {
		var steps []UnitStep
		for _, s := range list {
			steps = append(steps, UnitStep{Unit: s.Unit, Because: []string{why}})
		}
		return steps
	}
	back := &Plan{Stop: again(p.Start), Reload: again(p.Reload), Restart: again(p.Restart), Start: again(p.Stop)}
	for _, program := range p.Run {
		if program.Name == linkerProgram || program.Name == moduleProgram {
			program.Because = []string{why}
			back.Run = append(back.Run, program)
		}
	}
	if len(p.DaemonReload) > 0 {
		back.DaemonReload = []string{why}
	}
	return back
}
