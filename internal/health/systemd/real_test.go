package systemd_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// TestRealSystemd speaks with the systemd of the machine that it runs on, and leaves a failed unit
// behind. test/vm runs it in a virtual machine.
func TestRealSystemd(t *testing.T) {
	if os.Getenv("POWERNODE_TEST_SYSTEMD") == "" {
		t.Skip("changes the machine's systemd; make test-vm runs it in a virtual machine (POWERNODE_TEST_SYSTEMD)")
	}
	var m systemd.Manager
	if n, err := m.Version(t.Context()); n < 240 || err != nil {
		t.Errorf("version %d, %v", n, err)
	}
	before, err := m.System(t.Context())
	if err != nil || before.State == "" {
		t.Fatalf("%+v, %v", before, err)
	}
	const unit = "powernode-test-fails.service"
	path := "/run/systemd/system/" + unit
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("[Service]\nExecStart=/bin/false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	again := startsAgain(t, m)
	failed, counted := false, false
	for {
		now, err := m.System(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range now.Units {
			failed = failed || u == (systemd.Unit{Name: unit, State: "failed"}) && now.State != "running"
			counted = counted || u.Name == again && u.State == "auto-restart" && u.Restarts >= 2
		}
		if failed && counted {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s isn't seen to have failed (%t), or %s to start again (%t): %+v", unit, failed, again, counted, now)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// startsAgain starts a service that ends at once, and that systemd starts again and again.
func startsAgain(t *testing.T, m systemd.Manager) string {
	t.Helper()
	const unit = "powernode-test-again.service"
	if err := os.WriteFile("/run/systemd/system/"+unit, []byte("[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := m.Jobs(ctx, systemd.Stop, []string{unit}, time.Minute); err != nil {
			t.Error(err)
		}
	})
	return unit
}
