package units

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	run := t.TempDir()
	for range 2 {
		if err := Place(run); err != nil {
			t.Fatal(err)
		}
	}
	wanted := filepath.Join(run, unitDir, "multi-user.target.wants", Agent)
	text, err := os.ReadFile(wanted)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify\n", "WatchdogSec=", "Restart=always\n", "ExecStart=/run/powernode/bin/powernode-agent service\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the unit lacks %q", line)
		}
	}
	info, err := os.Stat(wanted)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	for _, name := range []string{"var.mount", "persist.mount", "run-powernode-.mount.d/10-powernode.conf"} {
		text, err := os.ReadFile(filepath.Join(run, unitDir, name))
		if err != nil || !strings.Contains(string(text), "\nDefaultDependencies=no\n") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if err := Place(filepath.Join(run, "missing")); err == nil || !strings.Contains(err.Error(), Agent) {
		t.Errorf("without a /run: %v", err)
	}
}

// TestSystemdTakesTheUnit has systemd itself read it.
func TestSystemdTakesTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze isn't installed")
	}
	// It insists that the program is there.
	program := filepath.Join(t.TempDir(), "powernode-agent")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), Agent)
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(agent), "/run/powernode/bin/powernode-agent", program)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", file).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
