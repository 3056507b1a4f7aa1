package vm

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// killFile is where the agent of these tests looks for what is to end it (internal/durable).
const killFile = "/run/test.kill"

// TestLiveKills ends a live change at labelled steps: the command alone, as by kill -9, after which the service brings the
// running system to the old or the new generation, whole; or the whole machine, whose next boot does.
// POWERNODE_VM_KILLS is how many kills, with half as many cuts, POWERNODE_VM_SEED which ones; "writes" is both at each step.
func TestLiveKills(t *testing.T) {
	whole(t)
	s := newSiege(t)
	kills := number(t, "POWERNODE_VM_KILLS", 6)
	v := s.victim(false)
	g := v.power("")
	g.WaitInit()
	v.good(g) // the service goes on
	v.whole(g, v.newest())

	begun := time.Now()
	v.live(g, "record")
	v.took = time.Since(begun)
	points := slices.DeleteFunc(firsts(points(g)), func(p string) bool { return !strings.HasPrefix(p, "update/") })
	t.Logf("%d labelled steps of an update: %q", len(points), points)
	defer func() {
		t.Logf("%d kills and power cuts in %d boots: %v; labels that weren't reached: %q", s.total(), s.boots, s.killed, s.missed)
	}()
	// The first steps are those of a pull, of which TestPowerCuts has enough.
	if at := slices.IndexFunc(points, func(p string) bool { return strings.Contains(p, "change") }); at > 0 {
		points = points[at:]
	}
	l, cuts := labelled{update: slices.Clone(points)}, kills/2
	if os.Getenv("POWERNODE_VM_KILLS") == eachWrite {
		kills, cuts = len(points), len(points)
	}
	for _, p := range l.some(s, &l.update, kills) {
		v.killedAlone(g, p)
		if t.Failed() {
			return
		}
	}
	if len(l.update) < cuts {
		l.update = points
	}
	for _, p := range l.some(s, &l.update, cuts) {
		v.cutLive(g, p)
		if t.Failed() {
			return
		}
	}
	for range 2 {
		v.cutLive(g, "")
	}
	g.PowerOff()
	qemu.Check(t, v.n.disk)
}

// live publishes a new version and has the running system change to it, with a word for the agent that does.
// It reports whether the machine is still on, and how the command ended.
func (v *victim) live(s *system, wish string) (qemu.Answer, bool) {
	v.t.Helper()
	v.publish()
	if wish != "" {
		if got := s.Write(killFile, wish); got != "" {
			v.t.Fatal(got)
		}
	}
	a, on := s.Try(qemu.Request{Op: "run", Args: []string{boot.AgentPath, "update"}})
	if on && wish != "" {
		if r := s.Do(qemu.Request{Op: "remove", Args: []string{killFile}}); r.Error != "" {
			v.t.Fatal(r.Error)
		}
	}
	return a, on
}

// killedAlone ends an update at a labelled step, and checks what the service makes of it.
func (v *victim) killedAlone(s *system, point string) {
	v.t.Helper()
	old := v.newest()
	a, on := v.live(s, "kill "+point)
	switch {
	case !on:
		v.t.Fatalf("the machine ended:\n%s", s.Console())
	case a.Code == 0:
		v.missed = append(v.missed, point)
	case a.Code != -1: // a signal
		v.t.Fatalf("%s: exit code %d\n%s%s", point, a.Code, a.Stdout, a.Stderr)
	default:
		v.killed["command"]++
	}
	runs := v.finished(s)
	if runs != old && runs != v.newest() {
		v.t.Errorf("killed at %s: version %q runs\n%s", point, runs, s.Console())
	}
	v.t.Logf("killed at %s: version %s runs, that was %s to be %s", point, runs, old, v.newest())
	// What was killed can be done again.
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		r := s.agent("update")
		if r.Code == 0 {
			break
		}
		if time.Now().After(deadline) || !strings.Contains(r.Stderr, "only one change at a time") {
			v.t.Fatalf("after a kill at %s: exit code %d\n%s%s", point, r.Code, r.Stdout, r.Stderr)
		}
	}
	v.now(s, v.newest())
}

// finished waits until nothing is left of a change, and returns the version that runs.
func (v *victim) finished(s *system) string {
	v.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		left := strings.Fields(s.Do(qemu.Request{Op: "list", Args: []string{boot.RunDir}}).Stdout)
		if !slices.Contains(left, change.JournalName) && !slices.Contains(left, live.JournalName) {
			break
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("the service doesn't finish what was left: %q\n%s", left, s.Read("/run/service.log"))
		}
	}
	text := s.Read(page)
	for _, version := range []string{v.newest(), v.before()} {
		if text == pageText(version) {
			v.now(s, version)
			return version
		}
	}
	v.t.Fatalf("the page is %.60q", text)
	return ""
}

// before is the version of the app that was published before the last one.
func (s *siege) before() string {
	s.app--
	defer func() { s.app++ }()
	return s.newest()
}

// now checks that this version runs, by what is mounted and by what status says.
func (v *victim) now(s *system, version string) {
	v.t.Helper()
	r := s.agent("status", "--check", "--output", "json")
	var doc statusDoc
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 {
		v.t.Errorf("status --check: exit code %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	runs := ""
	for _, m := range doc.Modules {
		if m.Name == "app" {
			runs = m.Version
		}
	}
	if runs != version || doc.Level != "enforced" {
		v.t.Errorf("status says that version %q runs at level %s, and the page is that of %s", runs, doc.Level, version)
	}
	if root := v.roots[version]; root != "" && root != doc.RootDigest {
		v.t.Errorf("version %s has the root %s, and had %s", version, doc.RootDigest, root)
	}
	v.roots[version] = doc.RootDigest
	if got := s.Read(page); got != pageText(version) {
		v.t.Errorf("the page is %.60q, want that of version %s", got, version)
	}
}

// cutLive cuts the power in the middle of an update: at a labelled step, or at any time.
func (v *victim) cutLive(s *system, point string) {
	v.t.Helper()
	if point == "" {
		v.publish()
		v.begin(s, "update")
		time.Sleep(v.within(v.took))
		v.cut(s, "sometime")
	} else {
		a, on := v.live(s, point)
		if on && a.Code == 0 {
			v.missed = append(v.missed, point)
			return
		}
		if on {
			v.t.Fatalf("%s: exit code %d, and the machine is on\n%s%s", point, a.Code, a.Stdout, a.Stderr)
		}
		v.wasKilledAt(s, point)
	}
	*s = *v.power("")
	s.WaitInit()
	// The boot brings what is to run, unless it can tell that it was begun.
	v.good(s)
	v.now(s, v.newest())
}
