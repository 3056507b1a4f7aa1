package retain

import (
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
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

// CheckFloors is CheckFloor for all modules of a generation to be. What is part of the generation that runs, with the
// same manifest, may stay. It returns why each module that is refused is, by its place in wanted.
func CheckFloors(floors store.Floors, running, wanted []store.GenerationModule, allowed func(m store.GenerationModule) bool) map[int]error {
	runs := make(map[string]bool, len(running))
	for _, m := range running {
		runs[m.ManifestDigest] = true
	}
	refused := make(map[int]error)
	for i, m := range wanted {
		may := runs[m.ManifestDigest] || allowed != nil && allowed(m)
		if err := CheckFloor(floors, m.Name, m.Version, may); err != nil {
			refused[i] = err
		}
	}
	return refused
}
