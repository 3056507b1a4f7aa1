package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/services"
	"github.com/powernode/powernode-agent/internal/store"
)

// Care is what a running system needs when its root changes: package aftercare's plans, with the units that modules' manifests
// make.
type Care struct {
	Store *store.Store
	// Root is the running root, and Run its /run.
	Root, Run string
	// Agent is the path of the agent's program in the running system.
	Agent string
	// Privileged are the modules that the trust policy lets have privileged services.
	Privileged []string
	Manager    systemd.Manager

	// failed are the steps before a swap that failed, until somebody asks.
	failed []string
}

// plan says what a step calls for. local reports whether the writable layer has something of its own at an absolute path.
func (c *Care) plan(ctx context.Context, s Step, local func(path string) bool, held []aftercare.Held) (*aftercare.Plan, []string, error) {
	view, err := aftercare.ReadView(c.Root)
	if err != nil {
		return nil, nil, err
	}
	seen, err := aftercare.Observe(ctx, c.Manager, aftercare.Scan{View: view}, s.Difference, local)
	if err != nil {
		return nil, nil, err
	}
	in := aftercare.Input{
		Difference: s.Difference, From: s.FromTree, To: s.ToTree, Read: aftercare.Contents(c.Store), Local: local, Owner: s.Owner,
		Kernel: kernelRelease(), Systemd: seen.Systemd, Units: seen.Units, Processes: seen.Processes, Held: held,
	}
	var remarks []string
	if seen.Systemd {
		modules := make([]services.Module, len(s.Modules))
		for i, m := range s.Modules {
			modules[i] = services.Module{Name: m.Wanted.Name, Version: m.Wanted.Version, Manifest: m.Manifest}
		}
		set := c.set(modules)
		units, taken, err := c.generated(set)
		if err != nil {
			return nil, nil, err
		}
		in.Generated = units
		for _, r := range slices.Concat(set.Refused, taken) {
			remarks = append(remarks, fault.OneLine(r.Reason))
		}
	}
	return aftercare.Decide(in), remarks, nil
}

func (c *Care) set(modules []services.Module) services.Set {
	return services.MakeAll(modules, services.ProbeNode(c.Root, c.Agent, c.Privileged))
}

// generated returns the units of manifests that the step adds, changes and removes, and the modules that get none because of a file in the way.
func (c *Care) generated(set services.Set) (units []aftercare.GeneratedUnit, taken []services.Refusal, err error) {
	changes, err := services.Diff(c.Run, set)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Concat(changes.Added, changes.Changed, changes.Removed) {
		g := aftercare.GeneratedUnit{Name: name}
		if text, err := os.ReadFile(filepath.Join(c.Run, "systemd", "system", name)); err == nil {
			g.From = string(text)
		}
		for _, u := range set.Units() {
			if u.Name == name {
				g.To, g.Start = string(u.Text), u.WantedBy != ""
			}
		}
		units = append(units, g)
	}
	return units, changes.Refused, nil
}

// before stops what goes away, while its files are there.
func (c *Care) before(ctx context.Context, p *aftercare.Plan) []string {
	r := aftercare.Runner{Root: c.Root, Systemd: c.Manager}
	_, failed := c.judge(r.Before(ctx, p), nil)
	c.failed = append(c.failed, failed...)
	return failed
}

// running returns those of the units that run. It is nobody where that can't be told.
func (c *Care) running(ctx context.Context, units []aftercare.UnitStep) []string {
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.Unit
	}
	if len(names) == 0 {
		return nil
	}
	states, err := c.Manager.Units(ctx, names)
	if err != nil {
		return nil
	}
	var running []string
	for _, u := range states {
		if u.Active != "inactive" && u.Active != "failed" {
			running = append(running, u.Name)
		}
	}
	return running
}

// after does what comes after the swap to a generation. It says which units don't work, and which other steps failed, those
// before the swap among them.
func (c *Care) after(ctx context.Context, g store.Generation, p *aftercare.Plan, owner func(path string) string) ([]UnitFailure, []string) {
	failed := c.failed
	c.failed = nil
	if err := c.Place(g); err != nil {
		failed = append(failed, fault.OneLine(err.Error()))
	}
	r := aftercare.Runner{Root: c.Root, Systemd: c.Manager}
	failures, more := c.judge(r.After(ctx, p), owner)
	return failures, append(failed, more...)
}

// Place makes the units of a generation's modules those of the running system, where systemd runs. systemd has to read them still.
func (c *Care) Place(g store.Generation) error {
	if _, err := os.Stat(filepath.Join(c.Run, "systemd", "private")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	modules := make([]services.Module, 0, len(g.Modules))
	for _, m := range g.Modules {
		manifest, err := assemble.Manifest(c.Store, m.ManifestDigest)
		if err != nil {
			return fmt.Errorf("place the services of module %s: %w", m.Name, err)
		}
		modules = append(modules, services.Module{Name: m.Name, Version: m.Version, Manifest: manifest})
	}
	_, err := services.Place(c.Run, c.set(modules))
	return err
}

// judge sorts what failed: units that don't run are somebody's fault, the rest is for a person to know.
func (c *Care) judge(r aftercare.Report, owner func(path string) string) ([]UnitFailure, []string) {
	var failures []UnitFailure
	var remarks []string
	for _, s := range r.Failed() {
		if s.Action != aftercare.StartUnit && s.Action != aftercare.RestartUnit {
			remarks = append(remarks, fault.OneLine(s.String()))
			continue
		}
		f := UnitFailure{Unit: s.What, Module: services.UnitModule(s.What), Reason: fault.OneLine(s.Error)}
		if f.Module == "" && s.File != "" && owner != nil {
			f.Module = owner(s.File)
		}
		failures = append(failures, f)
	}
	return failures, remarks
}
