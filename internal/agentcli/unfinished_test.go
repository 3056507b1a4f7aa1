package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
)

// aNode is a system that runs the last of so many generations, as far as its records tell.
type aNode struct {
	t                testing.TB
	root, run, state string
	runs             uint64
}

func newANode(t testing.TB, state string, runs uint64) *aNode {
	t.Helper()
	n := &aNode{t: t, root: t.TempDir(), state: state, runs: runs}
	n.run = filepath.Join(n.root, boot.RunDir)
	if err := os.MkdirAll(n.run, 0o700); err != nil {
		t.Fatal(err)
	}
	n.put(boot.FactsName, map[string]any{"generation": runs, "state_dir": state})
	return n
}

func (n *aNode) put(name string, v any) {
	n.t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.run, name), text, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// mounted has its root be a mount, and the one of its boot.
func (n *aNode) mounted() mount.ID {
	n.t.Helper()
	mounttest.NeedMounts(n.t)
	if err := unix.Mount(n.root, n.root, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := unix.Unmount(n.root, unix.MNT_DETACH); err != nil {
			n.t.Error(err)
		}
	})
	root, err := mount.At(n.root)
	if err != nil {
		n.t.Fatal(err)
	}
	n.put(boot.FactsName, map[string]any{"generation": n.runs, "state_dir": n.state, "mount": root.ID})
	return root.ID
}

// waits has a generation wait for its confirmation.
func (n *aNode) waits(generation uint64, left time.Duration) {
	n.t.Helper()
	n.put(change.ConfirmName, map[string]any{
		"generation": generation, "back_to_generation": generation - 1, "local_before": map[string]any{}, "deadline_uptime_ns": health.Uptime() + left,
	})
}

func (n *aNode) has(name string) bool {
	_, err := os.Stat(filepath.Join(n.run, name))
	return err == nil
}

// aSystemd runs programs as it is told to.
type aSystemd struct {
	ran []systemd.Program
	do  func(systemd.Program) (int, error)
}

func (s *aSystemd) RunOnce(_ context.Context, p systemd.Program, _ time.Duration) (int, error) {
	s.ran = append(s.ran, p)
	return s.do(p)
}

// aPlatform answers, or doesn't.
type aPlatform struct{ err error }

func (p *aPlatform) Modules(context.Context) (*nodeapi.ModuleList, error) {
	return &nodeapi.ModuleList{}, p.err
}

