package platform_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/external"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// The users of the tests' registries, and their passwords.
var registryUsers = map[string]string{"builder": "pushes-everything", "platform": "reads-everything", "nodes": "reads-for-nodes"}

// other is a registry that isn't the platform's own: Debian's docker-registry.
type other struct {
	host, scheme string
	// pool knows it; nil over plain http.
	pool *x509.CertPool
}

// startOther starts a registry with the "auth" part of a configuration, over TLS with the certificate and key in a file, or over plain http
// where that is "".
func startOther(t *testing.T, auth, certificate string) *other {
	t.Helper()
	program, dir := oracle.Path(t, "docker-registry"), t.TempDir()
	o := &other{scheme: "http"}
	// It says at level info which port it has taken.
	config := "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp:\n  addr: 127.0.0.1:0\n"
	if certificate != "" {
		o.scheme, o.pool = "https", x509.NewCertPool()
		text, err := os.ReadFile(certificate)
		if err != nil || !o.pool.AppendCertsFromPEM(text) {
			t.Fatal(err)
		}
		config += "  tls: {certificate: " + certificate + ", key: " + certificate + "}\n"
	}
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config+auth), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "serve", path)
	cmd.Env = []string{"OTEL_TRACES_EXPORTER=none"}
	said := &registryLog{listens: make(chan string, 1)}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case o.host = <-said.listens:
	case err := <-ended:
		ended <- err
		t.Fatalf("the registry ended: %v\n%s", err, said.text.Bytes())
	case <-time.After(5 * time.Minute):
		t.Fatal("the registry doesn't say what it listens on")
	}
	return o
}

// registryLog is what a registry says, of which one line names its address.
type registryLog struct {
	text    bytes.Buffer
	listens chan string
	known   bool
}

