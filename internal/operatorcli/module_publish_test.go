package operatorcli

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/signing"
)

// TestModulePublish publishes to the platform's registry, by each name that it has, and not to
// another as if that were the platform's.
func TestModulePublish(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	dir := t.TempDir()
	site := "../../examples/modules/nginx-site/"
	layout := filepath.Join(dir, "site")
	if code, _, errs := runBuild(t, nil, "--manifest", site+"manifest.yaml", "--from-dir", site+"root", "--version", "1", "--layout", layout, "--work-dir", dir); code != 0 {
		t.Fatal(errs)
	}
	key, err := signing.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := key.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "test.key")
	if err := os.WriteFile(keyFile, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := (&connection{path: filepath.Join(p.Dir, "operator.json")}).config()
	if err != nil {
		t.Fatal(err)
	}
	own := config.RegistryHost()
	publish := []string{"module", "publish", layout, "--key", keyFile, "--password-file", password, "--quiet"}
	var first publishDoc
	o.into(&first, publish...)
	if first.Repository != own+"/modules/nginx-site" || first.Tag != "1" || first.Registered == nil || first.Digest != first.Registered.Digest {
		t.Errorf("%+v", first)
	}
	for _, repository := range []string{"modules/nginx-site", own + "/modules/nginx-site"} {
		var again publishDoc
		o.into(&again, append(publish, "--repository", repository)...)
		if again.Repository != first.Repository || again.Digest != first.Digest {
			t.Errorf("to %s: %+v", repository, again)
		}
	}

	var asked atomic.Int64
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	other.Config.ErrorLog = log.New(io.Discard, "", 0)
	other.StartTLS()
	t.Cleanup(other.Close)
	elsewhere := append(publish, "--repository", strings.TrimPrefix(other.URL, "https://")+"/site")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{elsewhere, "the platform takes modules from its own registry, " + own + ", only; leave the host out, or push there with --no-register"},
		{append(elsewhere, "--no-register"), "certificate"},
	} {
		code, out, errs := o.run(tc.args...)
		if code == 0 || out != "" || !strings.Contains(errs, tc.want) || asked.Load() != 0 {
			t.Errorf("%v: exit code %d, %d requests, output %q, error %q", tc.args, code, asked.Load(), out, errs)
		}
	}
}

// TestRegistryByHost checks that CA and credentials of the platform are for the platform's host.
func TestRegistryByHost(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"p.example:8443", "p.example:8443", true},
		{"P.example", "p.example:443", true},
		{"p.example:443", "p.example", true},
		{"p.example:8443", "p.example", false},
		{"p.example.org", "p.example", false},
		{"[::1]:443", "[::1]", true},
	} {
		if sameHost(tc.a, tc.b) != tc.same {
			t.Errorf("%s and %s: same is %v", tc.a, tc.b, !tc.same)
		}
	}
}
