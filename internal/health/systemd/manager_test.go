package systemd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, f *systemdtest.Fake) systemd.Manager {
	t.Helper()
	run := t.TempDir()
	f.Start(t, run)
	return systemd.Manager{Run: run}
}

func TestManager(t *testing.T) {
	f := &systemdtest.Fake{State: "degraded", Version: "254.5-1~deb12", Units: map[string]string{"nginx.service": "failed"}}
	m := start(t, f)
	got, err := m.System(t.Context())
	want := systemd.System{State: "degraded", Units: []systemd.Unit{{Name: "nginx.service", State: "failed"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	f.Set(func(f *systemdtest.Fake) {
		f.State, f.Units = "running", map[string]string{"x.service": "auto-restart"}
		f.Properties = map[string]map[string]any{"x.service": {"NRestarts": uint32(7)}}
	})
	got, err = m.System(t.Context())
	if err != nil || got.State != "running" || len(got.Units) != 1 || got.Units[0] != (systemd.Unit{Name: "x.service", State: "auto-restart", Restarts: 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	if n, err := m.Version(t.Context()); n != 254 || err != nil {
		t.Errorf("version %d, %v", n, err)
	}
	if err := m.Start(t.Context(), "reboot.target"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"reboot.target replace-irreversibly"}, f.Started()); diff != "" {
		t.Error(diff)
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "Unit x.target not found." })
	if err := m.Start(t.Context(), "x.target"); err == nil || !strings.Contains(err.Error(), "x.target not found") {
		t.Errorf("%v", err)
	}
}

func TestNoSystemd(t *testing.T) {
	if _, err := (systemd.Manager{Run: t.TempDir()}).System(t.Context()); !errors.Is(err, systemd.ErrNone) {
		t.Errorf("%v", err)
	}
}

func TestSystemdThatDoesNotAnswer(t *testing.T) {
	m := start(t, &systemdtest.Fake{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.System(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, systemd.ErrNone) {
		t.Errorf("%v", err)
	}
}
