package e2e

import (
	"maps"
	"os"
	"strings"
	"testing"
)

// TestWarmBootNeedsNoPlatform: a node that has run boots from its disk alone, and says so.
func TestWarmBootNeedsNoPlatform(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")

	s := n.boot()
	first := s.status()
	if err := s.write("/var/lib/kept", "kept"); err != "" {
		t.Error(err)
	}
	if err := s.write("/etc/lost", "lost"); err != "" {
		t.Error(err)
	}
	s.exit()
	records, objects := n.records(), n.objects()
	p.Stop()
	if err := os.Remove(n.identity); err != nil {
		t.Fatal(err)
	}

	s = n.boot()
	second := s.status()
	switch {
	case second.RootDigest != first.RootDigest || second.Generation != 1 || !second.InStep:
		t.Errorf("first %+v, second %+v", first, second)
	case len(second.Remarks) != 1 || !strings.Contains(second.Remarks[0], p.Listen) || !strings.Contains(second.Remarks[0], "generation 1"):
		t.Errorf("the second boot remarks %q", second.Remarks)
	case second.ExpectedRootDigest != "":
		t.Errorf("nobody expects %s", second.ExpectedRootDigest)
	}
	if s.read("/var/lib/kept") != "kept" || s.has("/etc/lost") {
		t.Error("/var must outlive a boot, and the rest of the writable layer must not")
	}
	s.exit()
	n.sameRecords(records)
	if !maps.Equal(objects, n.objects()) {
		t.Error("a boot without anything new changes the objects")
	}
}

// TestNewVersion: what is new is pulled, what is the same is shared, and what ran before is the
// way back.
func TestNewVersion(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"), site("1"))
	n := p.node("web", "base", "app", "site")
	s := n.boot()
	first := s.status()
	s.exit()
	before := n.objects()

	p.Publish(app("2"), "--priority", "7")
	s = n.boot()
	second, facts := s.status(), s.facts()
	switch {
	case second.Generation != 2 || !second.InStep || second.RootDigest == first.RootDigest || second.RootDigest != second.ExpectedRootDigest:
		t.Errorf("first %+v, second %+v", first, second)
	case facts.Pulled.Modules != 1 || facts.Pulled.NewObjects != 1:
		t.Errorf("pulled %+v", facts.Pulled)
	}
	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the app's page, version 2") {
		t.Errorf("with the higher priority, app's page must win: %q", page)
	}
	if seen := s.report(); seen.Report.RootDigest != second.RootDigest || !seen.InStep || seen.Report.Generation != 2 {
		t.Errorf("the operator sees %+v", seen)
	}
	s.exit()
	for path, size := range before {
		if after := n.objects()[path]; after != size {
			t.Errorf("object %s had %d bytes and has %d", path, size, after)
		}
	}
	if current, previous := n.pointer("current"), n.pointer("previous"); current != "2" || previous != "1" {
		t.Errorf("current is %q, previous %q", current, previous)
	}

	p.Operator("unassign", "web", "app").OK(t)
	s = n.boot()
	if third := s.status(); third.Generation != 3 || len(third.Modules) != 2 || s.has("/usr/lib/app/data") {
		t.Errorf("without app: %+v", third)
	}
	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the site's page") {
		t.Errorf("without app, the page is %q", page)
	}
	s.exit()

	// Nobody takes everything from a node by a slip of the hand.
	p.Operator("unassign", "web", "base", "site").OK(t)
	s = n.boot()
	if fourth := s.status(); fourth.Generation != 3 || len(fourth.Remarks) != 1 || !strings.Contains(fourth.Remarks[0], "powernode assign") {
		t.Errorf("with nothing assigned: %+v", fourth)
	}
	s.exit()
}

// TestSameModulesSameRoot: one digest says what a node runs, whichever node it is, in whatever
// order its modules came, and whether the platform offers one architecture or several.
func TestSameModulesSameRoot(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	other := site("1")
	other.Arch = map[string]string{"amd64": "arm64", "arm64": "amd64"}[hostArch]
	p.Publish(base("1"))
	p.Publish(app("1"))
	both := p.PublishLayout(site("1").Layout(t), other.Layout(t))
	if len(both.Images) != 2 || both.Digest == both.Images[0].Digest || both.Digest == both.Images[1].Digest {
		t.Fatalf("published %+v", both)
	}
	var roots []string
	for name, modules := range map[string][]string{"a": {"base", "app", "site"}, "b": {"site", "app", "base"}} {
		n := p.node(name, modules...)
		s := n.boot()
		status := s.status()
		if !status.InStep || status.RootDigest != status.ExpectedRootDigest {
			t.Errorf("node %s: %+v", name, status)
		}
		roots = append(roots, status.RootDigest)
		s.exit()
	}
	if roots[0] != roots[1] {
		t.Errorf("the same modules make the roots %v", roots)
	}
}

// TestOtherInit starts a program of one's own in place of /sbin/init, with arguments.
func TestOtherInit(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	m := base("1")
	m.Programs["usr/lib/my init"] = m.Programs["usr/sbin/init"]
	delete(m.Programs, "usr/sbin/init")
	p.Publish(m)
	n := p.node("web", "base")
	n.init = []string{"/usr/lib/my init", "an argument", "--output"}
	n.flags = []string{"--upper-size", "3m"}
	s := n.boot()
	if self := s.do("self", "").Stdout; !strings.HasPrefix(self, "/usr/lib/my init\nan argument\n--output\nPATH=") {
		t.Errorf("init is started as %q", self)
	}
	if err := s.write("/small", strings.Repeat("x", 1<<20)); err != "" {
		t.Error(err)
	}
	if err := s.write("/large", strings.Repeat("x", 4<<20)); !strings.Contains(err, "no space left") {
		t.Errorf("a file beyond the writable layer's size: %q", err)
	}
	s.exit()
}