// TestUnfinished: what the service does about changes that nobody looks after, and when it leaves them alone.
func TestUnfinished(t *testing.T) {
	n := newANode(t, pastOf(t, 3), 3)
	manager, platform := &aSystemd{}, &aPlatform{}
	var log strings.Builder
	here := 0
	u := newUnfinished(n.state, &nodePlatform{}, slog.New(slog.NewTextHandler(&log, nil)))
	u.root, u.systemd, u.platform = n.root, manager, platform
	u.here = func(context.Context, string) (finishDoc, error) {
		here++
		return finishDoc{Done: []string{"done here"}}, nil
	}
	look := func() error {
		t.Helper()
		done, err := u.look(t.Context())
		if done {
			t.Error("it never looks again")
		}
		return err
	}
	manager.do = func(systemd.Program) (int, error) { return 0, errors.New("not to be asked") }
	if err := look(); err != nil {
		t.Errorf("nothing is left: %v", err)
	}

	n.put(change.JournalName, map[string]any{})
	lock, err := reconcile.Lock(n.state)
	if err != nil {
		t.Fatal(err)
	}
	if err := look(); err != nil || len(manager.ran) > 0 {
		t.Errorf("somebody is at work: %v, %+v", err, manager.ran)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}

	manager.do = func(p systemd.Program) (int, error) {
		// The command takes the lock that the service had.
		free, err := reconcile.Lock(n.state)
		if err != nil {
			return 1, err
		}
		return 0, errors.Join(free.Unlock(), os.WriteFile(p.Output, []byte(`{"done":["the change is taken back"]}`), 0o600))
	}
	if err := look(); err != nil || !strings.Contains(log.String(), `level=WARN msg="the change is taken back"`) {
		t.Errorf("%v, the log says %s", err, log.String())
	}
	want := systemd.Program{
		Unit: "powernode-agent-finish.service", Description: "Powernode agent: finish", Output: filepath.Join(n.run, "finish.answer.json"),
		Args: []string{boot.AgentPath, "finish", "--state", n.state, "--output", "json"},
	}
	if len(manager.ran) != 1 || fmt.Sprint(manager.ran[0]) != fmt.Sprint(want) {
		t.Errorf("%+v", manager.ran)
	}

	manager.do = func(systemd.Program) (int, error) { return 0, fmt.Errorf("x: %w", systemd.ErrNone) }
	if err := look(); err != nil || here != 1 || !strings.Contains(log.String(), "done here") {
		t.Errorf("without systemd: %v, %d times here", err, here)
	}
	manager.do = func(systemd.Program) (int, error) { return 0, fmt.Errorf("x: %w", systemd.ErrRuns) }
	if err := look(); err != nil || here != 1 {
		t.Errorf("it runs already: %v", err)
	}
	for _, c := range []struct {
		prints string
		told   bool
	}{{"", false}, {`{"done":["it was`, false}, {`{"done":["it was at work"],"undone":["run ldconfig"]}`, true}} {
		if err := os.WriteFile(filepath.Join(n.run, "finish.answer.json"), []byte(c.prints), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := look(); err != nil || strings.Contains(log.String(), `msg="it was at work"`) != c.told || strings.Contains(log.String(), `msg="done in part: run ldconfig"`) != c.told {
			t.Errorf("it has printed %q: %v, the log says %s", c.prints, err, log.String())
		}
	}
	if n.has("finish.answer.json") {
		t.Error("an answer that was read is told again")
	}

	manager.do = func(p systemd.Program) (int, error) {
		return cli.ExitPartial, os.WriteFile(p.Output, []byte(`{"done":["x"],"undone":["unit y doesn't work"]}`), 0o600)
	}
	if err := look(); err != nil || !strings.Contains(log.String(), "done in part: unit y doesn't work") {
		t.Errorf("done in part: %v, the log says %s", err, log.String())
	}
	manager.do = func(systemd.Program) (int, error) { return 3, nil }
	failed := time.Now().Add(finishPause)
	if err := look(); fault.HintOf(err) != "journalctl -u powernode-agent-finish.service" || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("it fails: %v", err)
	}
	ran := len(manager.ran)
	if time.Until(u.after) > finishPause || u.after.Before(failed) {
		t.Errorf("what failed is tried again in %s", time.Until(u.after))
	}
	u.after = u.after.Add(time.Hour) // else a slow machine looks too late
	if err := look(); err != nil || len(manager.ran) != ran || u.pause != finishPause {
		t.Errorf("what failed is tried again at once: %v, after %s", err, u.pause)
	}
	for range 10 {
		u.after = time.Time{}
		_ = look()
	}
	if u.pause != finishPauseMax {
		t.Errorf("after many failures it waits for %s", u.pause)
	}
}

// TestUnfinishedWaits: the service confirms what waits, once the platform itself answers, and only what runs; when the time is over it has it
// taken back without asking.
func TestUnfinishedWaits(t *testing.T) {
	n := newANode(t, pastOf(t, 3), 3)
	manager, platform := &aSystemd{}, &aPlatform{fault.New(fault.Refuse, fault.Platform, "", "another CA")}
	manager.do = func(p systemd.Program) (int, error) {
		return 0, errors.Join(os.Remove(filepath.Join(n.run, change.ConfirmName)), os.WriteFile(p.Output, []byte("{}"), 0o600))
	}
	u := newUnfinished(n.state, &nodePlatform{}, slog.New(slog.DiscardHandler))
	u.root, u.systemd, u.platform = n.root, manager, platform
	look := func(when string, waits bool, ran int) {
		t.Helper()
		if _, err := u.look(t.Context()); err != nil || n.has(change.ConfirmName) != waits || len(manager.ran) != ran {
			t.Errorf("%s: %v; waits: %t; %d programs", when, err, n.has(change.ConfirmName), len(manager.ran))
		}
	}
	n.waits(3, time.Hour)
	look("somebody else answers", true, 0)
	platform.err = nil
	look("the platform answers", false, 0)
	n.waits(2, time.Hour)
	look("what waits doesn't run", false, 0)
	n.waits(3, -time.Second)
	look("the time is over", false, 1)
}

