package aftercare

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func unitsOf(names ...string) []UnitStep {
	var list []UnitStep
	for _, name := range names {
		list = append(list, UnitStep{Unit: name})
	}
	return list
}

// shell is a program of a plan.
func shell(name, script string) Program {
	return Program{Name: name, Path: "/bin/sh", Args: []string{"-c", script}}
}

func TestRunner(t *testing.T) {
	run, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	f := &systemdtest.Fake{
		Results: map[string]string{"bad.service": "failed", "slow.service": "", "needy.service": "dependency"},
		Properties: map[string]map[string]any{
			"new.service": {"ActiveState": "active", "SubState": "running"}, "dies.service": {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"},
		},
	}
	f.Start(t, run)
	var noted []string
	r := &Runner{
		Systemd: systemd.Manager{Run: run}, ProgramTime: time.Minute, UnitTime: time.Minute, SettleTime: time.Millisecond,
	}
	r.Note = func(s Step) {
		noted = append(noted, strings.TrimSpace(string(s.Action)+" "+s.What))
		// Only what never ends, and what is started with it, has little time: a slow machine needs more.
		switch s.What {
		case "fails":
			r.ProgramTime = 300 * time.Millisecond
		case "hangs":
			r.ProgramTime = time.Minute
		case "dbus.service":
			r.UnitTime = 5 * time.Second
		case "slow.service":
			r.UnitTime = time.Minute
		}
	}
	p := &Plan{
		Stop:         unitsOf("old.service"),
		Run:          []Program{shell("first", "echo first >>"+trace), shell("fails", "echo some words; echo >&2 'no such user'; exit 65"), shell("hangs", "sleep 1000 & sleep 1000"), shell("last", "echo $PATH >>"+trace)},
		DaemonReload: []string{"x"}, Reload: unitsOf("dbus.service"), Restart: unitsOf("web.service", "bad.service", "slow.service"), Start: unitsOf("new.service", "dies.service", "needy.service"),
	}
	p.Start[1].File = "/lib/systemd/system/dies.service"
	before := r.Before(t.Context(), p)
	if len(before.Failed()) > 0 {
		t.Error(before.Failed())
	}
	report := r.After(t.Context(), p)
	want := []string{
		"StopUnit old.service", "Reload", "ReloadOrTryRestartUnit dbus.service", "TryRestartUnit web.service", "TryRestartUnit bad.service", "TryRestartUnit slow.service",
		"StartUnit new.service", "StartUnit dies.service", "StartUnit needy.service",
	}
	if diff := cmp.Diff(want, f.Asked()); diff != "" {
		t.Error(diff)
	}
	var failed []string
	for _, s := range report.Failed() {
		failed = append(failed, s.String())
	}
	want = []string{
		"run fails: exit status 65: no such user", "run hangs: it didn't end within 300ms",
		`restart bad.service: the job ended as "failed"`, "restart slow.service: it isn't done yet",
		"start dies.service: it ended right after its start (exit-code)", "start needy.service: a unit that it needs failed",
	}
	if diff := cmp.Diff(want, failed); diff != "" {
		t.Error(diff)
	}
	if at := report.Failed()[4]; at.File != "/lib/systemd/system/dies.service" {
		t.Errorf("%+v", at)
	}
	text, err := os.ReadFile(trace)
	if err != nil || string(text) != "first\n/usr/sbin:/usr/bin:/sbin:/bin\n" {
		t.Errorf("%q, %v", text, err)
	}
	if len(noted) != len(report.Steps)+1 || noted[0] != "stop old.service" || noted[5] != "daemon-reload" {
		t.Errorf("%q", noted)
	}
}

func TestRunnerWithoutSystemd(t *testing.T) {
	r := &Runner{Systemd: systemd.Manager{Run: t.TempDir()}}
	report := r.After(t.Context(), &Plan{DaemonReload: []string{"x"}, Start: unitsOf("a.service")})
	if failed := report.Failed(); len(failed) != 2 || !strings.Contains(failed[1].Error, systemd.ErrNone.Error()) {
		t.Errorf("%v", failed)
	}
	if report := r.After(t.Context(), &Plan{}); len(report.Failed()) > 0 || len(report.Steps) != 0 {
		t.Errorf("nothing to do: %+v", report)
	}
}

func TestProgramThatSaysTooMuch(t *testing.T) {
	r := &Runner{}
	said, err := r.program(t.Context(), shell("x", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 1"))
	if len(said) != outputMax || !strings.HasSuffix(said, "line 2999\n") || err == nil || !strings.Contains(err.Error(), "line 2999") {
		t.Errorf("%d bytes, %v", len(said), err)
	}
	if _, err := r.program(t.Context(), Program{Path: "/nowhere/at/all"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.program(ctx, shell("x", "true")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestProgramOfAnotherRoot: what runs is the root's, and sees nothing else.
func TestProgramOfAnotherRoot(t *testing.T) {
	mounttest.NeedMounts(t)
	root := t.TempDir()
	must(t, unix.Mount("/", root, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	must(t, unix.Mount("tmpfs", filepath.Join(root, "mnt"), "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(root, "mnt"), unix.MNT_DETACH) })
	r := &Runner{Root: root}
	if said, err := r.program(t.Context(), shell("x", "echo inside > /mnt/aftercare-test")); err != nil {
		t.Errorf("%s, %v", said, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "mnt/aftercare-test")); err != nil || string(text) != "inside\n" {
		t.Errorf("%q, %v", text, err)
	}
}
