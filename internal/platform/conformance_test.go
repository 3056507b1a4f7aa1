package platform_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestConformance runs the Open Container Initiative's own suite against the platform's registry as a build server would use it: over TLS,
// with a token of the role deploy. It asks for all that version 1.1 of the distribution specification has. What it then finds disabled are
// drafts of the next version, manifests that refer to what isn't there, which the registry refuses, and mounting a blob from nowhere in particular.
func TestConformance(t *testing.T) {
	suite := oracle.Path(t, "oci-conformance")
	p := platformtest.Start(t)
	token, err := p.Operator.CreateOperator(t.Context(), operatorapi.OperatorCreate{Name: "ci", Role: operatorapi.RoleDeploy})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, []byte(p.Config.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), suite)
	cmd.Dir = dir
	cmd.Env = []string{
		"SSL_CERT_FILE=" + ca, "HOME=" + dir, "OCI_VERSION=1.1", "OCI_RESULTS_DIR=" + dir, "OCI_REGISTRY=" + p.Config.RegistryHost(), "OCI_TLS=enabled",
		"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_USERNAME=" + operatorapi.RegistryUser, "OCI_PASSWORD=" + token.Token,
		"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
	}
	out, err := cmd.CombinedOutput()
	_, summary, _ := strings.Cut(string(out), "OCI Conformance Result:")
	if err != nil {
		t.Fatalf("%v\n%s", err, regexp.MustCompile(`(?m)^.*FAIL.*\n.*$`).FindAllString(string(out), -1))
	}
	for _, line := range strings.Split(summary, "\n") {
		name, result, found := strings.Cut(line, "..:")
		switch name = strings.Trim(name, " ."); {
		case !found, strings.TrimSpace(result) == "Pass", strings.ContainsAny(result, "0123456789"):
		case name == "Blob anonymous mount", name == "Manifest put with tag params", name == "Sparse Manifests", strings.HasPrefix(name, "Tag Param"):
		default:
			t.Errorf("%s: %s", name, strings.TrimSpace(result))
		}
	}
	if !strings.Contains(summary, "Manifest delete") {
		t.Errorf("the suite says something else than it did: %s", out)
	}
}
