package change

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/tree"
)

func rootOf(files map[string]string) *tree.Node {
	root := tree.NewDir(0o755)
	for path, text := range files {
		dir := root
		parts := strings.Split(path, "/")
		for _, p := range parts[:len(parts)-1] {
			if dir.Child(p) == nil {
				dir.SetChild(p, tree.NewDir(0o755))
			}
			dir = dir.Child(p)
		}
		dir.SetChild(parts[len(parts)-1], &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text)), Inline: []byte(text)})
	}
	return root
}

// TestPersistentEtcHasConflictsOfItsOwn: its layer lies over whatever /etc the root has.
func TestPersistentEtcHasConflictsOfItsOwn(t *testing.T) {
	upper := t.TempDir()
	for _, path := range []string{"app/page", "mine"} {
		if err := os.MkdirAll(filepath.Join(upper, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(upper, path), []byte("local"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := Step{
		FromTree: rootOf(map[string]string{"etc/app/page": "1", "etc/other": "1", "usr/x": "1"}),
		ToTree:   rootOf(map[string]string{"etc/app/page": "2", "etc/other": "2", "usr/x": "2"}),
	}
	f := Findings{Conflicts: []delta.Conflict{{Path: "/etc/unseen"}, {Path: "/usr/x"}}}
	local, err := f.deltaOfEtc(t.Context(), upper, s, func(path string) bool { return path == "/usr/x" })
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range f.Conflicts {
		paths = append(paths, c.Path)
	}
	if got := strings.Join(paths, " "); got != "/usr/x /etc/app/page" {
		t.Error(got)
	}
	for path, want := range map[string]bool{"/etc/mine": true, "/etc/other": false, "/usr/x": true, "/usr/y": false} {
		if local(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
	s.ToTree = rootOf(map[string]string{"usr/x": "2"})
	f.Conflicts = nil
	if _, err := f.deltaOfEtc(t.Context(), upper, s, func(string) bool { return false }); err != nil || len(f.Conflicts) != 1 {
		t.Errorf("a root without /etc: %+v, %v", f.Conflicts, err)
	}
}

// TestObstacles: what is in / itself decides whether a change can go live.
func TestObstacles(t *testing.T) {
	base := map[string]string{"usr/a": "1", "usr/lib/modules/6.12/kernel/a.ko": "1", "usr/lib/modules/6.12/modules.dep": "1"}
	for name, c := range map[string]struct {
		to   map[string]string
		want string
	}{
		"a file":              {map[string]string{"usr/a": "2"}, ""},
		"a directory in /":    {map[string]string{"opt/a": "1"}, ""},
		"a file in /":         {map[string]string{"a": "1"}, "/a is a file in the root directory itself"},
		"a file in /boot":     {map[string]string{"boot/a": "1"}, "files of /boot change"},
		"a file in /var":      {map[string]string{"var/a": "1"}, ""},
		"a kernel module":     {map[string]string{"usr/lib/modules/6.12/kernel/a.ko": "2"}, "1 modules of the running kernel"},
		"another one":         {map[string]string{"usr/lib/modules/6.12/kernel/b.ko": "2"}, ""},
		"another kernel":      {map[string]string{"usr/lib/modules/6.13/kernel/a.ko": "2"}, ""},
		"the module's index":  {map[string]string{"usr/lib/modules/6.12/modules.dep": "2"}, ""},
		"a file for a folder": {map[string]string{"usr": "2"}, "/usr is a file"},
	} {
		to := make(map[string]string)
		if _, replaces := c.to["usr"]; !replaces {
			for path, text := range base {
				to[path] = text
			}
		}
		for path, text := range c.to {
			to[path] = text
		}
		d := difference.Compare(rootOf(base), rootOf(to))
		if kernel := aboutKernel(d, "6.12"); kernel != (name == "a file in /boot" || name == "a kernel module" || name == "a file for a folder") {
			t.Errorf("%s: about the kernel: %t", name, kernel)
		}
		got := strings.Join(obstacles(d, "6.12"), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if n := varRemark(d); (n != "") != (name == "a file in /var") {
			t.Errorf("%s: %q", name, n)
		}
	}
	without := difference.Compare(rootOf(base), rootOf(map[string]string{"usr/a": "1"}))
	if got := obstacles(without, "6.12"); len(got) == 0 {
		t.Error("the running kernel's modules go")
	}
}

// TestWay: what speaks against a live change, and against a soft-reboot, makes the way.
func TestWay(t *testing.T) {
	d := difference.Compare(rootOf(nil), rootOf(map[string]string{"usr/a": "1", "usr/b": "1"}))
	for want, in := range map[Way]planInput{
		Live:       {notSoft: "it doesn't count"},
		SoftReboot: {findings: Findings{Obstacles: []string{"x"}}},
		Boot:       {reasons: []string{"x"}, notSoft: "the kernel"},
	} {
		in.difference = d
		if p := plan(in); p.Way != want || (want == Live) != (len(p.Reasons) == 0) || len(p.Files.List) != 3 || p.Files.More != 0 || p.Contested == nil || p.Conflicts == nil {
			t.Errorf("%+v", p)
		}
	}
}

func TestHeldSince(t *testing.T) {
	known, late := live.Namespace{Units: []string{"a.service"}, PIDs: []int{1}, Keeps: []string{"usr"}}, live.Namespace{Units: []string{"b.service"}, PIDs: []int{2}, Keeps: []string{"usr"}}
	alone := live.Namespace{PIDs: []int{7}, Commands: []string{"bwrap"}, Keeps: []string{"usr"}}
	_, said := heldBy([]live.Namespace{alone})
	f := Findings{Aftercare: &aftercare.Plan{Restart: []aftercare.UnitStep{{Unit: "a.service"}}}, Remarks: said}
	if got := f.heldSince(live.Result{Kept: []live.Namespace{known, alone}, Late: []live.Namespace{late}}); len(got) != 1 || !strings.HasPrefix(got[0], "b.service was started while") {
		t.Errorf("%q", got)
	}
	if got := (&Findings{}).heldSince(live.Result{Kept: []live.Namespace{alone}}); len(got) != 1 || !strings.Contains(got[0], "process 7 bwrap") {
		t.Errorf("%q", got)
	}
}

func TestHeldBy(t *testing.T) {
	held, remarks := heldBy([]live.Namespace{
		{Units: []string{"a.service", "b.service"}, PIDs: []int{1}, Keeps: []string{"usr", "etc"}},
		{PIDs: []int{7}, Commands: []string{"bwrap"}, Keeps: []string{"usr"}},
		{},
	})
	if len(held) != 2 || held[1].Unit != "b.service" || !strings.Contains(held[0].Why, "/usr, /etc") || len(remarks) != 1 || !strings.Contains(remarks[0], "process 7 bwrap") {
		t.Errorf("%+v, %q", held, remarks)
	}
}
