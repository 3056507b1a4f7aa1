package aftercare

import (
	"fmt"
	"slices"
)

// Plan is what a change calls for. Its lists are in the order in which they are carried out; a plan that asks for
// nothing is the zero value.
type Plan struct {
	// Stop are the units that go away; they are stopped before the swap.
	Stop []UnitStep `json:"stop,omitempty"`
	// Run are programs of the new root.
	Run []Program `json:"run,omitempty"`
	// DaemonReload is why systemd has to read its units again; nil where it hasn't.
	DaemonReload []string `json:"daemon_reload,omitempty"`
	// Reload, Restart and Start are about running units, and about those that the change brings.
	Reload  []UnitStep `json:"reload,omitempty"`
	Restart []UnitStep `json:"restart,omitempty"`
	Start   []UnitStep `json:"start,omitempty"`
	// Later are units that go on as they are although something of theirs changed, each with what it takes.
	Later []UnitStep `json:"later,omitempty"`
	// Processes use files that the change replaces or removes.
	Processes []Process `json:"processes,omitempty"`
	// Remarks are for the person who reads the plan.
	Remarks []string `json:"remarks,omitempty"`
}

// Empty reports whether nothing is to be done; processes and remarks are only told.
func (p *Plan) Empty() bool {
	return len(p.Stop)+len(p.Run)+len(p.DaemonReload)+len(p.Reload)+len(p.Restart)+len(p.Start) == 0
}

// UnitStep is one unit, with why something is done with it.
type UnitStep struct {
	Unit string `json:"unit"`
	// Because names the reasons, the weightiest first, at most reasonsMax of them.
	Because []string `json:"because"`
	// File is the path of the image's file for it, without symlinks above it: in the new root, or else in the old one. "" where a local change
	// hides that, or where the images have none.
	File string `json:"-"`
}

// Program is a program that is to be run.
type Program struct {
	// Name is what people call it: "ldconfig".
	Name string `json:"name"`
	// Path is where it lies in the new root, Args are its arguments.
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Because []string `json:"because"`
}

// reasonsMax is how many reasons are given for one step; more are counted.
const reasonsMax = 3

// reasons collects the reasons for one step, each once.
type reasons []string

func (r *reasons) add(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(*r, text) {
		*r = append(*r, text)
	}
}

// list returns them as a step has them.
func (r *reasons) list() []string {
	if len(*r) <= reasonsMax {
		return *r
	}
	return append(slices.Clone((*r)[:reasonsMax]), fmt.Sprintf("and %d more", len(*r)-reasonsMax))
}

// steps collects reasons by unit, in the order in which the units came up.
type steps struct {
	order []string
	why   map[string]*reasons
}

func (s *steps) add(unit, format string, args ...any) {
	if s.why == nil {
		s.why = make(map[string]*reasons)
	}
	r, known := s.why[unit]
	if !known {
		r = new(reasons)
		s.why[unit] = r
		s.order = append(s.order, unit)
	}
	r.add(format, args...)
}

func (s *steps) has(unit string) bool { return s.why[unit] != nil }

func (s *steps) list() []UnitStep {
	var list []UnitStep
	for _, unit := range s.order {
		list = append(list, UnitStep{Unit: unit, Because: s.why[unit].list()})
	}
	return list
}
