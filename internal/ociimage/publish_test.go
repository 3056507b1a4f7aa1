package ociimage

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestIndex pushes images for two architectures as one, signs the index, and finds all of it.
func TestIndex(t *testing.T) {
	ctx := context.Background()
	for _, referrers := range []bool{true, false} {
		c := newClient(t, Options{})
		repository := serve(t, newRegistry(t, referrers)) + "/modules/test"
		var images []*Image
		for _, arch := range []string{"amd64", "arm64"} {
			l, image, _ := sealedLayout(t, arch, 1000)
			if err := c.Push(ctx, l, image, Reference{Repository: repository}, nil); err != nil {
				t.Fatal(err)
			}
			images = append(images, image)
		}
		index, err := c.PushIndex(ctx, repository, "v1", images, map[string]string{module.AnnotationName: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AttachToIndex(ctx, repository, index, bundle("of the index")); err != nil {
			t.Fatal(err)
		}
		for _, want := range images {
			got, err := c.Resolve(ctx, Reference{Repository: repository, Digest: index.Digest}, want.Architecture)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != want.Digest || got.Index == nil || !bytes.Equal(got.Index.Bytes, index.Bytes) {
				t.Errorf("%s resolves to %+v", want.Architecture, got)
			}
			attached, err := c.Attached(ctx, got)
			if err != nil || len(attached.Found) != 1 || attached.Found[0].Subject != index.Digest {
				t.Errorf("%s: %+v, %v", want.Architecture, attached, err)
			}
		}
		if _, err := c.PushIndex(ctx, repository, "v2", append(images, images[0]), nil); fault.KindOf(err) != fault.Refuse {
			t.Errorf("an architecture twice: %v", err)
		}
	}
}

func TestAnnotate(t *testing.T) {
	l, image, seal := sealedLayout(t, "amd64", 1000)
	// As docker would have written it, with things in it that we know nothing of.
	var config map[string]any
	if err := json.Unmarshal(image.Config, &config); err != nil {
		t.Fatal(err)
	}
	config["config"].(map[string]any)["Entrypoint"] = []string{"/bin/sh"}
	configBytes, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(image.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	m.MediaType, m.Annotations = dockerManifest, nil
	m.Config = describe(dockerConfig, configBytes)
	for i := range m.Layers {
		m.Layers[i].MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
		m.Layers[i].Annotations = map[string]string{"io.github.containers.zstd-chunked.manifest-position": "1:2:3:4"}
	}
	manifestBytes, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.putBlob(context.Background(), m.Config, configBytes); err != nil {
		t.Fatal(err)
	}
	if err := l.putManifest(context.Background(), describe(dockerManifest, manifestBytes), manifestBytes, "docker"); err != nil {
		t.Fatal(err)
	}
	fromDocker, err := l.Resolve(context.Background(), Reference{Tag: "docker"}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Annotate(fromDocker, map[string]string{module.AnnotationSeal: seal.String(), "gone": ""}, "docker")
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, l, Reference{Tag: "docker"}, PullOptions{Sink: layer.Discard{}})
	if !bytes.Equal(got.Config, configBytes) || got.MediaType != ocispec.MediaTypeImageManifest || len(got.Annotations) != 1 {
		t.Errorf("annotated: %+v", got)
	}
	var after ocispec.Manifest
	if err := json.Unmarshal(got.Manifest, &after); err != nil {
		t.Fatal(err)
	}
	for _, d := range after.Layers {
		if d.MediaType != layer.MediaTypeTarZstd || len(d.Annotations) != 1 {
			t.Errorf("layer %+v", d)
		}
	}
	again, err := l.Annotate(got, map[string]string{module.AnnotationSeal: ""}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Seal(); err == nil {
		t.Error("the annotation was not removed")
	}
}

// TestTwins has another builder's image beside the same one with a seal, and then another image.
func TestTwins(t *testing.T) {
	l, sealed, seal := sealedLayout(t, "amd64", 1000)
	ctx := t.Context()
	// As it came from the builder, listed after the sealed one: a build again lists it last.
	plain, err := l.Annotate(sealed, map[string]string{module.AnnotationSeal: ""}, "latest")
	if err != nil {
		t.Fatal(err)
	}
	find := func(want *Image, ref Reference) {
		t.Helper()
		got, err := l.Resolve(ctx, ref, "")
		if err != nil || got.Digest != want.Digest {
			t.Errorf("%+v is %+v, %v; want %s", ref, got, err, want.Digest)
		}
	}
	find(sealed, Reference{})
	find(plain, Reference{Tag: "latest"})
	find(plain, Reference{Digest: plain.Digest})
	// A seal that the builder got wrong is no reason to take the builder's.
	if _, err := l.Annotate(sealed, map[string]string{module.AnnotationSeal: "00"}, "latest"); err != nil {
		t.Fatal(err)
	}
	again, err := l.Annotate(plain, map[string]string{module.AnnotationSeal: seal.String()}, "v1-amd64")
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest != sealed.Digest {
		t.Errorf("sealed again it is %s, not %s", again.Digest, sealed.Digest)
	}
	find(sealed, Reference{})
	if _, err := l.AddImage(ImageSpec{Architecture: "amd64", Layers: sealed.Layers[:1], Tag: "other"}); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Resolve(ctx, Reference{}, ""); fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
		t.Errorf("of two images it takes %+v, %v", got, err)
	}
}

// TestIntoAStore pulls into the node's own store, interrupted and resumed.
func TestIntoAStore(t *testing.T) {
	ctx := context.Background()
	u, c, ref := newUnreliable(t, Options{}, partialMin+300_000)
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	o := PullOptions{
		Sink:     layer.SinkFunc(func(n int64) (layer.ObjectWriter, error) { return st.NewObject(n) }),
		Partials: PartialsFunc(func(digest string) (Partial, error) { return st.Partial(digest) }),
		Parallel: 1,
	}
	image, err := c.Resolve(ctx, ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	u.answer = func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
		return cut(w, r, content, map[bool]int{true: 400_000}[n == 1])
	}
	if _, _, err := Pull(ctx, c, image, o); fault.KindOf(err) != fault.Retry {
		t.Fatalf("error %v", err)
	}
	u.answer = nil
	stats := checkPulled(t, c, ref, o)
	if stats.Resumed != 400_000 || stats.Objects != 3 {
		t.Errorf("stats are %+v", stats)
	}
	root, _, err := Pull(ctx, c, image, o)
	if err != nil {
		t.Fatal(err)
	}
	for path, n := range root.Walk() {
		if n.Digest.IsZero() {
			continue
		}
		if err := st.VerifyObject(n.Digest); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
