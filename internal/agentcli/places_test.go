package agentcli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/cli"
)

// TestUsualPlaces: the sources that counted at boot count on the running node.
func TestUsualPlaces(t *testing.T) {
	if got := usualPlaces("", ""); len(got.Sources()) > 0 || got.Claim() {
		t.Error("a test's machine is asked who it is")
	}
	if cli.NewApp().Machine != "/" {
		t.Error("no machine is asked who it is")
	}
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want []string) {
		t.Helper()
		if d := cmp.Diff(want, usualPlaces(root, "").Only); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	check("nothing is known", nil)
	if where := usualPlaces(root, ""); where.Sys != filepath.Join(root, "sys") {
		t.Errorf("what the firmware says is of %s", where.Sys)
	}
	put("proc/cmdline", "ro powernode.identity=boot,claim")
	check("the command line", []string{"boot", "claim"})
	put("proc/cmdline", "ro powernode.identity=boott")
	check("a mistake", []string{})
	put("run/powernode/boot.json", `{"identity_sources":["aws"]}`)
	check("boot.yaml", []string{"aws"})
	put("run/powernode/boot.json", `{"identity_sources":[]}`)
	check("none", []string{})
	put("run/powernode/boot.json", `{}`)
	check("all", nil)
}
