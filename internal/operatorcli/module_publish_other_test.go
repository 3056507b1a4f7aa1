package operatorcli

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/signing"
)

// TestPublishToAnotherRegistry publishes to a registry that isn't the platform's own, has a private authority, and wants a password: another
// platform's. The platform says where that is, the login is docker's, and what is missing is said.
func TestPublishToAnotherRegistry(t *testing.T) {
	other := platformtest.Start(t)
	host, dir := other.Config.RegistryHost(), t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := write("ca.pem", other.Config.CAPEM)
	trust, err := ociimage.TrustAlso(authority, flagRegistryCA)
	if err != nil {
		t.Fatal(err)
	}
	p := platformtest.StartWith(t, platform.Options{
		Registry: &url.URL{Scheme: "https", Host: host, Path: "team"}, RegistryTLS: trust,
		RegistryCredentials: write("credentials.json", `{"username": "operator", "password": "`+other.Config.Token.Reveal()+`"}`),
	})

	layout := filepath.Join(dir, "site")
	site := "../../examples/modules/nginx-site/"
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
	keyFile, password := write("test.key", string(sealed)), write("password", "\n")
	publish := func(more ...string) (int, string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		env := map[string]string{"POWERNODE_CONFIG": filepath.Join(p.Dir, operatorapi.CredentialName), "DOCKER_CONFIG": dir}
		app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(key string) string { return env[key] }}
		code := app.Run(t.Context(), New(app), append([]string{"module", "publish", layout, "--key", keyFile, "--password-file", password, "--quiet"}, more...))
		return code, out.String(), errs.String()
	}
	refused := func(want string, more ...string) {
		t.Helper()
		if code, out, errs := publish(more...); code == 0 || out != "" || !strings.Contains(errs, want) || strings.Contains(errs, "wrong-one") {
			t.Errorf("%v: exit code %d, %q, %q; want %q", more, code, out, errs, want)
		}
	}
	trusting := []string{flagRegistryCA, authority}
	refused("with --registry-ca")
	refused("holds no certificate", flagRegistryCA, password)
	refused("no such file", flagRegistryCA, filepath.Join(dir, "none"))
	refused("docker login "+host, trusting...)
	config := func(password string) {
		t.Helper()
		write("config.json", `{"auths": {"`+host+`": {"auth": "`+base64.StdEncoding.EncodeToString([]byte("operator:"+password))+`"}}}`)
	}
	config("wrong-one")
	refused("docker login "+host, trusting...)
	config(other.Config.Token.Reveal())
	refused("takes modules from its own registry, "+host+"/team, only", append(trusting, "--repository", host+"/elsewhere/nginx-site")...)
	for _, more := range [][]string{nil, {"--repository", "modules/nginx-site"}, {"--repository", host + "/team/modules/nginx-site"}} {
		code, out, errs := publish(append(trusting, more...)...)
		if code != 0 || !strings.Contains(out, host+"/team/modules/nginx-site:1") || !strings.Contains(out, "effective priority") {
			t.Errorf("%v: exit code %d, %s%s", more, code, out, errs)
		}
	}
	m, err := p.Operator.Module(t.Context(), "nginx-site")
	if err != nil || m.Repository != host+"/team/modules/nginx-site" {
		t.Errorf("%+v, %v", m, err)
	}
}
