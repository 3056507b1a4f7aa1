package systemd_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

// TestJobsOfRealSystemd has a real systemd start, restart and stop units, with its own results.
func TestJobsOfRealSystemd(t *testing.T) {
	if !systemdtest.Inside(t, nil) {
		return
	}
	var m systemd.Manager
	for name, text := range map[string]string{
		"good.service":    "[Service]\nExecStart=/bin/sleep inf\n",
		"bad.service":     "[Service]\nType=oneshot\nExecStart=/bin/false\n",
		"needs.service":   "[Unit]\nRequires=bad.service\nAfter=bad.service\n[Service]\nExecStart=/bin/sleep inf\n",
		"forever.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep inf\n",
	} {
		if err := os.WriteFile(filepath.Join("/run/systemd/system", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	results := func(verb systemd.Verb, within time.Duration, units ...string) map[string]string {
		t.Helper()
		outcomes, err := m.Jobs(t.Context(), verb, units, within)
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]string)
		for _, o := range outcomes {
			out[o.Unit] = o.Result
		}
		return out
	}
	got := results(systemd.Start, time.Minute, "needs.service", "good.service", "bad.service", "none.service")
	for unit, want := range map[string]string{"needs.service": "dependency", "good.service": "done", "bad.service": "failed", "none.service": systemd.JobRefused} {
		if got[unit] != want {
			t.Errorf("start %s: %q, want %q", unit, got[unit], want)
		}
	}
	before, err := m.Unit(t.Context(), "good.service")
	if err != nil || before.Active != "active" || before.Sub != "running" || before.MainPID == 0 || before.Since.IsZero() || len(before.Invocation) != 32 {
		t.Errorf("%+v, %v", before, err)
	}
	if got := results(systemd.Reload, time.Minute, "good.service", "needs.service"); got["good.service"] != "done" {
		t.Errorf("reload: %v", got)
	}
	after, err := m.Unit(t.Context(), "good.service")
	if err != nil || after.Invocation == before.Invocation || after.MainPID == before.MainPID {
		t.Errorf("what can't reload isn't restarted: %+v, %v", after, err)
	}
	if got := results(systemd.Start, 5*time.Second, "forever.service"); got["forever.service"] != systemd.JobUnfinished {
		t.Errorf("what never ends: %v", got)
	}
	if got := results(systemd.Stop, time.Minute, "good.service", "forever.service", "needs.service"); got["good.service"] != "done" || got["forever.service"] != "done" {
		t.Errorf("stop: %v", got)
	}
	gone, err := m.Units(t.Context(), []string{"good.service", "bad.service", "none.service"})
	if err != nil || gone[0].Active != "inactive" || gone[1].Active != "failed" || gone[1].Result != "exit-code" || gone[2].Load != "not-found" {
		t.Errorf("%+v, %v", gone, err)
	}
	if got := results(systemd.Stop, time.Minute, "bad.service"); got["bad.service"] != "done" {
		t.Errorf("stop: %v", got)
	}
	if bad, err := m.Unit(t.Context(), "bad.service"); err != nil || bad.Active != "inactive" {
		t.Errorf("what was stopped counts as failed: %+v, %v", bad, err)
	}
}

// TestRestartsOfRealSystemd: a service that starts over and over never fails, and is counted.
func TestRestartsOfRealSystemd(t *testing.T) {
	if !systemdtest.Inside(t, nil) {
		return
	}
	var m systemd.Manager
	const unit = "again.service"
	text := "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=500ms\n"
	if err := os.WriteFile("/run/systemd/system/"+unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Jobs(t.Context(), systemd.Start, []string{unit}, time.Minute); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		s, err := m.System(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range s.Units {
			if u.Name == unit && u.State != "auto-restart" {
				t.Fatalf("%+v", u)
			}
			if u.Name == unit && u.Restarts >= 6 {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it isn't seen to start again and again: %+v", s)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
