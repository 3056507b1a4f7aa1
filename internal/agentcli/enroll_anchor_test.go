package agentcli

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestEnrollByFingerprint enrolls with a platform whose CA's fingerprint is all that is known.
func TestEnrollByFingerprint(t *testing.T) {
	p := platformtest.Start(t)
	block, _ := pem.Decode([]byte(p.Config.CAPEM))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	mark := identity.Fingerprint(ca)
	another := identity.Fingerprint(pkitest.NewCA(t, "another").Cert)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(p.Config.CAPEM)) }))
	defer web.Close()
	for i, c := range []struct {
		name string
		args []string
		err  string
	}{
		{"from the platform", []string{"--ca-sha256", strings.ToUpper(mark)}, ""},
		{"from a URL", []string{"--ca-sha256", mark, "--ca-url", web.URL}, ""},
		{"another's", []string{"--ca-sha256", another}, "no certificate has the fingerprint"},
		{"a URL alone", []string{"--ca-url", web.URL}, "--ca-file or --ca-sha256"},
		{"nothing", nil, "--ca-file or --ca-sha256"},
		{"no fingerprint", []string{"--ca-sha256", "x"}, "--ca-sha256: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "node-" + string(rune('a'+i))
			if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
				t.Fatal(err)
			}
			token, err := p.Operator.CreateToken(t.Context(), name, operatorapi.TokenCreate{})
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "token")
			if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.JSON, Getenv: func(string) string { return "" }}
			args := append([]string{"enroll", "--state", filepath.Join(dir, "state"), "--platform-url", p.URL, "--token-file", file, "--tries", "1"}, c.args...)
			code := app.Run(t.Context(), New(app), args)
			if (code == cli.ExitOK) != (c.err == "") || !strings.Contains(errs.String(), c.err) || strings.Contains(errs.String()+out.String(), token.Token) {
				t.Errorf("code %d: %s%s, want %q", code, &out, &errs, c.err)
			}
		})
	}
}
