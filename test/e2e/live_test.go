package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/test/lab"
)

// TestLiveChanges takes a running node through attach, detach, update and rollback. What it runs changes beneath it,
// and what was changed locally stays.
func TestLiveChanges(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	first := s.status()
	if err := s.write("/etc/mine", "mine"); err != "" {
		t.Error(err)
	}
	p.Operator("assign", "web", "site").OK(t)

	u, code := s.change("update")
	if code != 0 || u.Outcome != change.WentLive || u.Generation != 2 || u.RootDigest != u.Expected {
		t.Fatalf("update: %+v, exit code %d, %+v", u, code, u.Plan)
	}
	if now := s.status(); now.Generation != 2 || now.RootDigest != u.RootDigest.String() || !now.InStep {
		t.Errorf("after an update: %+v", now)
	}
	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the app's page") {
		t.Errorf("the page: %q", page)
	}
	if !s.has("/usr/share/x") || s.read("/etc/mine") != "mine" {
		t.Error("what is new isn't there, or what was changed here is gone")
	}
	if u, code := s.change("detach", "site"); code != 0 || u.Outcome != change.WentLive || s.has("/usr/share/x") {
		t.Errorf("detach: %+v, exit code %d", u, code)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("after detach: %+v", now)
	}
	if u, code := s.change("attach", "site"); code != 0 || u.Outcome != change.WentLive || !s.has("/usr/share/x") {
		t.Errorf("attach: %+v, exit code %d", u, code)
	}
	if u, code := s.change("rollback", "1"); code != 0 || u.Outcome != change.WentLive || s.has("/usr/share/x") {
		t.Errorf("rollback: %+v, exit code %d", u, code)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep || s.read("/etc/mine") != "mine" {
		t.Errorf("after a rollback: %+v", now)
	}
	s.exit()
}

// TestASandboxChangesNothing: from another mount namespace than the machine's no change is made, which would be mounted there alone, and
// none is brought to its end; the machine itself goes on as ever, also once its root was changed.
func TestASandboxChangesNothing(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Operator("assign", "web", "site").OK(t)
	for range 2 {
		first, before := s.status(), n.records()
		for _, args := range [][]string{{"update"}, {"update", "--dry-run"}, {"update", "--stage"}, {"attach", "site"}, {"detach", "app"}, {"rollback"}, {"sync"}, {"gc"}} {
			s.sandboxed(args...).Refused(t, 3, "mount namespace of its own", "nsenter --target 1 --mount")
		}
		n.sameRecords(before)
		if now := s.status(); !reflect.DeepEqual(now, first) {
			t.Errorf("a sandbox changed the machine: %+v, and before %+v", now, first)
		}
		// What can't be read wants to be removed, which is a change, too.
		if err := s.write(filepath.Join(boot.RunDir, change.ConfirmName), "x"); err != "" {
			t.Fatal(err)
		}
		s.sandboxed("finish").Refused(t, 3, "mount namespace of its own")
		if u, code := s.change("update"); code != 0 || !s.has("/usr/share/x") || s.has(filepath.Join(boot.RunDir, change.ConfirmName)) {
			t.Errorf("the machine itself: exit code %d, %+v", code, u)
		}
	}
	s.exit()
}

