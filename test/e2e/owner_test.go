package e2e

import (
	"strings"
	"testing"
)

// ownerSaid is what tests look at of `owner --output json`.
type ownerSaid struct {
	Generation uint64
	Paths      []struct {
		Path, Module, Version, Local string
		Others                       []struct{ Module, Differs string }
	}
}

// TestOwner: a path is a module's, another one's after a live change, and what was changed here is told, by owner and by status.
func TestOwner(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	p.Publish(site("1"), "--variety", "config")
	n := p.node("web", "base", "app")
	s := n.boot()
	if r := s.agent("owner", "/etc/app/page"); r.Code != 0 || r.Stdout != "app 1: /etc/app/page\n" {
		t.Errorf("%d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := s.agent("owner", "/etc/app/page", "/no/such"); r.Code != 8 || !strings.HasSuffix(r.Stdout, "no module: /no/such\n") {
		t.Errorf("%d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := s.agent("owner", "/no/such"); r.Code != 1 || r.Stderr != "" {
		t.Errorf("%d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, path := range []string{"/etc/app/page", "/etc/mine"} {
		if err := s.write(path, "mine"); err != "" {
			t.Fatal(err)
		}
	}
	p.Operator("assign", "web", "site").OK(t)
	s.agent("update").OK(t)
	var said ownerSaid
	r := s.agent("owner", "/etc/app/page", "/usr/share/x", "/etc/mine", "--output", "json")
	if r.Code != 8 {
		t.Errorf("exit code %d", r.Code)
	}
	r.Code = 0
	r.Into(t, &said)
	if said.Generation != 2 || len(said.Paths) != 3 {
		t.Fatalf("%+v", said)
	}
	page, shared, mine := said.Paths[0], said.Paths[1], said.Paths[2]
	if page.Module != "site" || page.Local != "changed" || len(page.Others) != 1 || page.Others[0].Module != "app" || page.Others[0].Differs != "content" {
		t.Errorf("the page: %+v", page)
	}
	if shared.Module != "site" || shared.Local != "unchanged" || mine.Module != "" || mine.Local != "added" {
		t.Errorf("%+v, %+v", shared, mine)
	}
	var status struct {
		InStep bool `json:"in_step"`
		Mounts []struct {
			Path       string
			Generation uint64
		}
		Delta struct {
			Files     int
			Conflicts []struct{ Path string }
		}
		Modules []struct{ Name, Origin string }
	}
	s.agent("status", "--output", "json").Into(t, &status)
	if !status.InStep || len(status.Mounts) < 2 || status.Mounts[0].Path != "/" || status.Mounts[0].Generation != 1 || status.Mounts[1].Generation != 2 {
		t.Errorf("mounts: %+v", status)
	}
	if status.Delta.Files < 2 || len(status.Delta.Conflicts) != 1 || status.Delta.Conflicts[0].Path != "/etc/app/page" {
		t.Errorf("what was changed here: %+v", status.Delta)
	}
	if m := status.Modules; len(m) != 3 || m[0].Name != "site" || m[0].Origin != "platform" {
		t.Errorf("modules: %+v", m)
	}
	if r := s.agent("status"); r.Code != 0 || !strings.Contains(r.Stdout, "conflict:") || !strings.Contains(r.Stdout, "(generation 2): /etc, /usr") {
		t.Errorf("%d\n%s", r.Code, r.Stdout)
	}
	s.agent("detach", "site").OK(t)
	if r := s.agent("status"); r.Code != 0 || !strings.Contains(r.Stdout, "\ndetached here:") {
		t.Errorf("%d\n%s", r.Code, r.Stdout)
	}
	s.exit()
}
