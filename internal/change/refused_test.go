package change

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

// servingSystem is a fakeSystem with a systemd, whose trust policy allows nothing.
type servingSystem struct {
	*fakeSystem
	care *Care
	// live says for each question whether it was of the running system.
	live []bool
}

func (s *servingSystem) RefusedServices(modules []*assemble.Proven, running bool) []services.Refusal {
	s.live = append(s.live, running)
	return (&Machine{Care: s.care}).RefusedServices(modules, running)
}

func withSystemd(t *testing.T, n *node) (*servingSystem, func(*Config)) {
	t.Helper()
	run := t.TempDir()
	if err := os.MkdirAll(filepath.Join(run, "systemd/private"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &servingSystem{fakeSystem: n.system, care: &Care{Root: t.TempDir(), Run: run, Agent: "/agent"}}
	return s, func(c *Config) { c.System = s }
}

const asksForEverything = "security: {capabilities: [CAP_SYS_ADMIN]}\nservices:\n- {name: a, start_command: /bin/a}\n"

// TestRefusedServicesKeepTheirModuleOut: a module whose services can't be made stays at the version that runs, or out; the others go on.
func TestRefusedServicesKeepTheirModuleOut(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/b": "1"})
	w.module("site", "1", map[string]string{"usr/s": "1"})
	n := w.runs()
	w.manifest = asksForEverything
	w.module("site", "2", map[string]string{"usr/s": "2"})
	w.manifest = "services:\n- {name: a, start_command: \"a | b\"}\n"
	w.module("bad", "1", map[string]string{"usr/bad": "1"})
	w.module("good", "1", map[string]string{"usr/good": "1"})
	system, with := withSystemd(t, n)
	dry, err := n.changer(with).Do(t.Context(), Request{Kind: Update, DryRun: true})
	if err != nil || len(dry.Failed) != 2 || dry.Outcome != WouldGoLive {
		t.Fatalf("dry: %+v, %v", dry, err)
	}
	r, err := n.changer(with).Do(t.Context(), Request{Kind: Update})
	if err != nil || r.Outcome != WentLive || len(r.Failed) != 2 || slices.Contains(system.live, false) {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, f := range r.Failed {
		want, kept := "CAP_SYS_ADMIN is a way to all of root's rights", "1"
		if f.Name == "bad" {
			want, kept = "only to a shell", ""
		}
		if !strings.Contains(f.Reason, want) || f.Kept != kept {
			t.Errorf("%+v", f)
		}
	}
	var have []string
	g, err := n.store.Generation(r.Generation)
	for _, m := range g.Modules {
		have = append(have, m.Name+" "+m.Version)
	}
	slices.Sort(have)
	if got := strings.Join(have, ", "); got != "base 1, good 1, site 1" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	n.facts = r.Generation
	system.care.Privileged = []string{"site"}
	if r, err := n.changer(with).Do(t.Context(), Request{Kind: Update}); err != nil || len(r.Failed) != 1 || r.Outcome != WentLive {
		t.Errorf("with consent: %+v, %v", r, err)
	}
}

// TestRefusedServicesOfOneModule are the answer to whoever attaches it; for the next boot, a profile that isn't loaded is none.
func TestRefusedServicesOfOneModule(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/b": "1"})
	n := w.runs()
	w.manifest = "security: {apparmor_profile: x}\nservices:\n- {name: a, start_command: /bin/a}\n"
	w.module("site", "1", map[string]string{"usr/s": "1"})
	system, with := withSystemd(t, n)
	for name, text := range map[string]string{"module/apparmor/parameters/enabled": "Y\n", "kernel/security/apparmor/profiles": "y (enforce)\n"} {
		file := filepath.Join(system.care.Root, "sys", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := n.changer(with).Do(t.Context(), Request{Kind: Attach, Modules: []string{"site"}})
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "x isn't loaded") || len(n.system.said) > 0 {
		t.Fatalf("%v, %q", err, n.system.said)
	}
	if r, err := n.changer(with).Do(t.Context(), Request{Kind: Attach, Modules: []string{"site"}, Stage: true}); err != nil || r.Outcome != Staged {
		t.Errorf("for the next boot: %+v, %v", r, err)
	}
}

// TestPlacedServicesAreNotJudgedAgain where their profile isn't loaded any more; nor is any by profiles where units are of the next root.
func TestPlacedServicesAreNotJudgedAgain(t *testing.T) {
	c := &Care{Root: t.TempDir(), Run: t.TempDir(), Agent: "/agent"}
	load := func(profiles string) {
		t.Helper()
		for name, text := range map[string]string{"module/apparmor/parameters/enabled": "Y\n", "kernel/security/apparmor/profiles": profiles} {
			file := filepath.Join(c.Root, "sys", name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := func(command string) []services.Module {
		m := &module.Manifest{Name: "m", Services: []module.Service{{Name: "a", StartCommand: command}}}
		m.Security.AppArmorProfile = "x"
		return []services.Module{{Name: "m", Version: "1", Manifest: m}}
	}
	load("x (enforce)\n")
	if _, err := services.Place(c.Run, c.set(list("/bin/a"))); err != nil {
		t.Fatal(err)
	}
	load("")
	if set := c.set(list("/bin/a")); len(set.Refused) > 0 || len(set.Modules) != 1 {
		t.Errorf("what runs is refused: %+v", set.Refused)
	}
	if set := c.set(list("/bin/b")); len(set.Refused) != 1 {
		t.Errorf("what is new isn't refused: %+v", set)
	}
	c.Next = true
	if set := c.set(list("/bin/b")); len(set.Refused) > 0 {
		t.Errorf("what is for the next root is refused: %+v", set.Refused)
	}
}
