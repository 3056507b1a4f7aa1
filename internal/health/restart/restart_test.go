package restart

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

func TestRestart(t *testing.T) {
	full, soft := "reboot.target replace-irreversibly", "soft-reboot.target replace-irreversibly"
	for _, c := range []struct {
		name    string
		systemd *systemdtest.Fake
		root    bool // something is at NextRoot
		kind    Kind
		can     Kind
		started []string
		hard    int
		fails   bool
	}{
		{name: "no systemd", kind: Full, can: Full, hard: 1},
		{name: "no systemd, soft", root: true, kind: Soft, can: Full, fails: true},
		{name: "full", systemd: &systemdtest.Fake{Version: "252.38-1~deb12u1"}, kind: Full, can: Full, started: []string{full}},
		{name: "soft", systemd: &systemdtest.Fake{Version: "257"}, root: true, kind: Soft, can: Soft, started: []string{soft}},
		{name: "soft without a root", systemd: &systemdtest.Fake{Version: "257"}, kind: Soft, can: Soft, fails: true},
		{name: "refused", systemd: &systemdtest.Fake{Version: "v257~rc1", Refuse: "no"}, kind: Full, can: Soft, fails: true},
		{name: "version unknown", systemd: &systemdtest.Fake{Version: "new"}, kind: Full, can: Full, started: []string{full}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := t.TempDir()
			hard := 0
			m := Machine{Manager: systemd.Manager{Run: run}, NextRoot: filepath.Join(run, "nextroot"), Reboot: func() error { hard++; return nil }}
			if c.systemd != nil {
				c.systemd.Start(t, run)
			}
			if c.root {
				if err := os.MkdirAll(filepath.Join(m.NextRoot, "usr"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if kind, why := m.Kind(t.Context()); kind != c.can || (why == "") != (kind == Soft) {
				t.Errorf("it can restart %s: %q", kind, why)
			}
			err := m.Now(t.Context(), c.kind)
			if (err != nil) != c.fails || err != nil && fault.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
			if hard != c.hard {
				t.Errorf("reboot(2) %d times", hard)
			}
			if c.systemd != nil {
				if diff := cmp.Diff(c.started, c.systemd.Started()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestRebootThatFails(t *testing.T) {
	m := Machine{Manager: systemd.Manager{Run: t.TempDir()}, Reboot: func() error { return errors.New("not allowed") }}
	if err := m.Now(t.Context(), Full); fault.KindOf(err) != fault.Retry {
		t.Errorf("%v", err)
	}
}
