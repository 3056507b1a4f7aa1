package vm

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// succeeds calls exit(0).
var succeeds = machineCode([]byte{0xb8, 60, 0, 0, 0, 0xbf, 0, 0, 0, 0, 0x0f, 0x05})

// liveText is what a version's files hold: an object each, with more than one line.
func liveText(name, version string) string {
	return strings.Repeat(version+" is the version of "+name+"\n", 400)
}

// liveApp is a module whose every version differs in /usr, /etc and /opt, and that has what `init load` uses.
func liveApp(version string) lab.Module {
	m := lab.Module{
		Name: "app", Version: version, Programs: map[string][]byte{},
		Files: map[string]string{
			strings.TrimPrefix(page, "/"): pageText(version),
			"etc/app.conf":                liveText("the configuration", version),
			"usr/share/app/changed":       liveText("what is changed locally", version),
			"usr/share/app/mode":          liveText("what gets another mode", version),
			"usr/share/app/dir/inner":     liveText("what gets another place", version),
		},
	}
	for _, dir := range []string{"usr/share/load", "opt/load"} {
		m.Files[dir+"/page"], m.Files[dir+"/twin"] = liveText("the page", version), liveText("the page", version)
		m.Programs[dir+"/true"] = succeeds
	}
	return m
}

// site is a module with a service, which says when it starts.
func site(version string) lab.Module {
	return lab.Module{
		Name: "site", Version: version,
		Manifest: "services:\n  - name: serve\n    start_command: /usr/lib/site/serve\n",
		Files:    map[string]string{"usr/share/site/page": liveText("the site", version)},
		Programs: map[string][]byte{"usr/lib/site/serve": []byte("#!/bin/sh\n# version " + version + "\necho " + version + " >>/run/site.starts\nexec sleep infinity\n")},
	}
}

// private is a module with a unit of its own that has a mount namespace of its own.
func private() lab.Module {
	const units = "usr/lib/systemd/system/"
	return lab.Module{Name: "private", Version: "1", Files: map[string]string{
		units + "private.service":                         "[Unit]\nDescription=Sees its own /tmp\n[Service]\nExecStart=/bin/sleep infinity\nPrivateTmp=yes\n",
		units + "multi-user.target.wants/private.service": "-> ../private.service",
	}}
}

// changeDoc is the part of what a changing command prints that tests look at.
type changeDoc struct {
	Outcome    change.Outcome
	Generation uint64
	Plan       *struct {
		Files     struct{ Added, Changed, Removed int }
		Conflicts []struct{ Path string } `json:"local_conflicts"`
	}
	Remarks []string
}

// changed runs a changing command inside, and returns what became of it.
func (s *system) changed(args ...string) (changeDoc, lab.Result) {
	s.n.t.Helper()
	r := s.agent(append(args, "--output", "json")...)
	var doc changeDoc
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		s.n.t.Fatalf("%s: exit code %d, %v\n%s%s", r.What, r.Code, err, r.Stdout, r.Stderr)
	}
	return doc, r
}

// goesLive is changed for what has to go live, as this generation.
func (s *system) goesLive(generation uint64, args ...string) changeDoc {
	s.n.t.Helper()
	doc, r := s.changed(args...)
	if r.Code != 0 || doc.Outcome != change.WentLive || doc.Generation != generation {
		s.n.t.Fatalf("%s: exit code %d\n%s%s", r.What, r.Code, r.Stdout, r.Stderr)
	}
	s.n.t.Logf("%s: generation %d, %+v, remarks %q", r.What, doc.Generation, doc.Plan.Files, doc.Remarks)
	return doc
}

// holds checks a file's content.
func (s *system) holds(path, content string) {
	s.n.t.Helper()
	if a := s.Do(qemu.Request{Op: "read", Args: []string{path}}); a.Error != "" || a.Stdout != content {
		s.n.t.Errorf("%s: %s, %.60q instead of %.60q", path, a.Error, a.Stdout, content)
	}
}

// inStep checks that the node and its platform agree about what runs.
func (s *system) inStep() statusDoc {
	s.n.t.Helper()
	r := s.agent("status", "--output", "json")
	var doc statusDoc
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 || !doc.InStep || doc.Level != "enforced" {
		s.n.t.Errorf("%s: exit code %d, %v\n%s", r.What, r.Code, err, r.Stdout)
	}
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		d := s.n.detail()
		if d.Node.Report != nil && d.Node.Report.RootDigest == doc.RootDigest && d.Node.ExpectedRootDigest == doc.RootDigest && d.Node.InStep {
			return doc
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("root %s runs, and the platform knows %+v", doc.RootDigest, d.Node)
		}
	}
}

// loadReport is what `init load` prints.
type loadReport struct {
	Rounds   map[string]int
	Failures []string
	Seen     []string
	Lines    map[string]int
}

// load begins to use /usr/share/load and /opt/load in tight loops; init is where the tests' init is inside.
func (s *system) load(init string) {
	s.n.t.Helper()
	if a := s.Do(qemu.Request{Op: "start", Args: []string{"load", init, "load", "/opt/load/log", "/usr/share/load", "/opt/load"}}); a.Error != "" {
		s.n.t.Fatal(a.Error)
	}
}

