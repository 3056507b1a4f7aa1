package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

const module = "github.com/powernode/powernode-agent/"

// layers are the floors of the house, lowest first. A package may import packages of lower floors
// only, or of its own floor where sameFloor names the pair.
var layers = [][]string{
	{"internal/fault", "internal/nodeapi", "internal/operatorapi", "internal/secret"},
	{"internal/version", "internal/fsverity", "internal/durable", "internal/module", "internal/nodehttp", "internal/operatorclient", "internal/kmod", "internal/device", "internal/tpmkey"},
	{"internal/tree", "internal/bootconfig", "internal/network", "internal/signedtime"},
	{"internal/mount", "internal/erofs", "internal/layer"},
	{"internal/composefs", "internal/switchroot", "internal/persist"},
	{"internal/compose", "internal/store", "internal/identity", "internal/signature", "internal/signing", "internal/nodeclient", "internal/difference", "internal/delta"},
	{"internal/ociimage", "internal/enroll", "internal/trial", "internal/event"},
	{"internal/assemble", "internal/modulebuild", "internal/publish", "internal/health"},
	{"internal/reconcile", "internal/rootfs", "internal/services", "internal/nodeconfig"},
	{"internal/live", "internal/retain", "internal/aftercare", "internal/task"},
	{"internal/change"},
	{"internal/boot", "internal/runtime", "internal/platform"},
	{"internal/cli"},
	{"internal/agentcli", "internal/platformcli", "internal/operatorcli"},
	{"cmd"},
}

// sameFloor lists the arrows between packages of one floor.
var sameFloor = map[string][]string{}

// outside says which packages may import a library that only they may know. Test files are free.
var outside = map[string][]string{
	"oras.land/oras-go":        {"internal/ociimage"},
	"github.com/sigstore/":     {"internal/signature", "internal/signing"},
	"modernc.org/sqlite":       {"internal/platform"},
	"github.com/pressly/":      {"internal/platform"},
	"github.com/jackc/":        {"internal/platform"},
	"github.com/spf13/":        {"internal/cli", "internal/agentcli", "internal/platformcli", "internal/operatorcli"},
	"github.com/vbauerster":    {"internal/cli"},
	"github.com/vishvananda/":  {"internal/network"},
	"github.com/insomniacslk/": {"internal/network"},
	"github.com/godbus/":       {"internal/health"},
	"github.com/google/go-tpm": {"internal/tpmkey"},
	"rsc.io/qr":                {"internal/identity"},
}

// standardOnly are the packages that import nothing but the standard library and each other.
var standardOnly = []string{"internal/fault", "internal/nodeapi", "internal/operatorapi", "internal/secret"}

type goPackage struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestGoFiles  []string
	XTestGoFiles []string
	GoFiles      []string
	Deps         []string
	Standard     bool
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,GoFiles,TestGoFiles,XTestGoFiles,Deps,Standard"}, args...)...)
	cmd.Dir = oracle.Root(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

// floor returns the index of the floor that a package of ours lies on, and the room it is in.
func floor(path string) (int, string) {
	rel := strings.TrimPrefix(path, module)
	for i, rooms := range layers {
		for _, room := range rooms {
			if rel == room || strings.HasPrefix(rel, room+"/") {
				return i, room
			}
		}
	}
	return -1, ""
}

// exempt are the packages that test and development code lives in.
func exempt(path string) bool {
	rel := strings.TrimPrefix(path, module)
	return rel == "internal/arch" || rel == "internal/oracle" || strings.HasPrefix(rel, "test/") || strings.HasPrefix(rel, "bench/") || strings.HasPrefix(rel, "packaging/") ||
		rel == "initramfs" || strings.HasPrefix(rel, "initramfs/")
}

// forTests reports whether a package, by its name, is there for the tests of others only.
func forTests(path string) bool { return strings.HasSuffix(path, "test") }

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		if exempt(p.ImportPath) {
			continue
		}
		from, room := floor(p.ImportPath)
		if from < 0 {
			t.Errorf("%s stands on no floor: add it to layers", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			to, target := floor(imp)
			switch {
			case target == room, to >= 0 && to < from, slices.Contains(sameFloor[room], target):
			case forTests(p.ImportPath) && exempt(imp):
			default:
				t.Errorf("%s imports %s: arrows point down, from %q to lower floors only", p.ImportPath, imp, room)
			}
		}
	}
}

func TestOutsideLibrariesHaveOneDoor(t *testing.T) {
	for _, p := range list(t, "./...") {
		if exempt(p.ImportPath) {
			continue
		}
		_, room := floor(p.ImportPath)
		for _, imp := range p.Imports {
			for library, doors := range outside {
				if strings.HasPrefix(imp, library) && !slices.Contains(doors, room) {
					t.Errorf("%s imports %s: only %v may", p.ImportPath, imp, doors)
				}
			}
			if slices.Contains(standardOnly, room) && strings.Contains(imp, ".") && !strings.HasPrefix(imp, module) {
				t.Errorf("%s imports %s: it is part of the contract and stays with the standard library", p.ImportPath, imp)
			}
		}
	}
}

// TestProgramsLinkOnlyTheirOwn keeps the platform out of the agent, and the reverse.
func TestProgramsLinkOnlyTheirOwn(t *testing.T) {
	forbidden := map[string][]string{
		"powernode-agent":    {"internal/platform", "internal/operatorcli", "internal/modulebuild", "internal/signing", "modernc.org/sqlite"},
		"powernode-platform": {"internal/boot", "internal/runtime", "internal/agentcli", "internal/mount", "internal/enroll", "internal/identity"},
		"powernode":          {"internal/boot", "internal/runtime", "internal/platform", "modernc.org/sqlite"},
	}
	for program, rooms := range forbidden {
		for _, p := range list(t, "./cmd/"+program) {
			for _, dep := range p.Deps {
				if !strings.Contains(dep, ".") {
					continue // the standard library has an internal/runtime too
				}
				rel := strings.TrimPrefix(dep, module)
				for _, room := range rooms {
					if rel == room || strings.HasPrefix(rel, room+"/") {
						t.Errorf("%s links %s", program, rel)
					}
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		docs := docComments(t, p)
		if len(docs) != 1 {
			t.Errorf("%s has %d package comments (%v), want one", p.ImportPath, len(docs), docs)
		}
		base := filepath.Base(p.ImportPath)
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc", "base"}, base) {
			t.Errorf("%s: the name says nothing about what is in it", p.ImportPath)
		}
	}
}
