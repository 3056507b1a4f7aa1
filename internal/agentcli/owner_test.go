package agentcli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// moduleTree is a tree of files with their content; "-> target" is a symlink.
func moduleTree(files map[string]string) *tree.Node {
	root := tree.NewDir(0o755)
	for name, content := range files {
		dir := root
		parts := strings.Split(name, "/")
		for _, part := range parts[:len(parts)-1] {
			if dir.Child(part) == nil {
				dir.SetChild(part, tree.NewDir(0o755))
			}
			dir = dir.Child(part)
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(content)), Inline: []byte(content)}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			n = &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target}
		}
		dir.SetChild(parts[len(parts)-1], n)
	}
	return root
}

// composed composes modules of which the first has the lowest priority. masks are by module.
func composed(t *testing.T, masks map[string][]string, modules ...map[string]string) *composition {
	t.Helper()
	c := &composition{roots: make(map[string]*tree.Node), changed: &delta.Delta{}}
	var inputs []compose.Input
	for i, files := range modules {
		name := string(rune('a' + i))
		c.roots[name] = moduleTree(files)
		c.modules = append(c.modules, store.GenerationModule{Name: name, Version: "1", EffectivePriority: i})
		inputs = append(inputs, compose.Input{Name: name, Version: "1", EffectivePriority: i, Root: c.roots[name], Mask: masks[name]})
	}
	var err error
	if c.result, err = compose.Compose(inputs); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOwned(t *testing.T) {
	c := composed(t, map[string][]string{"c": {"/etc/hidden"}},
		map[string]string{"lib": "-> usr/lib", "usr/lib/x": "a", "etc/conf": "a", "etc/alike": "same", "etc/hidden": "a", "usr/lib/only": "a", "opt/gone/x": "a", "etc/cut": "a", "var/x": "a"},
		map[string]string{"lib/x": "b", "etc/conf": "b", "etc/alike": "same"},
		map[string]string{"etc/conf": "c"},
	)
	c.changed.Entries = []delta.Entry{
		{Path: "/etc", Kind: delta.Directory, Mode: 0o755},
		{Path: "/etc/alike", Kind: delta.Metacopy},
		{Path: "/etc/conf", Kind: delta.File},
		{Path: "/etc/cut", Kind: delta.Whiteout},
		{Path: "/etc/mine", Kind: delta.File},
		{Path: "/opt", Kind: delta.Directory, Mode: 0o700},
		{Path: "/opt/gone", Kind: delta.Whiteout},
	}
	// The root as it is seen: only what is above the paths counts.
	root := t.TempDir()
	for _, dir := range []string{"usr/lib", "etc", "opt", "var"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]ownedPath{
		"/etc/conf": {Module: "c", Local: localContent, Others: []otherOwner{
			{Module: "b", Differs: compose.DifferentContent, Reason: "c's priority 2 is higher than its 1"},
			{Module: "a", Differs: compose.DifferentContent, Reason: "c's priority 2 is higher than its 0"},
		}},
		"/etc/alike":    {Module: "b", Local: localAttributes, Others: []otherOwner{{Module: "a", Differs: same}}},
		"/etc/hidden":   {Others: []otherOwner{{Module: "a", Differs: compose.DifferentKind, MaskedBy: "c"}}},
		"/etc/cut":      {Module: "a", Local: localRemoved},
		"/etc/mine":     {Local: localAdded},
		"/etc/nowhere":  {},
		"/no/such/path": {},
		"/lib":          {Module: "a", Local: localNone, Others: []otherOwner{{Module: "b", Differs: compose.DifferentKind}}},
		"/lib/x": {Resolved: "/usr/lib/x", Module: "b", Local: localNone, Others: []otherOwner{
			{Module: "a", Differs: compose.DifferentContent, Reason: "its priority 1 is higher than a's 0"},
		}},
		"/lib/../lib/only": {Resolved: "/usr/lib/only", Module: "a", Local: localNone},
		"/opt":             {Module: "a", Local: localAttributes},
		"/opt/gone/x":      {Module: "a", Local: localRemoved},
		"/etc":             {Module: "c", Local: localNone, Others: []otherOwner{{Module: "b", Differs: same}, {Module: "a", Differs: same}}},
		"/var/x":           {Module: "a", Remarks: []string{"/var is the machine's own: what is there began as the module has it, and isn't compared"}},
	} {
		want.Path = path
		if want.Module != "" {
			want.Version = "1"
		}
		for i := range want.Others {
			want.Others[i].Version = "1"
		}
		if diff := cmp.Diff(want, c.owned(root, path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	c.changed = nil
	if p := c.owned(root, "/etc/conf"); p.Local != "" {
		t.Errorf("unknown: %q", p.Local)
	}
}

func TestOwnerTable(t *testing.T) {
	doc := ownerDoc{Paths: []ownedPath{
		{Path: "/etc/conf", Module: "site", Version: "1", Local: localContent, Others: []otherOwner{
			{Module: "app", Version: "2", Differs: compose.DifferentContent, Reason: "its priority 20 is higher than app's 10"},
			{Module: "base", Version: "3", Differs: same},
			{Module: "old", Version: "4", Differs: compose.DifferentKind, MaskedBy: "site"},
		}},
		{Path: "/bin/sh\x1b[m", Resolved: "/usr/bin/sh", Local: localAdded},
	}}
	var b bytes.Buffer
	if err := doc.table(&b); err != nil {
		t.Fatal(err)
	}
	want := `site 1: /etc/conf
  app 2 has it, too, with other content: its priority 20 is higher than app's 10
  base 3 has the same
  old 4 has it, too, masked by site
  changed here
no module: /bin/sh`
	if !strings.HasPrefix(b.String(), want) || strings.Contains(b.String(), "\x1b") || !strings.HasSuffix(b.String(), "\n  it is /usr/bin/sh\n  it was made here\n") {
		t.Errorf("%q", b.String())
	}
	for code, paths := range map[string][]ownedPath{"exit status 8": doc.Paths, "exit status 1": doc.Paths[1:]} {
		if err := (ownerDoc{Paths: paths}).exit(); err == nil || err.Error() != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	if err := (ownerDoc{Paths: doc.Paths[:1]}).exit(); err != nil {
		t.Error(err)
	}
}