// unload ends that, and checks that nothing failed and that these versions were seen.
func (s *system) unload(versions ...string) {
	s.n.t.Helper()
	a := s.Do(qemu.Request{Op: "stop", Args: []string{"load"}})
	var r loadReport
	if err := json.Unmarshal([]byte(a.Stderr), &r); err != nil || a.Code != 0 || a.Error != "" {
		s.n.t.Fatalf("the load ends with %d %s, %v:\n%s", a.Code, a.Error, err, a.Stderr)
	}
	s.n.t.Logf("%v; %v lines", r.Rounds, r.Lines)
	if len(r.Failures) > 0 {
		s.n.t.Errorf("%d failures: %s", len(r.Failures), strings.Join(r.Failures, "\n\t"))
	}
	for what, n := range r.Rounds {
		if n < 10 {
			s.n.t.Errorf("%s: %d rounds", what, n)
		}
	}
	for _, v := range versions {
		if !slices.Contains(r.Seen, liveText("the page", v)[:40]) {
			s.n.t.Errorf("version %s was never seen: %q", v, r.Seen)
		}
	}
	if len(r.Seen) != len(versions) {
		s.n.t.Errorf("%q were seen", r.Seen)
	}
}

// active checks whether a unit is active.
func (s *system) active(unit string, want bool) {
	s.n.t.Helper()
	if r := s.Run("systemctl", "is-active", unit); (r.Code == 0) != want {
		s.n.t.Errorf("%s is %s\n%s", unit, r.Stdout, s.Run("systemctl", "status", "--no-pager", unit).Stdout)
	}
}

// starts checks how often the site's service has started since the boot, and in which versions.
func (s *system) starts(versions ...string) {
	s.n.t.Helper()
	if got := strings.Fields(s.Read("/run/site.starts")); !slices.Equal(got, versions) {
		s.n.t.Errorf("the service was started as %q, want %q", got, versions)
	}
}

