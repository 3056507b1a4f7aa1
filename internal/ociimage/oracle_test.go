package ociimage

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// program runs one of the independent tools in dir and returns its output.
func program(t *testing.T, dir, path string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=", "HOME="+dir, "SIGSTORE_NO_CACHE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(path), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestOtherToolsAgree has crane check an image of ours, cosign 2 and 3 sign it, finds their
// signatures, attaches them elsewhere in our way, and has cosign verify them there.
func TestOtherToolsAgree(t *testing.T) {
	crane, oras := oracle.Path(t, "crane"), oracle.Path(t, "oras")
	cosign2, cosign3 := oracle.Path(t, "cosign2"), oracle.Path(t, "cosign3")
	dir := t.TempDir()
	write(t, dir, "no-logs.json", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	program(t, dir, cosign2, "generate-key-pair")
	program(t, dir, cosign3, "signing-config", "create", "--out", "no-services.json")
	for _, referrers := range []bool{true, false} {
		c := newClient(t, Options{})
		ref, image, _ := push(t, c, serve(t, newRegistry(t, referrers)), 100_000)
		image.Repository = ref.Repository
		name := ref.Repository + "@" + string(image.Digest)
		if got := program(t, dir, crane, "manifest", ref.Repository+":v1"); got != string(image.Manifest) {
			t.Errorf("crane shows the manifest %s", got)
		}
		program(t, dir, crane, "export", ref.Repository+":v1", "flat.tar")
		if got := program(t, dir, "tar", "-tf", "flat.tar"); strings.Count(got, "usr/lib/big") != 3 || strings.Count(got, "usr/lib/small") != 3 {
			t.Errorf("crane exports\n%s", got)
		}

		program(t, dir, cosign2, "sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", name)
		program(t, dir, cosign3, "sign", "--yes", "--key", "cosign.key", "--signing-config", "no-services.json", name)
		got, err := c.Attached(context.Background(), image)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Found) != 2 || len(got.PassedOver) != 0 {
			t.Fatalf("referrers %v: found %q, passed over %v", referrers, found(got), got.PassedOver)
		}

		elsewhere, sameImage, _ := push(t, c, serve(t, newRegistry(t, referrers)), 100_000)
		for _, f := range got.Found {
			s := Signature{MediaType: f.MediaType, Data: f.Data, Annotations: f.Annotations}
			if f.IsBundle() {
				s.Annotations = map[string]string{
					"dev.sigstore.bundle.content":       "dsse-envelope",
					"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
				}
			} else if f.Annotations["dev.cosignproject.cosign/signature"] == "" || !bytes.Contains(f.Data, []byte(image.Digest)) {
				t.Errorf("the older form came as %q with %v", f.Data, f.Annotations)
			}
			if err := c.Attach(context.Background(), elsewhere.Repository, sameImage, s); err != nil {
				t.Fatal(err)
			}
			name := elsewhere.Repository + "@" + string(image.Digest)
			for _, cosign := range []string{cosign2, cosign3} {
				if cosign == cosign2 && f.IsBundle() {
					continue // needs no older form to be there, and an option to look for the new one
				}
				out := program(t, dir, cosign, "verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "no-logs.json", name)
				if !strings.Contains(out, string(image.Digest)) {
					t.Errorf("cosign says %s", out)
				}
			}
		}
		// The test registry lists artifacts by their config's type, as some real ones do.
		want := map[bool]string{true: "application/vnd.oci.empty.v1+json", false: MediaTypeBundle}[referrers]
		if out := program(t, dir, oras, "discover", "--plain-http", elsewhere.Repository+":v1"); !strings.Contains(out, want) {
			t.Errorf("oras discovers\n%s", out)
		}
	}
}