var listensOn = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)\D`)

func (l *registryLog) Write(p []byte) (int, error) {
	l.text.Write(p)
	if m := listensOn.FindSubmatch(l.text.Bytes()); m != nil && !l.known {
		l.known = true
		l.listens <- string(m[1])
	}
	return len(p), nil
}

// client is a client of the registry.
func (o *other) client(access func(ctx context.Context, host, repository string) (ociimage.Access, error)) *ociimage.Client {
	return ociimage.NewClient(ociimage.Options{TLS: o.tls(), PlainHTTP: o.pool == nil, Access: access, Retry: ociimage.Retrying{Attempts: 1}})
}

func (o *other) tls() *tls.Config {
	if o.pool == nil {
		return nil
	}
	return &tls.Config{RootCAs: o.pool}
}

// platform starts a platform whose modules are in the registry, below "team". credentials are the file's; "" is none.
func (o *other) platform(t *testing.T, credentials string) (p *platformtest.Platform, file string) {
	t.Helper()
	u, err := external.ParseURL(o.scheme + "://" + o.host + "/team")
	if err != nil {
		t.Fatal(err)
	}
	options := platform.Options{Registry: u, RegistryTLS: o.tls()}
	if credentials != "" {
		file = filepath.Join(t.TempDir(), "credentials.json")
		writeFile(t, file, credentials)
		options.RegistryCredentials = file
	}
	return platformtest.StartWith(t, options), file
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fill pushes modules to a platform with a registry of its own, and copies them from there with crane, as an operator would who moves.
// It returns their registrations by name.
func (o *other) fill(t *testing.T, certificate string, modules ...platformtest.Module) map[string]operatorapi.ModuleRegister {
	t.Helper()
	crane, dir, from := oracle.Path(t, "crane"), t.TempDir(), platformtest.Start(t)
	basic := func(user, password string) map[string]string {
		return map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{
		from.Config.RegistryHost(): basic(operatorapi.RegistryUser, from.Config.Token.Reveal()), o.host: basic("builder", registryUsers["builder"]),
	}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "config.json"), string(config))
	roots := from.Config.CAPEM
	if certificate != "" {
		text, err := os.ReadFile(certificate)
		if err != nil {
			t.Fatal(err)
		}
		roots += string(text)
	}
	writeFile(t, filepath.Join(dir, "roots.pem"), roots)
	out := map[string]operatorapi.ModuleRegister{}
	for _, m := range modules {
		in := from.Push(m)
		cmd := exec.CommandContext(t.Context(), crane, "copy", from.Config.RegistryHost()+"/"+in.Repository+"@"+in.Digest, o.host+"/team/"+in.Repository+":"+m.Version)
		cmd.Env = []string{"HOME=" + dir, "DOCKER_CONFIG=" + dir, "SSL_CERT_FILE=" + filepath.Join(dir, "roots.pem")}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("crane copy: %v\n%s", err, text)
		}
		out[m.Name] = in
	}
	return out
}

// node enrolls a node with the agent's own packages, and returns its client of the platform.
func nodeOf(t *testing.T, p *platformtest.Platform, modules ...string) *nodeclient.Client {
	t.Helper()
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if _, err := p.Operator.Assign(t.Context(), "web-1", operatorapi.AssignmentCreate{Module: m}); err != nil {
			t.Fatal(err)
		}
	}
	token, err := p.Operator.CreateToken(t.Context(), "web-1", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	credentials, _, err := enroll.Ensure(t.Context(), enroll.Options{
		Dir: filepath.Join(t.TempDir(), "credentials"), AgentVersion: "v1", Architecture: "amd64",
		Discover: func(context.Context) (enroll.Bootstrap, error) {
			return enroll.Bootstrap{PlatformURL: p.URL, CAPEM: []byte(p.Config.CAPEM), Token: secret.New(token.Token)}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := nodeclient.New(nodeclient.Config{Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// pull reads a module as a node does, with what the platform gives it.
func (o *other) pull(t *testing.T, node *nodeclient.Client, m nodeapi.Module) error {
	t.Helper()
	client := o.client(func(ctx context.Context, host, repository string) (ociimage.Access, error) {
		a, err := node.RegistryAccess(ctx, host+"/"+repository)
		return ociimage.Access{Username: a.Username, Password: secret.New(a.Password), Token: secret.New(a.Token)}, err
	})
	defer client.Close()
	image, err := client.Resolve(t.Context(), ociimage.Reference{Repository: m.Repository, Digest: digest.Digest(m.Digest)}, "amd64")
	if err != nil {
		return err
	}
	_, _, err = ociimage.Pull(t.Context(), client, image, ociimage.PullOptions{Sink: layer.Discard{}})
	return err
}

var externalModules = []platformtest.Module{
	{Name: "base", Version: "1.0", Files: map[string]string{"usr/bin/x": strings.Repeat("x", 50_000)}}, {Name: "other", Version: "1.0", Files: map[string]string{"usr/y": "y"}},
}

// TestExternalTokens has a registry with a token service, which is what most have: a node gets a token that opens the repository of its
// module for reading and nothing else, and the platform's password stays with the platform.
func TestExternalTokens(t *testing.T) {
	service := newTokenService(t)
	o := startOther(t, service.config(), "")
	registrations := o.fill(t, "", externalModules...)
	p, file := o.platform(t, `{"username": "platform", "password": "wrong"}`)
	if _, err := p.Operator.RegisterModule(t.Context(), registrations["base"]); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "401") {
		t.Errorf("registered with a wrong password: %v", err)
	}
	// The file is read anew.
	writeFile(t, file, `{"username": "platform", "password": "reads-everything"}`)
	for _, in := range registrations {
		if _, err := p.Operator.RegisterModule(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	info, err := p.Operator.Info(t.Context())
	if err != nil || info.Registry != o.host+"/team" {
		t.Errorf("%+v, %v", info, err)
	}
	node := nodeOf(t, p, "base")
	// A token is good for seconds, which on a busy machine would be over before all have asked.
	defer p.Clock.Stop()()
	list, err := node.Modules(t.Context())
	if err != nil || list.Count != 1 || len(list.RootDigest) != 64 || list.Modules[0].Repository != o.host+"/team/modules/base" {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := o.pull(t, node, list.Modules[0]); err != nil {
		t.Error(err)
	}
	access, err := node.RegistryAccess(t.Context(), list.Modules[0].Repository)
	if err != nil || access.Token == "" || access.Username != "" || strings.Contains(access.Token, registryUsers["platform"]) {
		t.Fatalf("access %+v, %v", access, err)
	}
	for request, want := range map[string]int{
		"GET /v2/team/modules/base/tags/list":       200,
		"GET /v2/team/modules/other/tags/list":      401,
		"POST /v2/team/modules/base/blobs/uploads/": 401,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := bearer(t, method, "http://"+o.host+path, access.Token); got != want {
			t.Errorf("%s with a node's token: %d, want %d", request, got, want)
		}
	}
	// Of what isn't assigned to it, a node learns nothing, and asks the registry as anybody would.
	before := service.asked.Load()
	for _, repository := range []string{o.host + "/team/modules/other", o.host + "/team/none", o.host + "/modules/base", "registry.example/team/modules/base", "base"} {
		if access, err := node.RegistryAccess(t.Context(), repository); err != nil || access != (nodeapi.RegistryAccess{}) {
			t.Errorf("access to %s: %+v, %v", repository, access, err)
		}
	}
	// All nodes that ask within seconds get the same token.
	for range 5 {
		if again, err := node.RegistryAccess(t.Context(), list.Modules[0].Repository); err != nil || again.Token != access.Token {
			t.Errorf("another token: %v", err)
		}
	}
	if n := service.asked.Load(); n != before {
		t.Errorf("the token service was asked %d times more", n-before)
	}
	p.Clock.Advance(time.Minute)
	if later, err := node.RegistryAccess(t.Context(), list.Modules[0].Repository); err != nil || later.Token == access.Token {
		t.Errorf("the same token a minute later, %v", err)
	}
	if a := p.Do(nil, http.MethodGet, nodeapi.PathRegistryAccess+"?repository="+list.Modules[0].Repository, nil); a.Status != http.StatusUnauthorized {
		t.Errorf("a stranger: %d %s", a.Status, a.Body)
	}
	if a := p.Do(nil, http.MethodGet, "/v2/", nil); a.Status != http.StatusNotFound || !strings.Contains(string(a.Body), o.host) {
		t.Errorf("the platform's own registry: %d %s", a.Status, a.Body)
	}
}

// TestExternalPasswords has a registry over TLS that knows passwords only: nodes get the user that is meant for them, or none.
func TestExternalPasswords(t *testing.T) {
	certificate := selfSigned(t)
	var lines strings.Builder
	for user, password := range registryUsers {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s:%s\n", user, hash)
	}
	htpasswd := filepath.Join(t.TempDir(), "htpasswd")
	writeFile(t, htpasswd, lines.String())
	o := startOther(t, "auth: {htpasswd: {realm: test, path: "+htpasswd+"}}\n", certificate)
	registrations := o.fill(t, certificate, externalModules[0])
	p, file := o.platform(t, `{"username": "platform", "password": "reads-everything"}`)
	if _, err := p.Operator.RegisterModule(t.Context(), registrations["base"]); err != nil {
		t.Fatal(err)
	}
	node := nodeOf(t, p, "base")
	list, err := node.Modules(t.Context())
	if err != nil || len(list.RootDigest) != 64 {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := o.pull(t, node, list.Modules[0]); err == nil || !strings.Contains(err.Error(), "knows passwords only") {
		t.Errorf("pulled without a user for nodes: %v", err)
	}
	writeFile(t, file, `{"username": "platform", "password": "reads-everything", "nodes": {"username": "nodes", "password": "reads-for-nodes"}}`)
	if err := o.pull(t, node, list.Modules[0]); err != nil {
		t.Error(err)
	}
	if a, err := node.RegistryAccess(t.Context(), list.Modules[0].Repository); err != nil || a.Username != "nodes" || a.Password != "reads-for-nodes" {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestExternalOpen has a registry that everybody may read.
func TestExternalOpen(t *testing.T) {
	o := startOther(t, "", "")
	in := o.fill(t, "", externalModules[0])["base"]
	p, _ := o.platform(t, "")
	in.Repository = o.host + "/team/" + in.Repository
	m, err := p.Operator.RegisterModule(t.Context(), in)
	if err != nil || m.Repository != in.Repository {
		t.Fatalf("%+v, %v", m, err)
	}
	missing := in
	missing.Digest = "sha256:" + strings.Repeat("0", 64)
	if _, err := p.Operator.RegisterModule(t.Context(), missing); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "doesn't hold it") {
		t.Errorf("registered what isn't there: %v", err)
	}
	node := nodeOf(t, p, "base")
	list, err := node.Modules(t.Context())
	if err != nil || len(list.RootDigest) != 64 {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := o.pull(t, node, list.Modules[0]); err != nil {
		t.Error(err)
	}
	// The images by which roots are computed are made again from the other registry.
	if err := os.RemoveAll(filepath.Join(p.Dir, "modules")); err != nil {
		t.Fatal(err)
	}
	if p.Database() == nil {
		p = p.Restart()
		p.Execute("DELETE FROM roots")
		got, err := p.Operator.Assignments(t.Context(), "web-1")
		if err != nil || got.ExpectedRootDigest != list.RootDigest {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func bearer(t *testing.T, method, url, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
