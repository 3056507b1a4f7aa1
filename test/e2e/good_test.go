package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// TestFirstBoot goes the whole way once: publish, assign, enroll, pull, verify, compose, mount,
// run, report.
func TestFirstBoot(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	p.Publish(site("1"), "--variety", "config")
	n := p.node("web", "base", "app", "site")

	s := n.boot()

	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the site's page, version 1") {
		t.Errorf("the module with the lower effective priority wins: %q", page)
	}
	if data := s.read("/usr/lib/app/data"); !strings.HasPrefix(data, "the app's data ") {
		t.Errorf("a module's file reads %q", data[:40])
	}
	if self := s.do("self", "").Stdout; strings.Contains(self, "SECRET") || !strings.HasPrefix(self, "/sbin/init\n") {
		t.Errorf("init is started as %q", self)
	}
	status := s.status()
	facts := s.facts()
	switch {
	case !status.InStep || len(status.Reasons) != 0 || len(status.Remarks) != 0:
		t.Errorf("status: %+v", status)
	case status.Generation != 1 || status.Level != "checked" && status.Level != "enforced":
		t.Errorf("status: generation %d, level %q", status.Generation, status.Level)
	case status.RootDigest == "" || status.RootDigest != status.ExpectedRootDigest || status.RootDigest != facts.RootDigest.String():
		t.Errorf("root digests: mounted %s, expected by the platform %s, of this boot %s", status.RootDigest, status.ExpectedRootDigest, facts.RootDigest)
	case facts.Pulled.Modules != 3 || facts.Pulled.Layers != 3 || facts.Shared == 0 || facts.Conflict == 0:
		t.Errorf("facts: %+v", facts)
	}
	if mountinfo := s.read("/proc/self/mountinfo"); !strings.Contains(mountinfo, status.RootDigest) {
		t.Errorf("the kernel's mount table doesn't know root %s:\n%s", status.RootDigest, mountinfo)
	}

	seen := s.report()
	switch {
	case seen.Report.RootDigest != status.RootDigest || seen.ExpectedRootDigest != status.RootDigest || !seen.InStep:
		t.Errorf("the operator sees root %s, expects %s, in step %t; mounted is %s", seen.Report.RootDigest, seen.ExpectedRootDigest, seen.InStep, status.RootDigest)
	case seen.Status != "running" || seen.Report.MountState != "mounted" || seen.Report.Generation != 1 || seen.Report.IntegrityLevel != status.Level:
		t.Errorf("the operator sees %+v, %+v", seen, seen.Report)
	case len(seen.Report.ModuleDigests) != 3:
		t.Errorf("the operator sees modules %v", seen.Report.ModuleDigests)
	}
	conflicts := n.detail().Conflicts
	if i := slices.IndexFunc(conflicts, func(c operatorapi.Conflict) bool { return strings.TrimPrefix(c.Path, "/") == "etc/app/page" }); i < 0 ||
		conflicts[i].Winner != "site" || !slices.Equal(conflicts[i].Losers, []string{"app"}) || conflicts[i].Reason == "" {
		t.Errorf("conflicts: %+v", conflicts)
	}

	var list operatorapi.NodeList
	p.Operator("node", "list", "--output", "json").Into(t, &list)
	if list.Count != 1 || list.Nodes[0].Report.RootDigest != status.RootDigest || !list.Nodes[0].InStep {
		t.Errorf("node list: %+v", list)
	}

	for _, name := range []string{"base", "app", "site"} {
		s.agent("verify", name).OK(t)
	}
	s.exit()
}
