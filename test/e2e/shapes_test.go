package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/ociimage"
)

// TestJSONShapes pins the names and types in what the programs print with --output json, as
// scripts and other programs rely on them. A field more is a change of testdata/shapes, made with
// POWERNODE_E2E_UPDATE=1; a field less, or of another type, breaks somebody.
func TestJSONShapes(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	shape := func(name string, r result) {
		t.Helper()
		if r.Stderr != "" {
			t.Errorf("%s: something is on standard error: %s", r.What, r.Stderr)
		}
		checkShape(t, name, r.OK(t))
	}
	p.Publish(base("1"))
	p.Publish(app("1"))
	layout := site("1").Layout(t)
	shape("publish", p.Operator("module", "publish", "--quiet", "--key", p.Key+".key", "--variety", "config", "--output", "json", layout))
	shape("module-list", p.Operator("module", "list", "--output", "json"))
	shape("version", p.Operator("version", "--output", "json"))
	shape("node-create", p.Operator("node", "create", "web", "--output", "json"))
	shape("node-list-pending", p.Operator("node", "list", "--output", "json"))
	shape("assign", p.Operator("assign", "web", "base", "app", "site", "--output", "json"))
	shape("token-create", p.Operator("token", "create", "web", "--output", "json"))
	shape("task-create", p.Operator("task", "create", "web", "attach", "app", "--output", "json"))
	shape("task-list", p.Operator("task", "list", "--output", "json"))
	task := field(t, p.Operator("task", "create", "web", "sync", "--output", "json"), "id")
	shape("task-cancel", p.Operator("task", "cancel", task, "--output", "json"))
	shape("task-show", p.Operator("task", "show", task, "--output", "json"))
	shape("operator-create", p.Operator("token", "operator", "create", "ci", "--role", "read", "--file", filepath.Join(t.TempDir(), "ci.json"), "--output", "json"))
	shape("operator-list", p.Operator("token", "operator", "list", "--output", "json"))
	p.Operator("node", "create", "web").Refused(t, 1, "already", "choose another name")
	shape("audit-list", p.Operator("audit", "list", "--output", "json"))
	shape("event-list", p.Operator("event", "list", "--output", "json"))

	n := p.node("live", "base", "app", "site")
	s := n.boot()
	s.report()
	// It may have ended before it told of the boot.
	if len(n.detail().Boots) == 0 {
		s.boots()
	}
	shape("node-list", p.Operator("node", "list", "--output", "json"))
	shape("node-show", p.Operator("node", "show", "live", "--output", "json"))
	shape("status", s.agent("status", "--output", "json"))
	shape("owner", s.agent("owner", "/etc/app/page", "/usr/lib/app/data", "--output", "json"))
	shape("introspect", s.agent("introspect", "--output", "json"))
	shape("generations", s.agent("generations", "--output", "json"))
	shape("pin", s.agent("generations", "pin", "1", "--note", "the first", "--output", "json"))
	shape("gc", s.agent("gc", "--dry-run", "--output", "json"))
	shape("verify-module", s.agent("verify", "app", "--output", "json"))
	shape("boot-facts", result{What: "boot.json", Stdout: s.read("/run/powernode/boot.json")})
	r := s.agent("verify", "nothing", "--output", "json")
	checkShape(t, "error", r.Stderr)
	s.exit()
	shape("verify-layout", n.agent("verify", signedLayout(t, site("1"), p.Key, p.Listen+"/modules/site"), "--trust-policy", n.trust, "--repository", p.Listen+"/modules/site", "--output", "json"))
}

// field returns a text of the object that a program printed.
func field(t testing.TB, r result, name string) string {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.OK(t)), &doc); err != nil {
		t.Fatal(err)
	}
	text, _ := doc[name].(string)
	return text
}

// signedLayout returns a layout as one has it that was copied from a registry with its signature.
func signedLayout(t testing.TB, m mod, key, repository string) string {
	t.Helper()
	return layoutAsIs(t, m.Sealed(t), key, repository)
}

// layoutAsIs is signedLayout for a module that has its annotations already.
func layoutAsIs(t testing.TB, m mod, key, repository string) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "signed")
	l, err := ociimage.CreateLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	image := m.AddTo(t, l)
	sign(t, key, repository, string(image.Digest), func(s ociimage.Signature) error { return l.Attach(t.Context(), image, s) })
	return dir
}

// keyed are the objects whose names are data.
var keyed = map[string]bool{
	"pointers": true, "nodes[].report.module_digests": true, "node.report.module_digests": true,
}

func checkShape(t testing.TB, name, text string) {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Errorf("%s: %v\n%s", name, err, text)
		return
	}
	shape := make(map[string]string)
	describe("", doc, shape)
	var lines strings.Builder
	for _, path := range slices.Sorted(maps.Keys(shape)) {
		if strings.HasPrefix(path, "kernel.") && strings.HasSuffix(path, ".reason") {
			continue // for what this kernel can't do
		}
		fmt.Fprintf(&lines, "%s: %s\n", path, shape[path])
	}
	path := filepath.Join("testdata", "shapes", name+".txt")
	if os.Getenv("POWERNODE_E2E_UPDATE") != "" {
		write(t, path, []byte(lines.String()), 0o644)
		return
	}
	if want := string(read(t, path)); lines.String() != want {
		t.Errorf("%s has the shape\n%s\nand had\n%s", name, lines.String(), want)
	}
}

// describe notes the type of everything in v by its path.
func describe(path string, v any, into map[string]string) {
	kind := ""
	switch v := v.(type) {
	case map[string]any:
		kind = "object"
		for name, field := range v {
			switch {
			case keyed[path]:
				name = path + ".*"
			case path != "":
				name = path + "." + name
			}
			describe(name, field, into)
		}
	case []any:
		kind = "list"
		for _, element := range v {
			describe(path+"[]", element, into)
		}
	case string:
		kind = "string"
	case float64:
		kind = "number"
	case bool:
		kind = "bool"
	case nil:
		kind = "null"
	}
	if path == "" {
		path = "."
	}
	if had := into[path]; had != "" && had != kind {
		kind = had + " or " + kind
	}
	into[path] = kind
}
