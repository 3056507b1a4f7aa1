package signature

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/signing"
)

// cosigns are the two versions of the real program: Debian 13's 2.5 and the coming release's 3.1.
var cosigns = []string{"cosign2", "cosign3"}

// cosign runs a version of the program in dir and returns what it printed.
func cosign(t *testing.T, dir, tool string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(oracle.Path(t, tool), args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "COSIGN_PASSWORD="}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// reg is a registry on loopback.
type reg struct {
	t    *testing.T
	base string
}

func newRegistry(t *testing.T, referrers bool) *reg {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(referrers), registry.Logger(silent())))
	t.Cleanup(server.Close)
	return &reg{t, server.URL}
}

func (r *reg) host() string { return strings.TrimPrefix(r.base, "http://") }

func (r *reg) do(method, path, contentType string, body []byte) (int, []byte) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.base+path, bytes.NewReader(body))
	fatal(r.t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	fatal(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fatal(r.t, err)
	return resp.StatusCode, text
}

// blob uploads a blob and returns its descriptor.
func (r *reg) blob(repo, mediaType string, data []byte, annotations map[string]string) map[string]any {
	r.t.Helper()
	if code, text := r.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(data), "application/octet-stream", data); code != http.StatusCreated {
		r.t.Fatalf("upload: %d %s", code, text)
	}
	d := map[string]any{"mediaType": mediaType, "digest": digestOf(data), "size": len(data)}
	if annotations != nil {
		d["annotations"] = annotations
	}
	return d
}

func (r *reg) manifest(repo, reference string, doc []byte) {
	r.t.Helper()
	if reference == "" {
		reference = digestOf(doc)
	}
	if code, text := r.do("PUT", "/v2/"+repo+"/manifests/"+reference, "application/vnd.oci.image.manifest.v1+json", doc); code != http.StatusCreated {
		r.t.Fatalf("push %s: %d %s", reference, code, text)
	}
}

// pushImage pushes a module's image and returns what it is pulled as.
func (r *reg) pushImage(repo string) Subject {
	r.t.Helper()
	image := imageOf("nginx", "1.28.0")
	config := r.blob(repo, "application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), nil)
	var doc map[string]any
	fatal(r.t, json.Unmarshal(image.Manifest, &doc))
	doc["config"] = config
	manifest, err := json.Marshal(doc)
	fatal(r.t, err)
	r.manifest(repo, "", manifest)
	image.Repository, image.Manifest, image.ManifestDigest = r.host()+"/"+repo, manifest, digestOf(manifest)
	return image
}

// attachAll pushes both forms of a signature the way cosign does.
func (r *reg) attachAll(repo string, image Subject, s signing.Signatures) {
	r.t.Helper()
	r.attachBundle(repo, image, s.Bundle)
	r.attachPayload(repo, image, Bundle{Data: s.Payload, Annotations: map[string]string{signing.AnnotationSignature: s.Signature}})
}

func (r *reg) attachBundle(repo string, image Subject, bundle []byte) {
	r.t.Helper()
	doc, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": signing.BundleMediaType,
		"config":  r.blob(repo, "application/vnd.oci.empty.v1+json", []byte("{}"), nil),
		"layers":  []any{r.blob(repo, signing.BundleMediaType, bundle, nil)},
		"subject": map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.ManifestDigest, "size": len(image.Manifest)},
		"annotations": map[string]string{
			signing.AnnotationBundleContent: signing.BundleContent, signing.AnnotationPredicateType: signing.PredicateType,
		},
	})
	fatal(r.t, err)
	r.manifest(repo, "", doc)
}

func (r *reg) attachPayload(repo string, image Subject, b Bundle) {
	r.t.Helper()
	doc, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": r.blob(repo, "application/vnd.oci.image.config.v1+json", []byte(`{"rootfs":{"type":"layers","diff_ids":["`+digestOf(b.Data)+`"]}}`), nil),
		"layers": []any{r.blob(repo, signing.PayloadMediaType, b.Data, b.Annotations)},
	})
	fatal(r.t, err)
	r.manifest(repo, strings.Replace(image.ManifestDigest, ":", "-", 1)+".sig", doc)
}

