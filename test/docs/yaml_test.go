package docs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/userdata"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/signing"
)

// anyKey is the directory of a trust policy in which every key exists.
type anyKey struct{ pem []byte }

func (k anyKey) Open(name string) (fs.File, error) {
	return fstest.MapFS{name: {Data: k.pem}}.Open(name)
}

// TestYAML: every block of YAML is a manifest.yaml, a trust.yaml or user-data, and parses.
func TestYAML(t *testing.T) {
	key, err := signing.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public := key.PublicPEM()
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "yaml" {
				continue
			}
			count++
			text := []byte(b.text)
			switch {
			case bytes.HasPrefix(text, []byte("#cloud-config\n")):
				var raw identity.Raw
				if raw, err = userdata.Parse(text); err == nil {
					_, err = raw.Check(p.path, nil)
				}
			case !bytes.Contains(text, []byte("\nrules:")):
				_, err = module.ParseManifest(text)
			case bytes.Contains(text, []byte("trusted_root:")):
				continue // package signature's own test has a whole Sigstore to parse it with
			default:
				_, err = signature.LoadPolicy(text, anyKey{public})
			}
			if err != nil {
				t.Errorf("%s:%d: %v", p.path, b.line, err)
			}
		}
	}
	if count < 2 {
		t.Errorf("only %d blocks of YAML found", count)
	}
}

// TestExampleModules: the manifests of examples/ parse, and bear their directories' names.
func TestExampleModules(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(oracle.Root(t), "examples", "modules", "*", "manifest.yaml"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := module.ParseManifest(text)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if dir := filepath.Base(filepath.Dir(path)); m.Name != dir {
			t.Errorf("%s is of a module called %s", path, m.Name)
		}
	}
}

// TestManifestKeys: docs/module-format.md describes every key that a manifest.yaml may have, and
// no other.
func TestManifestKeys(t *testing.T) {
	p := findPage(t, "docs/module-format.md")
	_, section, _ := strings.Cut(strings.Join(p.prose, "\n"), "\n## manifest.yaml\n")
	section, _, _ = strings.Cut(section, "\n### Globs\n")
	general, services, ok := strings.Cut(section, "\nOf each service:\n")
	if !ok {
		t.Fatal("the page has lost its tables")
	}
	described := firstCells(general)
	for _, key := range firstCells(services) {
		described = append(described, "services."+key)
	}
	var known []string
	for _, c := range []struct{ prefix, text string }{
		{"", "zz: 1"},
		{"dependencies.", "dependencies: {zz: 1}"},
		{"init.", "init: {zz: 1}"},
		{"security.", "security: {zz: 1}"},
		{"build.", "build: {zz: 1}"},
		{"services.", "services: [{zz: 1}]"},
	} {
		for _, key := range knownKeys(t, c.text) {
			known = append(known, c.prefix+key)
		}
	}
	for _, key := range known {
		group := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
		if !group && !slices.Contains(described, key) {
			t.Errorf("the key %s isn't described", key)
		}
	}
	for _, key := range described {
		if !slices.Contains(known, key) {
			t.Errorf("the key %s is described, and isn't known", key)
		}
	}
	// The keys below a service's own stand in the second column.
	for _, text := range []string{"exposed_ports: [{zz: 1}]", "health: {zz: 1}", "dependencies: [{zz: 1}]"} {
		for _, key := range knownKeys(t, "services: [{"+text+"}]") {
			if !strings.Contains(services, "`"+key+"`") {
				t.Errorf("the key %s of %s isn't described", key, text)
			}
		}
	}
}

// firstCells returns what stands in code in the first cells of tables.
func firstCells(text string) []string {
	var all []string
	for line := range strings.SplitSeq(text, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || cells[0] != "" {
			continue
		}
		for _, span := range codeForm.FindAllString(cells[1], -1) {
			all = append(all, strings.Trim(span, "`"))
		}
	}
	return all
}

// knownKeys asks the parser which keys it knows: it names them when it refuses another.
func knownKeys(t *testing.T, text string) []string {
	t.Helper()
	_, err := module.ParseManifest([]byte("schema_version: 1\nname: x\n" + text + "\n"))
	var refused *fault.Error
	if !errors.As(err, &refused) {
		t.Fatalf("%s: %v", text, err)
	}
	m := regexp.MustCompile(`^the keys known here are (.*)$`).FindStringSubmatch(fault.HintOf(err))
	if m == nil {
		t.Fatalf("%s: the hint is %q", text, fault.HintOf(err))
	}
	return strings.Split(m[1], ", ")
}
