package retain

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// plan is a collection before anything is removed.
type plan struct {
	st *store.Store
	o  Options
	// before is when the last byte of a partial download must have come for it to go.
	before time.Time
	// objects are those that are needed, roots the root digests among them.
	objects, roots map[fsverity.Digest]struct{}
	// report has the generations and modules that are to go.
	report *Report
}

// look reads the store and decides what goes.
func look(st *store.Store, o Options) (*plan, error) {
	if o.PartialAge <= 0 {
		o.PartialAge = DefaultPartialAge
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	in, remarks, err := Read(st)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), "find out which generations are needed: %w", err)
	}
	in.Running, in.Mounted, in.Beneath, in.Newest = o.Running, o.Mounted, o.Beneath, o.Newest
	p := &plan{
		st: st, o: o, before: o.Now.Add(-o.PartialAge),
		objects: make(map[fsverity.Digest]struct{}), roots: make(map[fsverity.Digest]struct{}),
		report: &Report{Generations: []Verdict{}, Kept: []Verdict{}, Modules: []GoneModule{}, Remarks: remarks},
	}
	if err := checkRunning(in, o); err != nil {
		return nil, err
	}
	keep := Decide(in)
	modules, err := p.generations(in, keep)
	if err == nil {
		err = p.modules(modules)
	}
	return p, err
}

// checkRunning makes sure that what runs, in any mount namespace, is among what is known.
func checkRunning(in Input, o Options) error {
	has := func(d fsverity.Digest) bool {
		return slices.ContainsFunc(in.Generations, func(g store.Generation) bool { return g.RootDigest == d })
	}
	if _, ok := in.generation(o.Running); o.Running != 0 && !ok || !o.Root.IsZero() && !has(o.Root) {
		return fault.New(fault.Refuse, fault.Destructive, "name the directory of record of what runs with --state",
			"no generation of this store is what runs (root %s): its files would go", o.Root)
	}
	if len(in.Damaged) == 0 {
		return nil
	}
	// Another root that is mounted may be of a store beside this one, but also what a damaged record was of.
	for d := range o.Mounted {
		if !has(d) {
			return damaged("root %s is mounted, and what it needs can't be told: the record of generation %d is damaged", d, in.Damaged[0])
		}
	}
	return nil
}

// generations sorts them by the verdicts, and returns the modules of those that stay.
func (p *plan) generations(in Input, keep Keep) (map[string]store.GenerationModule, error) {
	modules := make(map[string]store.GenerationModule)
	for _, v := range keep {
		if !v.Keep {
			p.report.Generations = append(p.report.Generations, v)
			continue
		}
		p.report.Kept = append(p.report.Kept, v)
		g, ok := in.generation(v.Generation)
		if !ok {
			return nil, damaged("generation %d is kept (%s), and what it needs can't be told: its record is damaged", v.Generation, v.Reasons[0])
		}
		p.roots[g.RootDigest] = struct{}{}
		for _, m := range g.Modules {
			modules[m.ManifestDigest] = m
		}
	}
	for d := range p.o.Mounted {
		p.roots[d] = struct{}{}
	}
	for d := range p.roots {
		p.objects[d] = struct{}{}
	}
	for _, n := range []uint64{in.Current, in.Previous, in.Staged} {
		if n != 0 && !keep.Of(n).Keep {
			p.report.Remarks = append(p.report.Remarks, fmt.Sprintf("a pointer names generation %d, which isn't here", n))
		}
	}
	return modules, nil
}

// modules lists the objects of those that stay: the modules of generations, and such as came a short while ago.
func (p *plan) modules(needed map[string]store.GenerationModule) error {
	digests, err := p.st.ModuleDigests()
	if err != nil {
		return err
	}
	for _, d := range digests {
		rec, err := p.st.ModuleRecord(d)
		m, need := needed[d]
		delete(needed, d)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a reader's store may change meanwhile
		}
		spared := err == nil && p.o.SpareModules > 0 && rec.PulledAt.After(p.o.Now.Add(-p.o.SpareModules))
		if !need && !spared {
			p.report.Modules = append(p.report.Modules, GoneModule{Name: rec.Name, Version: rec.Version, ManifestDigest: d})
			continue
		}
		var objects []fsverity.Digest
		if err == nil {
			objects, err = p.st.ModuleObjects(rec)
		}
		switch {
		case err != nil && need:
			return damaged("module %s %s is part of a generation that is kept, and what it needs can't be told: %w", m.Name, m.Version, err)
		case err != nil:
			return damaged("module %s %s came a short while ago, and what it needs can't be told: %w", rec.Name, rec.Version, err)
		}
		for _, o := range objects {
			p.objects[o] = struct{}{}
		}
	}
	for _, m := range needed {
		p.report.Remarks = append(p.report.Remarks, fmt.Sprintf("module %s %s is part of a generation that is kept, and isn't here", m.Name, m.Version))
		p.objects[m.Seal] = struct{}{}
	}
	slices.Sort(p.report.Remarks)
	return nil
}