// attached reads back every signature of an image, wherever it hangs.
func (r *reg) attached(repo string, image Subject) []Bundle {
	r.t.Helper()
	tag := strings.Replace(image.ManifestDigest, ":", "-", 1)
	var out []Bundle
	layers := func(reference string) {
		code, text := r.do("GET", "/v2/"+repo+"/manifests/"+reference, "", nil)
		if code != http.StatusOK {
			return
		}
		var doc struct {
			Layers []struct {
				MediaType, Digest string
				Annotations       map[string]string
			}
		}
		fatal(r.t, json.Unmarshal(text, &doc))
		for _, l := range doc.Layers {
			_, data := r.do("GET", "/v2/"+repo+"/blobs/"+l.Digest, "", nil)
			out = append(out, Bundle{MediaType: l.MediaType, Data: data, Annotations: l.Annotations})
		}
	}
	for _, path := range []string{"/referrers/" + image.ManifestDigest, "/manifests/" + tag} {
		code, text := r.do("GET", "/v2/"+repo+path, "", nil)
		if code != http.StatusOK {
			continue
		}
		var index struct{ Manifests []struct{ Digest string } }
		fatal(r.t, json.Unmarshal(text, &index))
		for _, m := range index.Manifests {
			layers(m.Digest)
		}
	}
	layers(tag + ".sig")
	return out
}