// everything is the node's whole disk but for its locks, the records of this boot, and what is mounted inside, as text.
func (s *system) everything() string {
	s.t.Helper()
	var all []string
	err := filepath.WalkDir(s.state(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := path + " " + info.Mode().String() + " " + info.ModTime().String()
		if e.Type().IsRegular() && info.Size() < 1<<20 {
			sum := sha256.Sum256(read(s.t, path))
			line += " " + hex.EncodeToString(sum[:])
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(append(all, s.ofTheBoot(boot.RunDir)...), "\n") + s.read("/proc/self/mountinfo")
}

// ofTheBoot is what is below the directory of this boot, with the content of what is small; mounts are in another table.
func (s *system) ofTheBoot(dir string) []string {
	s.t.Helper()
	names := strings.Fields(s.do("list", "", dir).Stdout)
	slices.Sort(names)
	var all []string
	for _, name := range names {
		path := filepath.Join(dir, name)
		a := s.do("read", "", path)
		switch {
		case name == "bin", strings.HasPrefix(name, "upper"): // the programs, and the writable layer
			all = append(all, path)
		case a.Error != "":
			all = append(append(all, path+": "+a.Error), s.ofTheBoot(path)...)
		default:
			sum := sha256.Sum256([]byte(a.Stdout))
			all = append(all, path+" "+hex.EncodeToString(sum[:]))
		}
	}
	return all
}

// TestDryRunsChangeNothing on the disk, in what is mounted, or at the platform; and say what the change then does.
func TestDryRunsChangeNothing(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Operator("assign", "web", "site").OK(t)
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive {
		t.Fatalf("exit code %d, %+v", code, u)
	}
	p.Publish(app("2"), "--priority", "7")
	for _, args := range [][]string{
		{"update"}, {"detach", "site"}, {"rollback", "1"}, {"rollback"}, {"attach", "app"}, {"attach", p.Listen + "/modules/app:2"}, {"update", "--stage"},
	} {
		before, seen := s.everything(), n.detail()
		if !strings.Contains(before, filepath.Join(boot.RunDir, boot.FactsName)) {
			t.Fatal("the records of the boot aren't looked at")
		}
		dry, code := s.change(append(args, "--dry-run", "--files")...)
		if code != 0 || !dry.DryRun || dry.Plan == nil || dry.Generation != 0 || len(dry.Plan.Files.List) != dry.Plan.Files.Total() {
			t.Errorf("%v: exit code %d, %+v", args, code, dry)
		}
		if now := s.everything(); now != before {
			t.Errorf("%v --dry-run changed something: %s", args, cmp.Diff(strings.Split(before, "\n"), strings.Split(now, "\n")))
		}
		if now := n.detail(); !reflect.DeepEqual(now.Node.Report, seen.Node.Report) {
			t.Errorf("%v --dry-run told the platform: %+v", args, now)
		}
	}
	dry, _ := s.change("update", "--dry-run")
	u, code := s.change("update")
	if code != 0 || u.RootDigest != dry.RootDigest || u.Plan.Files.Counts != dry.Plan.Files.Counts || dry.Plan.PullBytes == 0 || u.Outcome != change.WentLive {
		t.Errorf("dry %+v, then %+v", dry, u)
	}
	won := false
	for _, c := range dry.Plan.Contested {
		won = won || c.Path == "/etc/app/page" && c.Winner == "app" && c.Decided && strings.Contains(c.Reason, "priority")
	}
	if !won {
		t.Errorf("contested: %+v", dry.Plan.Contested)
	}
	s.exit()
}

// TestWhatIsChangedHereStays: a local change of a file that a new version changes too is told of, and stays.
func TestWhatIsChangedHereStays(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	if err := s.write("/etc/app/page", "my page"); err != "" {
		t.Fatal(err)
	}
	p.Publish(app("2"))
	u, code := s.change("update")
	if code != 0 || u.Outcome != change.WentLive || len(u.Plan.Conflicts) != 1 || u.Plan.Conflicts[0].Path != "/etc/app/page" {
		t.Errorf("exit code %d, %+v, %+v", code, u, u.Plan)
	}
	if page := s.read("/etc/app/page"); page != "my page" {
		t.Errorf("the page: %q", page)
	}
	// Unless it is to be replaced: a dry run names what would be, and the module's own page is there then.
	p.Publish(app("3"))
	dry, code := s.change("update", "--local-changes", "replace", "--dry-run")
	if code != 0 || dry.Outcome != change.WouldGoLive || len(dry.Plan.Conflicts) != 1 || !dry.Plan.Conflicts[0].Replaced || s.read("/etc/app/page") != "my page" {
		t.Errorf("exit code %d, %+v, %+v", code, dry, dry.Plan)
	}
	u, code = s.change("update", "--local-changes", "replace")
	if code != 0 || u.Outcome != change.WentLive || len(u.Plan.Conflicts) != 1 || !u.Plan.Conflicts[0].Replaced {
		t.Errorf("exit code %d, %+v, %+v", code, u, u.Plan)
	}
	if page := s.read("/etc/app/page"); page == "my page" || !strings.Contains(page, "3") {
		t.Errorf("the page: %q", page)
	}
	s.exit()
}

// TestGuards: nothing is taken from a node by a slip of the hand, and no module goes lower than it was.
func TestGuards(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("2"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	p.Operator("unassign", "web", "app", "site").OK(t)
	s.agent("update").Refused(t, 6, "2 of 3 modules", "--remove-most")
	s.agent("detach", "app", "site").Refused(t, 6, "2 of 3 modules", "--remove-most")
	if now := s.status(); now.Generation != 1 || now.InStep || len(now.Reasons) != 1 || !strings.Contains(now.Reasons[0], "2 of 3 modules") {
		t.Errorf("%+v", now)
	}
	if u, code := s.change("update", "--remove-most"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 2 {
		t.Errorf("exit code %d, %+v", code, u)
	}
	p.Operator("assign", "web", "app").OK(t)
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive {
		t.Errorf("exit code %d, %+v", code, u)
	}
	p.Publish(app("1"))
	u, code := s.change("update")
	if code != 8 || u.Outcome != change.InStep || len(u.Failed) != 1 || u.Failed[0].Kept != "2" || !strings.Contains(u.Failed[0].Reason, "older than 2") {
		t.Errorf("a lower version: exit code %d, %+v", code, u)
	}
	if u, code := s.change("update", "--allow-downgrade"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 || u.Changes[0].To != "1" {
		t.Errorf("it is meant: exit code %d, %+v", code, u)
	}

	// The same by the operator's word.
	p.Publish(app("0.9"))
	if _, code := s.change("update"); code != 8 {
		t.Errorf("a lower version once more: exit code %d", code)
	}
	p.Operator("assign", "web", "app", "--allow-downgrade").OK(t)
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 || u.Changes[0].To != "0.9" {
		t.Errorf("the operator means it: exit code %d, %+v", code, u)
	}
	p.Operator("assign", "web", "site").OK(t)
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive {
		t.Errorf("exit code %d, %+v", code, u)
	}
	p.Operator("unassign", "web", "app", "site", "--remove-most").OK(t)
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 2 {
		t.Errorf("the operator means it: exit code %d, %+v", code, u)
	}
	s.exit()
}

// TestLiveWithOneBadModule: the good ones go live, the bad one stays, and the exit code says so.
func TestLiveWithOneBadModule(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	p.Publish(app("2"), "--key", lab.ForeignKey(t)+".key")
	intruder := site("2")
	intruder.Files["usr/lib/powernode/modules/base/extra"] = "not mine"
	p.Publish(intruder)
	newer := mod{Name: "tool", Version: "1", Files: map[string]string{"usr/lib/tool": "tool"}}
	p.Publish(newer)
	p.Operator("assign", "web", "tool").OK(t)
	u, code := s.change("update")
	if code != 8 || u.Outcome != change.WentLive || len(u.Failed) != 2 || len(u.Changes) != 1 || u.Changes[0].Name != "tool" || !s.has("/usr/lib/tool") {
		t.Errorf("exit code %d, %+v", code, u)
	}
	// The reasons are in the next heartbeat, where an operator sees them.
	remarks := strings.Join(s.report().Report.Remarks, "\n")
	for _, f := range u.Failed {
		if want := fmt.Sprintf("module %s %s can't be used: %s", f.Name, f.Version, f.Reason); !strings.Contains(remarks, want) || f.Kept != "" && !strings.Contains(remarks, "version "+f.Kept+" stays") {
			t.Errorf("the platform hears %q, and not %q", remarks, want)
		}
	}
	if shown := p.Operator("node", "show", "web").OK(t); !strings.Contains(shown, "can't be used") {
		t.Errorf("an operator sees nothing of it:\n%s", shown)
	}
	s.exit()
}

// TestConfirmWindow: a change after which the platform isn't reached is taken back: by the command, or by the next one where
// that was killed.
func TestConfirmWindow(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	first := s.status()
	if u, code := s.change("detach", "site", "--confirm", "60s"); code != 0 || u.Outcome != change.WentLive || !u.ConfirmBy.IsZero() {
		t.Errorf("the platform is there: exit code %d, %+v", code, u)
	}
	if u, code := s.change("attach", "site"); code != 0 || u.Outcome != change.WentLive {
		t.Errorf("exit code %d, %+v", code, u)
	}
	p.Stop()
	u, code := s.change("detach", "site", "--confirm", "1s")
	if code != 8 || u.Outcome != change.TakenBack || !s.has("/usr/share/x") {
		t.Errorf("the platform is gone: exit code %d, %+v", code, u)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("%+v", now)
	}

	// Long enough that this test sees it wait, however late it looks.
	s.do("start", "", "detach", boot.AgentPath, "detach", "site", "--confirm", "15s")
	until(t, "the change waits to be confirmed", func() bool {
		return strings.Contains(s.do("list", "", boot.RunDir).Stdout, "confirm.json") && !s.has("/usr/share/x")
	})
	s.killChild("detach")
	if r := s.agent("update"); r.Code != 5 {
		t.Errorf("%+v", r) // the platform is gone, but what waits for it is no matter of the platform's
	}
	until(t, "it is taken back", func() bool {
		s.agent("update")
		return s.has("/usr/share/x")
	})
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("after a kill: %+v", now)
	}
	s.exit()
}

// killChild kills a program that the system's init has started, by its number on this machine.
func (s *system) killChild(arg string) {
	s.t.Helper()
	if pid := s.child(arg); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatal(err)
		}
	}
	s.do("stop", "", arg)
}

// TestKilledChanges: whenever a change is killed, the next command finds the old root or the new one, whole, and goes on.
func TestKilledChanges(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	with := s.status().RootDigest
	begun := time.Now()
	if u, code := s.change("detach", "site"); code != 0 {
		t.Fatal(u, code)
	}
	took := time.Since(begun)
	without := s.status().RootDigest
	seed := uint64(envNumber(t, "POWERNODE_E2E_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Logf("POWERNODE_E2E_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range envNumber(t, "POWERNODE_E2E_KILLS", 12) {
		arg := []string{"attach", "detach"}[i%2]
		s.do("start", "", arg, boot.AgentPath, arg, "site")
		time.Sleep(time.Duration(random.Int64N(int64(took * 3 / 2))))
		s.killChild(arg)
		u, code := s.change("update")
		if code != 0 || u.Outcome != change.InStep {
			t.Fatalf("after a kill: exit code %d, %+v", code, u)
		}
		now := s.status()
		if !now.InStep || now.RootDigest != with && now.RootDigest != without || (now.RootDigest == with) != s.has("/usr/share/x") {
			t.Fatalf("after a kill: %+v", now)
		}
	}
	s.exit()
}

// TestWordsOutlastABoot: what was attached, detached and rolled back stays so when the node boots, with the platform in reach.
func TestWordsOutlastABoot(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	if u, code := s.change("detach", "site"); code != 0 || u.Outcome != change.WentLive {
		t.Fatalf("exit code %d, %+v", code, u)
	}
	// A version of one's own choice.
	u, code := s.change("attach", p.Listen+"/modules/app:1")
	if code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 || u.Changes[0].Origin != reconcile.Here {
		t.Fatalf("exit code %d, %+v", code, u)
	}
	p.Publish(app("2"))
	s.exit()

	s = n.boot()
	if now := s.status(); now.RootDigest != u.RootDigest.String() || !now.InStep || len(now.Modules) != 2 || s.has("/usr/share/x") {
		t.Errorf("after a boot: %+v", now)
	}
	if u, code := s.change("update"); code != 0 || u.Outcome != change.InStep || len(u.Detached) != 1 || len(u.Remarks) != 1 {
		t.Errorf("exit code %d, %+v", code, u)
	}
	if seen := s.report(); seen.Report.RootDigest != u.RootDigest.String() {
		t.Errorf("the operator sees %+v", seen)
	}
	if u, code := s.change("attach", "app"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 || u.Changes[0].To != "2" {
		t.Fatalf("exit code %d, %+v", code, u)
	}
	second := s.status()
	p.Publish(app("3"))
	if u, code := s.change("update"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 {
		t.Fatalf("exit code %d, %+v", code, u)
	}
	back, code := s.change("rollback", fmt.Sprint(second.Generation), "--stage")
	if code != 0 || back.Outcome != change.Staged || len(back.Changes) != 1 || back.Changes[0].To != "2" || back.RootDigest.String() != second.RootDigest {
		t.Fatalf("exit code %d, %+v", code, back)
	}
	s.exit()

	s = n.boot()
	if now := s.status(); now.RootDigest != second.RootDigest {
		t.Errorf("after a staged rollback and a boot: %+v, want root %s\n%s", now, second.RootDigest, s.console())
	}
	s.agent("update").Refused(t, 6, "somebody went back from it", "--retry")
	if u, code := s.change("update", "--retry"); code != 0 || u.Outcome != change.WentLive || len(u.Changes) != 1 {
		t.Errorf("exit code %d, %+v", code, u)
	}
	s.exit()
}
