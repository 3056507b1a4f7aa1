package operatorcli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/modulebuild"
)

// runBuild runs powernode module build with args and returns its exit code and streams.
func runBuild(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(k string) string { return env[k] }, Format: cli.Table}
	code = app.Run(context.Background(), New(app), append([]string{"module", "build"}, args...))
	return code, out.String(), errs.String()
}

func TestModuleBuild(t *testing.T) {
	site := "../../examples/modules/nginx-site/"
	dir := t.TempDir()
	layout := filepath.Join(dir, "site")
	build := []string{"--manifest", site + "manifest.yaml", "--from-dir", site + "root", "--version", "1", "--layout", layout, "--work-dir", dir}
	code, stdout, stderr := runBuild(t, map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}, append(build, "-o", "json")...)
	if code != 0 {
		t.Fatal(code, stderr)
	}
	var r modulebuild.Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "nginx-site" || r.Version != "1" || r.Epoch.Unix() != 1700000000 || r.Layout != layout || !strings.HasPrefix(r.Digest, "sha256:") {
		t.Errorf("%+v", r)
	}
	code, stdout, stderr = runBuild(t, nil, append(build, "--force", "--source-date-epoch", "1600000000")...)
	if code != 0 || !strings.Contains(stdout, "2020-09-13T12:26:40Z") || !strings.Contains(stderr, "write the image") {
		t.Error(code, stdout, stderr)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no flags", nil, `required flag(s) "layout", "manifest", "version" not set`},
		{"an argument", append(build, "x"), "unknown command"},
		{"a layout that is there", build, "the directory is not empty; name another directory, or replace it with --force"},
		{"no manifest", []string{"--manifest", "nowhere", "--version", "1", "--layout", "l"}, "no such file or directory; name the module's manifest.yaml"},
		{"a bad epoch", append(build, "--source-date-epoch", "yesterday"), "not a number of seconds"},
		{"a bad flag", append(build, "--nonsense"), "unknown flag"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := runBuild(t, nil, test.args...)
			if code == 0 || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(layout, "index.json")); err != nil {
		t.Error(err)
	}
}
