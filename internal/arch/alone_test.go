package arch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runsAgents are the packages whose tests start the programs as they are built, which no import shows.
var runsAgents = []string{"test/e2e", "test/vm"}

// keepsAlone are those of the packages below whose tests keep away from the machine's cloud by themselves.
var keepsAlone = map[string]string{
	"test/vm": "CLONE_NEWNET", // and its guests' network ends there
}

// TestNoTestAsksTheMachinesCloud: wherever tests can ask who a machine is, their TestMain takes care that it isn't the
// one they run on. A continuous integration's machines are often a cloud's.
func TestNoTestAsksTheMachinesCloud(t *testing.T) {
	wants := make(map[string]string)
	for _, room := range runsAgents {
		wants[room] = "alone.Main("
	}
	for _, p := range list(t, "-test", "./...") {
		room, ok := strings.CutSuffix(strings.TrimPrefix(p.ImportPath, module), ".test")
		if !ok {
			continue
		}
		if slices.ContainsFunc(p.Deps, func(dep string) bool {
			dep, _, _ = strings.Cut(strings.TrimPrefix(dep, module), " ")
			return dep == "internal/identity/places"
		}) {
			wants[room] = "alone.Main("
		}
	}
	wants["internal/identity/cloud"] = "alone.MainAsCloud("
	maps.Copy(wants, keepsAlone)
	for room, word := range wants {
		if !anyTestSays(t, filepath.Join("..", "..", room), word) {
			t.Errorf("the tests of %s can ask the cloud of the machine that they run on, without %q in their TestMain", room, word)
		}
	}
	if len(wants) < 6 {
		t.Errorf("only %v can", wants)
	}
}

func anyTestSays(t *testing.T, dir, word string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), word)
	})
}
