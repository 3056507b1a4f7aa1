package registry

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

func (s *server) orasRepository(t *testing.T, user, repository string) *remote.Repository {
	t.Helper()
	host := strings.TrimPrefix(s.URL, "http://")
	repo, err := remote.NewRepository(host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Client: s.Client(), Credential: auth.StaticCredential(host, auth.Credential{Username: user, Password: "secret"})}
	return repo
}

// TestOras pushes an image with a referrer by oras-go, and reads it back as a node would.
func TestOras(t *testing.T) {
	s := newServer(t, options{})
	ctx := t.Context()
	layer := bytes.Repeat([]byte("some layer\n"), 300_000)
	src := memory.New()
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageLayerZstd, layer)
	if err := src.Push(ctx, d, bytes.NewReader(layer)); err != nil {
		t.Fatal(err)
	}
	image, err := oras.PackManifest(ctx, src, oras.PackManifestVersion1_1, "application/vnd.example", oras.PackManifestOptions{
		Layers: []ocispec.Descriptor{d}, ManifestAnnotations: map[string]string{"name": "m"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Tag(ctx, image, "v1"); err != nil {
		t.Fatal(err)
	}
	push := s.orasRepository(t, "operator", "assigned/m")
	if _, err := oras.Copy(ctx, src, "v1", push, "v1", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	signature, err := oras.PackManifest(ctx, push, oras.PackManifestVersion1_1, "application/vnd.example.signature", oras.PackManifestOptions{
		Subject: &image, ManifestAnnotations: map[string]string{"signed": "yes"},
	})
	if err != nil {
		t.Fatal(err)
	}

	pull := s.orasRepository(t, "node", "assigned/m")
	var found []ocispec.Descriptor
	if err := pull.Referrers(ctx, image, "application/vnd.example.signature", func(list []ocispec.Descriptor) error {
		found = append(found, list...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Digest != signature.Digest || found[0].Annotations["signed"] != "yes" {
		t.Errorf("referrers %+v", found)
	}
	got, err := pull.Resolve(ctx, "v1")
	if err != nil || got.Digest != image.Digest || got.MediaType != ocispec.MediaTypeImageManifest {
		t.Fatalf("%+v, %v", got, err)
	}
	body, err := pull.Blobs().Fetch(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	// Resuming needs a blob that can be read from the middle.
	seeker, ok := body.(io.Seeker)
	if !ok {
		t.Fatal("the blob can't be read from the middle")
	}
	if _, err := seeker.Seek(int64(len(layer)-100), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(rest, layer[len(layer)-100:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	var tags []string
	if err := pull.Tags(ctx, "", func(list []string) error { tags = append(tags, list...); return nil }); err != nil || len(tags) != 1 {
		t.Errorf("%v, %v", tags, err)
	}
	if _, err := oras.Copy(ctx, src, "v1", pull, "v2", oras.DefaultCopyOptions); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a node pushed: %v", err)
	}
	// A blob that another repository holds is mounted rather than sent again.
	other := s.orasRepository(t, "operator", "assigned/copy")
	if err := other.Mount(ctx, d, "assigned/m", func() (io.ReadCloser, error) {
		t.Error("the blob was sent again")
		return io.NopCloser(bytes.NewReader(layer)), nil
	}); err != nil {
		t.Error(err)
	}
	if err := pull.Delete(ctx, image); err == nil {
		t.Error("a manifest was deleted")
	}
}

// TestGoContainerRegistry pushes an index of two architectures as crane does, and reads it back.
func TestGoContainerRegistry(t *testing.T) {
	s := newServer(t, options{})
	repository, err := name.NewRepository(strings.TrimPrefix(s.URL, "http://")+"/assigned/multi", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	as := func(user string) []ggcr.Option {
		return []ggcr.Option{ggcr.WithAuth(&authn.Basic{Username: user, Password: "secret"}), ggcr.WithContext(t.Context())}
	}
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(200_000, 3)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcr.WriteIndex(repository.Tag("v1"), index, as("operator")...); err != nil {
		t.Fatal(err)
	}
	got, err := ggcr.Index(repository.Digest(want.String()), as("node")...)
	if err != nil {
		t.Fatal(err)
	}
	images, err := partial.FindImages(got, func(d v1.Descriptor) bool { return d.Platform.Architecture == "arm64" })
	if err != nil || len(images) != 1 {
		t.Fatalf("%v, %v", images, err)
	}
	layers, err := images[0].Layers()
	if err != nil || len(layers) != 3 {
		t.Fatalf("%v, %v", layers, err)
	}
	for _, layer := range layers {
		// ggcr checks size and digest as it reads.
		r, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		r.Close()
	}
	tags, err := ggcr.List(repository, as("node")...)
	if err != nil || len(tags) != 1 || tags[0] != "v1" {
		t.Errorf("%v, %v", tags, err)
	}
	catalog, err := ggcr.Catalog(context.Background(), repository.Registry, as("operator")...)
	if err != nil || len(catalog) != 1 {
		t.Errorf("%v, %v", catalog, err)
	}
	if _, err := ggcr.Referrers(repository.Digest(want.String()), as("node")...); err != nil {
		t.Error(err)
	}
	if _, err := ggcr.Head(repository.Tag("none"), as("node")...); err == nil {
		t.Error("a tag that isn't there was found")
	}
}
