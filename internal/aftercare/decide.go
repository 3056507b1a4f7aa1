package aftercare

// Decide returns what a change calls for.
func Decide(in Input) *Plan {
	c := newChange(in)
	p := &Plan{Processes: in.Processes}
	c.linkerCache(p)
	c.configured(p, "systemd-sysusers", "sysusers.d")
	c.configured(p, "systemd-tmpfiles", "tmpfiles.d", "--create")
	c.moduleIndex(p)
	if in.Systemd {
		c.units(p)
	}
	return p
}