// TestLiveChange: a running system with a real systemd, every read of which the kernel checks, changes what it runs by attach,
// detach, update and rollback, while it is used; what was changed locally stays; and it restarts into what went live.
func TestLiveChange(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	debianModule(t, p)
	p.Publish(liveApp("1"))
	p.Publish(site("1"))
	p.Publish(private())
	n := p.node("live", "debian", "app", "private")
	n.machine.Append = "systemd.show_status=0 systemd.getty_auto=no"
	s := n.start()
	s.WaitLine(`starting /sbin/init`)
	s.WaitInit()
	s.settled(1)

	// What a person changes: content, mode alone (a metacopy), and the name of a directory (a redirect).
	s.Shell(`set -e; echo mine >/usr/share/app/changed; chmod 0640 /usr/share/app/mode; mv /usr/share/app/dir /usr/share/app/renamed`).OK(t)
	s.load("/tests/init")
	const unit = "powernode-site_serve.service"

	p.assign("live", "site")
	s.goesLive(2, "attach", "site")
	s.holds("/usr/share/site/page", liveText("the site", "1"))
	s.active(unit, true)
	s.starts("1")
	s.inStep()

	s.goesLive(1, "detach", "site")
	if s.ReadError("/usr/share/site/page") == "" {
		t.Error("what was detached is still there")
	}
	s.active(unit, false)
	if r := s.agent("status"); !strings.Contains(r.Stdout, "site") {
		t.Errorf("status doesn't tell of what is detached:\n%s", r.Stdout)
	}
	s.goesLive(2, "attach", "site")
	s.active(unit, true)
	s.starts("1", "1")

	p.Publish(liveApp("2"))
	p.Publish(site("2"))
	u := s.goesLive(3, "update")
	s.holds("/usr/share/site/page", liveText("the site", "2"))
	s.holds("/etc/app.conf", liveText("the configuration", "2"))
	s.holds(page, pageText("2"))
	s.active(unit, true)
	s.starts("1", "1", "2")
	local := func(version string) {
		t.Helper()
		s.holds("/usr/share/app/changed", "mine\n")
		s.holds("/usr/share/app/mode", liveText("what gets another mode", "1"))
		s.holds("/usr/share/app/renamed/inner", liveText("what gets another place", "1"))
		if got := s.Shell("stat -c %a /usr/share/app/mode").OK(t); got != "640\n" {
			t.Errorf("the mode is %s", got)
		}
	}
	local("2")
	var conflicts []string
	for _, c := range u.Plan.Conflicts {
		conflicts = append(conflicts, c.Path)
	}
	for _, path := range []string{"/usr/share/app/changed", "/usr/share/app/mode"} {
		if !slices.Contains(conflicts, path) {
			t.Errorf("%s isn't among the conflicts: %q", path, u.Plan.Conflicts)
		}
		if r := s.agent("status"); !strings.Contains(r.Stdout, path) {
			t.Errorf("status doesn't tell of %s:\n%s", path, r.Stdout)
		}
	}
	// The mount namespace of another unit follows.
	if got := s.Shell(`cat /proc/$(systemctl show -P MainPID private.service)/root/opt/load/page`).OK(t); got != liveText("the page", "2") {
		t.Errorf("a unit with a /tmp of its own sees %.60q", got)
	}
	new := s.inStep()

	s.goesLive(4, "rollback", "2")
	s.holds("/usr/share/site/page", liveText("the site", "1"))
	s.starts("1", "1", "2", "1")
	local("1")
	s.goesLive(3, "update", "--retry")
	s.starts("1", "1", "2", "1", "2")
	local("2")
	s.unload("1", "2")
	if again := s.inStep(); again.RootDigest != new.RootDigest {
		t.Errorf("root %s, not %s", again.RootDigest, new.RootDigest)
	}

	// What went live is tried by the next boot.
	s.Shell("systemctl --no-block reboot").OK(t)
	s.WaitLine(`mount: generation 3, .*attempt 1 of 3`)
	s.WaitInit()
	s.settled(3)
	s.runs(3, "2")
	if doc := s.inStep(); doc.RootDigest != new.RootDigest {
		t.Errorf("root %s, not %s", doc.RootDigest, new.RootDigest)
	}
	s.active(unit, true)
	s.holds("/usr/share/app/changed", liveText("what is changed locally", "2"))
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// TestLiveCycles attaches and detaches a module again and again, under readers and writers: in a small system, and in a whole one
// with a real systemd. POWERNODE_VM_CYCLES is how often.
func TestLiveCycles(t *testing.T) {
	whole(t)
	cycles := number(t, "POWERNODE_VM_CYCLES", 20)
	t.Run("small", func(t *testing.T) {
		p := newPlatform(t)
		p.Publish(base(t, "1"))
		p.Publish(liveApp("1"))
		n := p.node("cycles", "base", "app")
		s := n.boot()
		s.good()
		p.Publish(otherApp(), "--priority", "90")
		p.assign("cycles", "other")
		s.cycles("/usr/sbin/init", cycles)
	})
	t.Run("systemd", func(t *testing.T) {
		p := newPlatform(t)
		debianModule(t, p)
		p.Publish(liveApp("1"))
		p.Publish(private())
		n := p.node("cycles", "debian", "app", "private")
		n.machine.Append = "systemd.show_status=0 systemd.getty_auto=no"
		s := n.start()
		s.WaitLine(`starting /sbin/init`)
		s.WaitInit()
		s.settled(1)
		p.Publish(otherApp(), "--priority", "90")
		p.assign("cycles", "other")
		s.cycles("/tests/init", cycles)
	})
}

// otherApp is a module of the app's files, with other content.
func otherApp() lab.Module {
	m := liveApp("2")
	m.Name = "other"
	return m
}

// cycles attaches and detaches the other module, which has the higher priority: each cycle changes all files of the app twice. init is
// where the tests' init is inside.
func (s *system) cycles(init string, cycles int) {
	t := s.n.t
	t.Helper()
	s.load(init)
	begun := time.Now()
	for range cycles {
		for _, args := range [][]string{{"attach", "other"}, {"detach", "other"}} {
			if doc, r := s.changed(args...); r.Code != 0 || doc.Outcome != change.WentLive || len(doc.Remarks) > 0 {
				t.Fatalf("%s: exit code %d\n%s%s", r.What, r.Code, r.Stdout, r.Stderr)
			}
		}
	}
	t.Logf("%d cycles, %s for a change", cycles, time.Since(begun)/time.Duration(2*cycles))
	s.unload("1", "2")
	s.runs(1, "1")
	if got := strings.Count(s.Read("/proc/self/mountinfo"), "overlay"); got > 4 {
		t.Errorf("%d mounts of overlays:\n%s", got, s.Read("/proc/self/mountinfo"))
	}
	s.PowerOff()
	qemu.Check(t, s.n.disk)
}

// TestLiveFallback: what went live and doesn't boot is left at the next boot for what was booted before.
func TestLiveFallback(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("livebad", "base", "app")
	n.machine.Append = "powernode.tries=1"
	s := n.boot()
	s.good()
	p.Publish(lab.Base("2", dies))
	p.Publish(app("2"))
	s.goesLive(2, "update")
	s.runs(2, "2")
	s.Reboot()
	s.WaitLine(`mount: generation 2, .*attempt 1 of 1`)
	s.WaitInit()
	if doc := s.runs(1, "1"); doc.InStep || doc.LastFailed.Generation != 2 {
		t.Errorf("in step %t, last failed %+v", doc.InStep, doc.LastFailed)
	}
	// Another assignment goes live from there.
	p.Publish(base(t, "3"))
	p.Publish(app("3"))
	s.service("what was booted before is current", func() bool {
		return strings.Contains(s.agent("introspect", "--output", "json").Stdout, `"current": 1`)
	})
	s.goesLive(3, "update")
	if doc := s.runs(3, "3"); !doc.InStep {
		t.Errorf("out of step: %q", doc.Reasons)
	}
	s.PowerOff()
	qemu.Check(t, n.disk)
}
