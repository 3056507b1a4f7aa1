package platform_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// tools runs the programs that people use with registries against the platform's, with the
// credentials of docker's config file and the platform's CA.
type tools struct {
	t   *testing.T
	dir string
	env []string
}

func newTools(t *testing.T, p *platformtest.Platform) *tools {
	t.Helper()
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte(operatorapi.RegistryUser + ":" + p.Config.Token.Reveal()))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{p.Config.RegistryHost(): map[string]string{"auth": auth}}})
	if err != nil {
		t.Fatal(err)
	}
	// The empty trusted root keeps cosign from looking for one on the network.
	for name, text := range map[string]string{
		"config.json": string(config), "ca.pem": p.Config.CAPEM,
		"root.json": `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`,
		"file.txt":  "some text\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &tools{t, dir, []string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "DOCKER_CONFIG=" + dir, "SSL_CERT_FILE=" + filepath.Join(dir, "ca.pem"), "COSIGN_PASSWORD=",
	}}
}

// run runs a program in the directory and returns what it prints.
func (x *tools) run(program string, args ...string) string {
	x.t.Helper()
	out, err := x.try(program, args...)
	if err != nil {
		x.t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

func (x *tools) try(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(x.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = x.dir, x.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCraneAndOras(t *testing.T) {
	crane, oras := oracle.Path(t, "crane"), oracle.Path(t, "oras")
	p := platformtest.Start(t)
	x := newTools(t, p)
	m := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": strings.Repeat("x", 100_000)}})
	image := m.Repository + "@" + m.Digest

	if got := x.run(crane, "manifest", image); !strings.Contains(got, m.Images[0].Seal) {
		t.Errorf("crane manifest: %s", got)
	}
	// crane checks the digest of each layer as it writes it.
	x.run(crane, "pull", "--format", "oci", image, "layout")
	copied := p.Config.RegistryHost() + "/copies/base:v1"
	x.run(crane, "copy", image, copied)
	if got := strings.TrimSpace(x.run(crane, "digest", copied)); got != m.Digest {
		t.Errorf("crane copy: %s, want %s", got, m.Digest)
	}
	if got := x.run(crane, "catalog", p.Config.RegistryHost()); !strings.Contains(got, "copies/base") {
		t.Errorf("crane catalog: %s", got)
	}
	if got := strings.TrimSpace(x.run(crane, "ls", p.Config.RegistryHost()+"/copies/base")); got != "v1" {
		t.Errorf("crane ls: %s", got)
	}

	x.run(oras, "attach", "--artifact-type", "text/example", copied, "file.txt:text/plain")
	if got := x.run(oras, "discover", "--format", "json", copied); !strings.Contains(got, "text/example") {
		t.Errorf("oras discover: %s", got)
	}
	x.run(oras, "push", p.Config.RegistryHost()+"/files:1", "file.txt:text/plain")
	x.run(oras, "pull", "--output", "pulled", p.Config.RegistryHost()+"/files:1")
	if got, err := os.ReadFile(filepath.Join(x.dir, "pulled", "file.txt")); err != nil || string(got) != "some text\n" {
		t.Errorf("oras pull: %q, %v", got, err)
	}
	if got := x.run(oras, "repo", "tags", p.Config.RegistryHost()+"/files"); !strings.Contains(got, "1") {
		t.Errorf("oras repo tags: %s", got)
	}

	// Without credentials, or with wrong ones, nothing.
	if err := os.WriteFile(filepath.Join(x.dir, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := x.try(crane, "manifest", image); err == nil || !strings.Contains(got, "UNAUTHORIZED") {
		t.Errorf("without credentials: %v, %s", err, got)
	}
}

// TestCosign signs and verifies an image with both generations of cosign, which put signatures in
// different places of the registry.
func TestCosign(t *testing.T) {
	p := platformtest.Start(t)
	m := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x"}})
	image := m.Repository + "@" + m.Digest
	for name, tc := range map[string]struct{ sign, verify [][]string }{
		"cosign2": {
			[][]string{{"sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", image}},
			[][]string{{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--private-infrastructure", image}},
		},
		"cosign3": {
			[][]string{{"signing-config", "create", "--out", "signing.json"}, {"sign", "--yes", "--key", "cosign.key", "--signing-config", "signing.json", image}},
			[][]string{{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "root.json", image}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cosign := oracle.Path(t, name)
			x := newTools(t, p)
			x.run(cosign, "generate-key-pair")
			for _, args := range append(tc.sign, tc.verify...) {
				x.run(cosign, args...)
			}
			// Another key doesn't do.
			for _, file := range []string{"cosign.key", "cosign.pub"} {
				if err := os.Remove(filepath.Join(x.dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			x.run(cosign, "generate-key-pair")
			if got, err := x.try(cosign, tc.verify[0]...); err == nil {
				t.Errorf("verified by another key: %s", got)
			}
		})
	}
}