// TestCosignAcceptsOurSignatures: both real programs verify what package signing makes, in each
// form alone, and refuse it under another key.
func TestCosignAcceptsOurSignatures(t *testing.T) {
	r := newRegistry(t, true)
	key, foreign := newSigner(t), newSigner(t)
	dir := t.TempDir()
	fatal(t, os.WriteFile(filepath.Join(dir, "cosign.pub"), key.PublicPEM(), 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "foreign.pub"), foreign.PublicPEM(), 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "root.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o600))
	for _, form := range []string{"both", "bundle", "older"} {
		image := r.pushImage(form)
		s, err := signing.SignManifest(key.Key, signing.Image{Digest: image.ManifestDigest, Repository: image.Repository})
		fatal(t, err)
		switch form {
		case "both":
			r.attachAll(form, image, s)
		case "bundle":
			r.attachBundle(form, image, s.Bundle)
		case "older":
			r.attachPayload(form, image, Bundle{Data: s.Payload, Annotations: map[string]string{signing.AnnotationSignature: s.Signature}})
		}
		for _, tool := range cosigns {
			if form == "bundle" && tool == "cosign2" {
				continue // 2.5 doesn't look for bundles on images
			}
			t.Run(tool+" "+form, func(t *testing.T) {
				verify := func(pub string) (string, error) {
					return cosign(t, dir, tool, "verify", "--key", pub, "--trusted-root", "root.json", "--insecure-ignore-tlog", "--allow-http-registry", image.Repository+"@"+image.ManifestDigest)
				}
				out, err := verify("cosign.pub")
				if err != nil || !strings.Contains(out, image.ManifestDigest) {
					t.Errorf("%v: %s", err, out)
				}
				if out, err := verify("foreign.pub"); err == nil {
					t.Errorf("accepted under another key: %s", out)
				}
			})
		}
	}
}

// TestWeAcceptCosignsSignatures: what both real programs attach, with a key that the real program
// made, to registries with and without the referrers API.
func TestWeAcceptCosignsSignatures(t *testing.T) {
	for _, tool := range cosigns {
		for _, referrers := range []bool{true, false} {
			name := tool + " with referrers"
			if !referrers {
				name = tool + " without referrers"
			}
			t.Run(name, func(t *testing.T) {
				r := newRegistry(t, referrers)
				image := r.pushImage("modules/nginx")
				dir := t.TempDir()
				if out, err := cosign(t, dir, tool, "generate-key-pair"); err != nil {
					t.Fatal(err, out)
				}
				args := []string{"sign", "--yes", "--key", "cosign.key", "--tlog-upload=false"}
				if tool == "cosign3" {
					fatal(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`), 0o600))
					args = []string{"sign", "--yes", "--key", "cosign.key", "--signing-config", "config.json"}
				}
				if out, err := cosign(t, dir, tool, append(args, "--allow-http-registry", image.Repository+"@"+image.ManifestDigest)...); err != nil {
					t.Fatal(err, out)
				}
				public, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
				fatal(t, err)
				policy := strings.Replace(keyPolicy(string(public)), "registry.test:5000/modules/*", r.host()+"/modules/*", 1)
				v := verifierFor(t, policy, nil, Options{})
				bundles := r.attached("modules/nginx", image)
				account, err := v.VerifyManifest(image, bundles)
				fatal(t, err)
				if account.KeyName != "release" {
					t.Errorf("account %+v", account)
				}
				// As they are kept beside a module, too.
				for i, b := range bundles {
					raw, err := b.Encode()
					fatal(t, err)
					bundles[i] = DecodeBundle(raw)
				}
				if _, err := v.VerifyManifest(image, bundles); err != nil {
					t.Error(err)
				}
				foreign := verifierFor(t, strings.Replace(keyPolicy(string(newSigner(t).PublicPEM())), "registry.test:5000/modules/*", "**", 1), nil, Options{})
				account, err = foreign.VerifyManifest(image, bundles)
				wantRefused(t, account, err, CheckSignature, "rule site")
			})
		}
	}
}

// TestCosignReadsOurKeys: a key of package signing signs and verifies a file with both real
// programs, and we verify the bundle.
func TestCosignReadsOurKeys(t *testing.T) {
	for _, tool := range cosigns {
		t.Run(tool, func(t *testing.T) {
			dir := t.TempDir()
			key := newSigner(t)
			sealed, err := key.Seal(nil)
			fatal(t, err)
			fatal(t, os.WriteFile(filepath.Join(dir, "cosign.key"), sealed, 0o600))
			fatal(t, os.WriteFile(filepath.Join(dir, "file"), []byte("hello"), 0o600))
			args := []string{"sign-blob", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--new-bundle-format", "--bundle", "bundle.json", "file"}
			if tool == "cosign3" {
				args = []string{"sign-blob", "--yes", "--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--bundle", "bundle.json", "file"}
			}
			if out, err := cosign(t, dir, tool, args...); err != nil {
				t.Fatal(err, out)
			}
			bundle, err := os.ReadFile(filepath.Join(dir, "bundle.json"))
			fatal(t, err)
			account, err := VerifyBlob(BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Artifact: strings.NewReader("hello")})
			fatal(t, err)
			if account.KeyID != key.ID() {
				t.Errorf("account %+v", account)
			}
			if account, err := VerifyBlob(BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Artifact: strings.NewReader("hallo")}); err == nil {
				t.Errorf("accepted another file: %+v", account)
			}
		})
	}
}

// TestCosignAgreesOnKeyless: the instance that the keyless tests stand on is one that the real
// program accepts too, so that the tests don't agree with themselves only.
func TestCosignAgreesOnKeyless(t *testing.T) {
	r := newRegistry(t, true)
	in, foreign := newInstance(t), newInstance(t)
	dir := t.TempDir()
	fatal(t, os.WriteFile(filepath.Join(dir, "root.json"), in.trustedRoot(t), 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "foreign.json"), foreign.trustedRoot(t), 0o600))
	for _, form := range []string{"bundle", "older"} {
		t.Run(form, func(t *testing.T) {
			image := r.pushImage(form)
			if form == "bundle" {
				r.attachBundle(form, image, attach(t, in.sign(t, how{}, statementFor(image.ManifestDigest), true)).Data)
			} else {
				claim := payloadFor(image)
				r.attachPayload(form, image, older(t, in.sign(t, how{}, claim, false), claim))
			}
			// 2.5 takes a trusted root for bundles of files only.
			verify := func(root, identity string) (string, error) {
				return cosign(t, dir, "cosign3", "verify", "--trusted-root", root, "--offline", "--certificate-identity", identity,
					"--certificate-oidc-issuer", testIssuer, "--allow-http-registry", image.Repository+"@"+image.ManifestDigest)
			}
			if out, err := verify("root.json", testSubject); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := verify("root.json", "https://evil"); err == nil {
				t.Errorf("accepted another identity: %s", out)
			}
			if out, err := verify("foreign.json", testSubject); err == nil {
				t.Errorf("accepted another root: %s", out)
			}
		})
	}
}
