package aftercare

import (
	"testing"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestObserve(t *testing.T) {
	nothing := difference.Compare(tree.NewDir(0o755), tree.NewDir(0o755))
	scan := Scan{View: View{Root: "/"}}
	o, err := Observe(t.Context(), systemd.Manager{Run: t.TempDir()}, scan, nothing, nil)
	if err != nil || o.Systemd || len(o.Units)+len(o.Processes) != 0 {
		t.Errorf("without systemd: %+v, %v", o, err)
	}
	run := t.TempDir()
	f := &systemdtest.Fake{Properties: map[string]map[string]any{"web.service": {"ActiveState": "active", "SubState": "running"}}}
	f.Start(t, run)
	if o, err = Observe(t.Context(), systemd.Manager{Run: run}, scan, nothing, nil); err != nil || !o.Systemd || len(o.Units) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}
