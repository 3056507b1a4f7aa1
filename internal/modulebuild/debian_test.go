package modulebuild

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/compose"
)

// TestDebian builds the example modules from a real Debian mirror. It is for POWERNODE_TEST_MIRROR=1
// alone: it takes a minute and the network. Elsewhere the demo does the same.
func TestDebian(t *testing.T) {
	if os.Getenv("POWERNODE_TEST_MIRROR") == "" {
		t.Skip("POWERNODE_TEST_MIRROR is not set")
	}
	if os.Geteuid() != 0 {
		t.Skip("unpacking packages takes root's rights")
	}
	dir := t.TempDir()
	build := func(name, layout string, o Options) *Result {
		t.Helper()
		examples := filepath.Join("../../examples/modules", name)
		text, err := os.ReadFile(filepath.Join(examples, "manifest.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		o.Manifest, o.Version, o.Layout, o.Log = text, "1", filepath.Join(dir, layout), &testLog{t: t}
		r, err := Build(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d entries, %d bytes, %d compressed, epoch %s, digest %s, users %q, removed %q", name, r.Entries, r.Bytes, r.LayerBytes, r.Epoch, r.Digest, r.Users, r.Removed)
		return r
	}
	base := build("system-base", "base", Options{})
	if base.Bytes > 250<<20 {
		t.Errorf("system-base has %d bytes", base.Bytes)
	}
	nginx := build("nginx", "nginx", Options{Bases: []string{filepath.Join(dir, "base")}})
	if again := build("nginx", "nginx2", Options{Bases: []string{filepath.Join(dir, "base")}}); again.Digest != nginx.Digest {
		t.Errorf("the same packages gave %s, then %s", nginx.Digest, again.Digest)
	}
	if again := build("system-base", "base2", Options{}); again.Digest != base.Digest {
		t.Errorf("the same packages gave %s, then %s", base.Digest, again.Digest)
	}
	build("nginx-site", "site", Options{FromDir: "../../examples/modules/nginx-site/root"})
	var inputs []compose.Input
	for i, layout := range []string{"base", "nginx", "site"} {
		in, err := readBase(context.Background(), filepath.Join(dir, layout), runtime.GOARCH, objects{t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		in.EffectivePriority = 1000 * i
		inputs = append(inputs, in)
	}
	r, err := compose.Compose(inputs)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.Report.WriteText(&text, 20); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	if owner, _ := r.Owner("etc/nginx/sites-available/default"); owner != "nginx-site" {
		t.Errorf("the site is that of %s", owner)
	}
	if keep := os.Getenv("POWERNODE_TEST_KEEP"); keep != "" {
		if err := os.CopyFS(keep, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
}

type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	if testing.Verbose() {
		l.t.Logf("%s", p)
	}
	return len(p), nil
}
