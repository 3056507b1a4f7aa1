package change

import (
	"errors"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// TestNothingResumesHalfWay: where a swap fails, and its way back, too, no unit is started until somebody has gone it; where only the
// swap fails, those that were stopped for it run again.
func TestNothingResumesHalfWay(t *testing.T) {
	halfWay, wholly := 0, 0
	for step, ended := 1, false; !ended && !t.Failed(); step += 2 {
		t.Run("", func(t *testing.T) {
			m := newMounted(t)
			old := m.generation(map[string]string{"usr/app": long("1"), "opt/app": long("1")}, nil)
			next := m.generation(map[string]string{"usr/app": long("2"), "opt/app": long("2")}, nil)
			m.boot(old, rootfs.Ephemeral)
			run := t.TempDir()
			f := &systemdtest.Fake{Properties: map[string]map[string]any{"x.service": {"ActiveState": "inactive", "SubState": "dead"}}}
			f.Start(t, run)
			machine := m.machine()
			machine.Care = &Care{Store: m.store, Root: t.TempDir(), Run: t.TempDir(), Manager: systemd.Manager{Run: run}}
			n := 0
			machine.Place.Hook = func(string) error {
				if n++; n >= step {
					return errors.New("it fails")
				}
				return nil
			}
			_, err := machine.Swap(t.Context(), m.step(old, next), Findings{Aftercare: &aftercare.Plan{Stop: []aftercare.UnitStep{{Unit: "x.service"}}}})
			if ended = err == nil; ended {
				return
			}
			is, started := live.Recoverable(m.run), slices.Contains(f.Asked(), "StartUnit x.service")
			if started == is || !slices.Contains(f.Asked(), "StopUnit x.service") && started {
				t.Errorf("step %d: half-way %t, and asked for %q: %v", step, is, f.Asked(), err)
			}
			if !is {
				wholly++
				return
			}
			halfWay++
			r, ok, err := m.machine().Recover(t.Context(), old.Number)
			if err != nil || !ok || r.Generation != old.Number {
				t.Errorf("step %d: %+v, %t, %v", step, r, ok, err)
			}
			m.reads("usr/app", long("1"))
		})
	}
	if halfWay == 0 || wholly == 0 {
		t.Errorf("half-way %d times, wholly back %d times", halfWay, wholly)
	}
}