// TestFinishWithoutDevices: what was interrupted is brought to its end where no image could be mounted, and without a trust policy.
func TestFinishWithoutDevices(t *testing.T) {
	n := newANode(t, pastOf(t, 3), 3)
	if err := os.Symlink("/proc", filepath.Join(n.root, "proc")); err != nil {
		t.Fatal(err)
	}
	root := n.mounted()
	n.put(change.JournalName, map[string]any{"from_generation": 3, "to_generation": 9, "root": root, "before": map[string]any{"local": map[string]any{}}})
	st, err := store.Open(n.state, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	doc, err := interrupted(t.Context(), n.root, st)
	if err != nil || len(doc.Done) != 1 || !strings.Contains(doc.Done[0], "taken back: generation 3 runs") || len(doc.Undone) != 1 || n.has(change.JournalName) {
		t.Errorf("%+v, %v", doc, err)
	}
}

// TestPrivilegedAnswers: what a command prints is read where it did something, and nothing else.
func TestPrivilegedAnswers(t *testing.T) {
	run := t.TempDir()
	for _, c := range []struct {
		code   int
		prints string
		want   []string
		fails  bool
	}{
		{0, `{"done":["a"]}`, []string{"a"}, false},
		{8, `{"done":["b"]}`, []string{"b"}, false},
		{5, ``, nil, false},
		{0, ``, nil, true},
		{0, `[`, nil, true},
	} {
		p := privileged{runDir: run, systemd: &aSystemd{do: func(p systemd.Program) (int, error) {
			return c.code, os.WriteFile(p.Output, []byte(c.prints), 0o600)
		}}}
		var doc finishDoc
		code, err := p.run(t.Context(), "task", time.Minute, &doc, "attach", "x")
		if code != c.code || (err != nil) != c.fails || !slices.Equal(doc.Done, c.want) {
			t.Errorf("%d %q: %d, %v, %q", c.code, c.prints, code, err, doc.Done)
		}
	}
}

// TestGCWaits: nothing goes, and no version is written down, while it isn't sure that what runs stays.
func TestGCWaits(t *testing.T) {
	n := newANode(t, pastOf(t, 9), 9)
	if err := os.Symlink("/proc", filepath.Join(n.root, "proc")); err != nil {
		t.Fatal(err)
	}
	n.mounted()
	collect := func() error {
		_, err := gc(t.Context(), n.root, n.state, retain.Options{Now: time.Now(), Newest: 1}, false)
		return err
	}
	n.waits(9, time.Hour)
	if err := collect(); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "generation 9 isn't confirmed yet") {
		t.Errorf("in a window: %v", err)
	}
	n.waits(8, time.Hour)
	n.put(change.JournalName, map[string]any{})
	if err := collect(); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("after a kill: %v", err)
	}
	if err := os.Remove(filepath.Join(n.run, change.JournalName)); err != nil {
		t.Fatal(err)
	}
	if err := collect(); err != nil {
		t.Errorf("what waits doesn't run: %v", err)
	}
}

// TestAfter: what was done before an error is told with it, and the error is what it was.
func TestAfter(t *testing.T) {
	cause := fault.New(fault.Refuse, fault.Policy, "do it", "no")
	if err := after(nil, cause); !errors.Is(err, cause) || err.Error() != "no" {
		t.Errorf("%v", err)
	}
	err := after([]string{"a change was interrupted", "generation 2 runs"}, cause)
	if fault.AreaOf(err) != fault.Policy || fault.HintOf(err) != "do it" || err.Error() != "no (before that: a change was interrupted; generation 2 runs)" {
		t.Errorf("%v", err)
	}
}
