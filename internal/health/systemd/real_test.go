package systemd_test

import (
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
	for {
		now, err := m.System(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range now.Units {
			if u == (systemd.Unit{Name: unit, State: "failed"}) && now.State != "running" {
				return
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s isn't seen to have failed: %+v", unit, now)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
