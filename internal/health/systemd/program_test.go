package systemd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

const program = "powernode-test-program.service"

func TestRun(t *testing.T) {
	if _, err := (systemd.Manager{Run: t.TempDir()}).RunOnce(t.Context(), systemd.Program{Unit: program, Args: []string{"/bin/x"}}, time.Minute); !errors.Is(err, systemd.ErrNone) {
		t.Errorf("without systemd: %v", err)
	}
	f := &systemdtest.Fake{}
	m := start(t, f)
	out := filepath.Join(t.TempDir(), "out")
	prints := func() {
		t.Helper()
		if err := os.WriteFile(out, []byte("what was printed before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(within time.Duration) (int, error) {
		return m.RunOnce(t.Context(), systemd.Program{Unit: program, Args: []string{"/bin/x", "y"}, Output: out}, within)
	}
	prints()
	if status, err := run(time.Minute); status != 0 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if asked := f.Asked(); len(asked) != 1 || asked[0] != "StartTransientUnit "+program {
		t.Errorf("%q", asked)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an earlier one printed is there still: %v", err)
	}
	prints()
	f.Set(func(f *systemdtest.Fake) {
		f.Properties = map[string]map[string]any{program: {"ActiveState": "activating"}}
	})
	if _, err := run(time.Minute); !errors.Is(err, systemd.ErrRuns) {
		t.Errorf("one runs: %v", err)
	}
	if _, err := os.Stat(out); err != nil {
		t.Errorf("what it prints is removed while it runs: %v", err)
	}
	f.Set(func(f *systemdtest.Fake) {
		f.Results = map[string]string{program: "failed"}
		f.Properties = map[string]map[string]any{program: {"Result": "exit-code", "ExecMainStatus": int32(8)}}
	})
	if status, err := run(time.Minute); status != 8 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	f.Set(func(f *systemdtest.Fake) { f.Properties[program]["Result"] = "signal" })
	if _, err := run(time.Minute); err == nil || !strings.Contains(err.Error(), "signal") {
		t.Errorf("killed: %v", err)
	}
	f.Set(func(f *systemdtest.Fake) { f.Results[program] = "" })
	if _, err := run(100 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no end: %v", err)
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "no" })
	if _, err := run(time.Minute); err == nil || errors.Is(err, systemd.ErrRuns) {
		t.Errorf("refused: %v", err)
	}
}

// TestRunByRealSystemd has a real systemd run programs.
func TestRunByRealSystemd(t *testing.T) {
	if !systemdtest.Inside(t, nil) {
		return
	}
	var m systemd.Manager
	out := filepath.Join("/run", "powernode-test.out")
	shell := func(text string, within time.Duration) (int, error) {
		return m.RunOnce(t.Context(), systemd.Program{Unit: program, Description: "a test", Args: []string{"/bin/sh", "-c", text}, Output: out}, within)
	}
	for i, c := range []struct {
		text   string
		status int
		prints string
	}{
		{"echo 'to be 100% $sure'; umask", 0, "to be 100% $sure\n0077\n"},
		{"echo partly; exit 8", 8, "partly\n"},
		{"exit 5", 5, ""}, // the one before is forgotten, and so is its output
		{"grep CapEff /proc/self/status | grep -q 0000000000000000", 1, ""},
	} {
		status, err := shell(c.text, time.Minute)
		data, readErr := os.ReadFile(out)
		if status != c.status || err != nil || readErr != nil || string(data) != c.prints {
			t.Errorf("%d: status %d, %v; %q, %v", i, status, err, data, readErr)
		}
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if status, err := shell("kill -9 $$", time.Minute); err == nil {
		t.Errorf("killed: status %d", status)
	}
	// One that is asked to end says itself how.
	const ready = "/run/powernode-test.ready"
	go func() {
		for !exists(ready) {
			time.Sleep(10 * time.Millisecond)
		}
		if err := m.Interrupt(t.Context(), program); err != nil {
			t.Error(err)
		}
	}()
	if status, err := shell("trap 'exit 7' TERM; : >"+ready+"; while :; do sleep 0.1; done", time.Minute); status != 7 || err != nil {
		t.Errorf("interrupted: status %d, %v", status, err)
	}
	if err := m.Interrupt(t.Context(), program); err != nil {
		t.Errorf("nothing runs: %v", err)
	}
	// Nobody waits for it any more, and it goes on.
	if _, err := shell("sleep 600", 5*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no end: %v", err)
	}
	if _, err := shell("true", time.Minute); !errors.Is(err, systemd.ErrRuns) {
		t.Errorf("two at once: %v", err)
	}
	if got, err := m.Jobs(t.Context(), systemd.Stop, []string{program}, time.Minute); err != nil || !got[0].Done() {
		t.Errorf("%v, %v", got, err)
	}
	if status, err := shell("true", time.Minute); status != 0 || err != nil {
		t.Errorf("again: status %d, %v", status, err)
	}
}

// TestSettingsOfAnOldSystemd: a node's systemd is a module's, and one that doesn't know a setting refuses the whole.
func TestSettingsOfAnOldSystemd(t *testing.T) {
	f := &systemdtest.Fake{}
	m := start(t, f)
	p := systemd.Program{Unit: program, Args: []string{"/bin/x"}, Output: filepath.Join(t.TempDir(), "out")}
	if _, err := m.RunOnce(t.Context(), p, time.Minute); err != nil {
		t.Fatal(err)
	}
	// org.freedesktop.systemd1(5), "History": the last of these came with 236.
	known := []string{"Description", "Type", "ExecStart", "UMask", "OOMScoreAdjust", "StandardOutputFile", "StandardError"}
	for _, name := range f.Transient() {
		if !slices.Contains(known, name) {
			t.Errorf("%s is asked for", name)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
