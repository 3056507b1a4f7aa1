package retain

import (
	"slices"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// CheckFloor refuses a version of a module that is lower than one that was current here before, unless that is
// allowed, by a person or by the platform's word: who gets at an old module has a signature for it, and the
// holes that were closed since. A module without a floor may have any version.
func CheckFloor(floors store.Floors, name, version string, allowed bool) error {
	floor, ok := floors[name]
	if !ok || allowed || module.CompareVersions(version, floor.Version) >= 0 {
		return nil
	}
	return fault.New(fault.Refuse, fault.Policy, "use --allow-downgrade if it is meant, or set allow_downgrade for it on the platform",
		"module %s %s is older than %s, which was current here as part of generation %d", name, version, floor.Version, floor.Generation)
}

// FloorRule is the one rule of how low modules may go, for changes and boots.
type FloorRule struct {
	Floors store.Floors
	// Unknown is why the floors can't be told; nil where they can. Nothing that isn't Here comes then without being allowed.
	Unknown error
	// Here are modules that may stay, and come back, as they are: those of the generation that runs, and of the one that is
	// staged, which was judged when it was staged.
	Here []store.GenerationModule
	// All lets every module go lower.
	All bool
}

// NewFloorRule reads the floors of a store. here are the generations whose modules may be what they are.
func NewFloorRule(st *store.Store, here ...store.Generation) FloorRule {
	var r FloorRule
	r.Floors, r.Unknown = st.Floors()
	for _, g := range here {
		r.Here = append(r.Here, g.Modules...)
	}
	return r
}

// Check judges a module. manifest is the digest of this machine's manifest, "" where it isn't known yet: then the answer
// says whether it can be one that may come at all.
func (r FloorRule) Check(a reconcile.Assigned, manifest string) error {
	allowed := r.All || a.AllowDowngrade && a.Origin == reconcile.ByPlatform || slices.ContainsFunc(r.Here, func(m store.GenerationModule) bool {
		return m.Name == a.Name && m.Version == a.Version && (manifest == "" || m.ManifestDigest == manifest)
	})
	if r.Unknown != nil && !allowed {
		return r.Unknown
	}
	return CheckFloor(r.Floors, a.Name, a.Version, allowed)
}

// Apply has a module judged wherever it is looked at: by its version before anybody is asked, and by its manifest once that is
// known.
func (r FloorRule) Apply(a reconcile.Assigned) reconcile.Assigned {
	of := a
	if a.Refused == nil {
		a.Refused = r.Check(of, "")
	}
	a.Accept = func(manifest string) error { return r.Check(of, manifest) }
	return a
}
