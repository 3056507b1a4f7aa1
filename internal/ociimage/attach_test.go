package ociimage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
)

func bundle(text string) Signature {
	return Signature{MediaType: MediaTypeBundle, Data: []byte(text), Annotations: map[string]string{"dev.sigstore.bundle.content": "dsse-envelope"}}
}

func simple(text, signature string) Signature {
	return Signature{MediaType: MediaTypeSimpleSigning, Data: []byte(text), Annotations: map[string]string{"dev.cosignproject.cosign/signature": signature}}
}

// found lists what was found in a comparable form.
func found(a Attachments) []string {
	var all []string
	for _, f := range a.Found {
		kind := "simple"
		if f.IsBundle() {
			kind = "bundle"
		}
		all = append(all, kind+" "+string(f.Data)+" "+f.Annotations["dev.cosignproject.cosign/signature"])
	}
	return slices.Sorted(slices.Values(all))
}

// attacher is what a layout and a repository have in common.
type attacher struct {
	name   string
	from   Source
	image  *Image
	attach func(Signature) error
}

func attachers(t *testing.T) []attacher {
	t.Helper()
	var all []attacher
	for _, referrers := range []bool{true, false} {
		c := newClient(t, Options{})
		ref, image, _ := push(t, c, serve(t, newRegistry(t, referrers)), 1000)
		image.Repository = ref.Repository
		all = append(all, attacher{fmt.Sprint("registry, referrers ", referrers), c, image, func(s Signature) error {
			return c.Attach(context.Background(), ref.Repository, image, s)
		}})
	}
	l, image, _ := sealedLayout(t, "amd64", 1000)
	return append(all, attacher{"layout", l, image, func(s Signature) error { return l.Attach(context.Background(), image, s) }})
}

func TestAttachAndFind(t *testing.T) {
	ctx := context.Background()
	for _, a := range attachers(t) {
		if got, err := a.from.Attached(ctx, a.image); err != nil || len(got.Found) != 0 {
			t.Errorf("%s: before anything: %v, %v", a.name, found(got), err)
		}
		for _, s := range []Signature{bundle("one"), simple("p", "s1"), bundle("two"), simple("p", "s2"), simple("q", "s3"), bundle("one"), simple("p", "s1")} {
			if err := a.attach(s); err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
		}
		got, err := a.from.Attached(ctx, a.image)
		if err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		want := []string{"bundle one ", "bundle two ", "simple p s1", "simple p s2", "simple q s3"}
		if !slices.Equal(found(got), want) || len(got.PassedOver) != 0 {
			t.Errorf("%s: found %q, passed over %v", a.name, found(got), got.PassedOver)
		}
		for _, f := range got.Found {
			if f.Subject != a.image.Digest {
				t.Errorf("%s: subject is %s", a.name, f.Subject)
			}
		}
		other := *a.image
		other.Digest = digest.FromString("another image")
		if got, err := a.from.Attached(ctx, &other); err != nil || len(got.Found) != 0 {
			t.Errorf("%s: of another image: %v, %v", a.name, found(got), err)
		}
	}
}

// TestLayoutWithSignaturesIsStillOneImage: what is attached is no candidate for Resolve.
func TestLayoutWithSignaturesIsStillOneImage(t *testing.T) {
	l, image, _ := sealedLayout(t, "amd64", 1000)
	for _, s := range []Signature{bundle("one"), simple("p", "s")} {
		if err := l.Attach(context.Background(), image, s); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenLayout(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got, err := again.Resolve(context.Background(), Reference{}, "amd64")
	if err != nil || got.Digest != image.Digest {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := again.Attached(context.Background(), image); err != nil || len(got.Found) != 2 {
		t.Errorf("%v, %v", found(got), err)
	}
}

// signatureServer is a registry without uploads, in which everything about signatures can be wrong.
type signatureServer struct {
	documentServer
	// referrers answers the referrers API; nil answers 404.
	referrers http.HandlerFunc
}

func (s signatureServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/referrers/") && s.referrers != nil {
		s.referrers(w, r)
		return
	}
	s.documentServer.ServeHTTP(w, r)
}

func listing(of ...ocispec.Descriptor) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_ = json.NewEncoder(w).Encode(indexOf(of...))
	}
}

func indexOf(of ...ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, of...)}
}

// referrer adds a manifest that refers to a subject and holds one bundle.
func (s signatureServer) referrer(t *testing.T, subject digest.Digest, text string, change func(*ocispec.Manifest)) ocispec.Descriptor {
	t.Helper()
	data := s.put(t, []byte(text))
	data.MediaType = MediaTypeBundle
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: MediaTypeBundle,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{data},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 1},
	}
	if change != nil {
		change(&m)
	}
	d := s.put(t, m)
	d.ArtifactType = m.ArtifactType
	return d
}

func TestFindInEveryPlace(t *testing.T) {
	image := &Image{Digest: digest.FromString("image"), MediaType: ocispec.MediaTypeImageManifest, Manifest: []byte("x")}
	index := &Index{Digest: digest.FromString("index"), MediaType: ocispec.MediaTypeImageIndex}
	tag := referrersTag(image.Digest)
	for name, test := range map[string]struct {
		prepare func(t *testing.T, s *signatureServer)
		want    []string
		over    int // how many are passed over
	}{
		"nothing": {func(*testing.T, *signatureServer) {}, nil, 0},
		"referrers": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing(s.referrer(t, image.Digest, "a", nil), s.referrer(t, image.Digest, "b", nil))
		}, []string{"bundle a ", "bundle b "}, 0},
		"pages": {func(t *testing.T, s *signatureServer) {
			a, b := s.referrer(t, image.Digest, "a", nil), s.referrer(t, image.Digest, "b", nil)
			s.referrers = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("page") == "2" {
					listing(b)(w, r)
					return
				}
				w.Header().Set("Link", `<`+r.URL.Path+`?page=2>; rel="next"`)
				listing(a)(w, r)
			}
		}, []string{"bundle a ", "bundle b "}, 0},
		"endless pages": {func(t *testing.T, s *signatureServer) {
			a := s.referrer(t, image.Digest, "a", nil)
			s.referrers = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", `<`+r.URL.Path+`?page=2>; rel="next"`)
				listing(a)(w, r)
			}
		}, []string{"bundle a "}, 0},
		"listed as the empty type, or as none": {func(t *testing.T, s *signatureServer) {
			a, b := s.referrer(t, image.Digest, "a", nil), s.referrer(t, image.Digest, "b", nil)
			a.ArtifactType, b.ArtifactType = ocispec.MediaTypeEmptyJSON, ""
			s.referrers = listing(a, b)
		}, []string{"bundle a ", "bundle b "}, 0},
		"an older bundle": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing(s.referrer(t, image.Digest, "a", func(m *ocispec.Manifest) {
				m.ArtifactType = "application/vnd.dev.sigstore.bundle+json;version=0.2"
				m.Layers[0].MediaType = m.ArtifactType
			}))
		}, []string{"bundle a "}, 0},
		"other artifacts": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing(s.referrer(t, image.Digest, "sbom", func(m *ocispec.Manifest) { m.ArtifactType = "application/spdx+json" }),
				s.referrer(t, image.Digest, "x", func(m *ocispec.Manifest) { m.ArtifactType, m.Layers[0].MediaType = "", "text/plain" }))
		}, nil, 0},
		"fallback tag": {func(t *testing.T, s *signatureServer) {
			s.documentServer[tag], _ = json.Marshal(indexOf(s.referrer(t, image.Digest, "a", nil)))
		}, []string{"bundle a "}, 0},
		"fallback tag beside an API that knows nothing": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing()
			s.documentServer[tag], _ = json.Marshal(indexOf(s.referrer(t, image.Digest, "a", nil)))
		}, []string{"bundle a "}, 0},
		"fallback tag that is something else": {func(t *testing.T, s *signatureServer) {
			s.documentServer[tag] = []byte(`{"layers":[]}`)
		}, nil, 0},
		"an API that answers nonsense": {func(t *testing.T, s *signatureServer) {
			s.referrers = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }
			s.documentServer[tag], _ = json.Marshal(indexOf(s.referrer(t, image.Digest, "a", nil)))
		}, []string{"bundle a "}, 1},
		"older form": {func(t *testing.T, s *signatureServer) {
			layers := []ocispec.Descriptor{s.put(t, []byte("p1")), s.put(t, []byte("p2")), s.put(t, []byte("other"))}
			for i := range 2 {
				layers[i].MediaType = MediaTypeSimpleSigning
				layers[i].Annotations = map[string]string{"dev.cosignproject.cosign/signature": fmt.Sprint("s", i)}
			}
			s.documentServer[tag+".sig"], _ = json.Marshal(ocispec.Manifest{Config: ocispec.DescriptorEmptyJSON, Layers: layers})
		}, []string{"simple p1 s0", "simple p2 s1"}, 0},
		"older form as a referrer": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing(s.referrer(t, image.Digest, "p", func(m *ocispec.Manifest) {
				m.ArtifactType, m.Layers[0].MediaType = cosignArtifact, MediaTypeSimpleSigning
				m.Layers[0].Annotations = map[string]string{"dev.cosignproject.cosign/signature": "s"}
			}))
		}, []string{"simple p s"}, 0},
		"of the index": {func(t *testing.T, s *signatureServer) {
			s.documentServer[referrersTag(index.Digest)], _ = json.Marshal(indexOf(s.referrer(t, index.Digest, "i", nil)))
		}, []string{"bundle i "}, 0},
		"of another image": {func(t *testing.T, s *signatureServer) {
			s.referrers = listing(s.referrer(t, digest.FromString("another"), "a", nil), s.referrer(t, image.Digest, "b", func(m *ocispec.Manifest) { m.Subject = nil }))
		}, nil, 2},
		"damaged ones beside a good one": {func(t *testing.T, s *signatureServer) {
			missing := s.referrer(t, image.Digest, "m", func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.FromString("?") })
			huge := s.referrer(t, image.Digest, "h", func(m *ocispec.Manifest) { m.Layers[0].Size = signatureMax + 1 })
			short := s.referrer(t, image.Digest, "short", func(m *ocispec.Manifest) { m.Layers[0].Size = 3 })
			gone := ocispec.Descriptor{Digest: digest.FromString("gone"), ArtifactType: MediaTypeBundle}
			noDigest := ocispec.Descriptor{Digest: "sha256:../x", ArtifactType: MediaTypeBundle}
			text := s.put(t, []byte("no JSON"))
			forged := s.referrer(t, image.Digest, "f", nil)
			s.documentServer[string(forged.Digest)] = []byte("{}")
			s.referrers = listing(missing, huge, short, gone, noDigest, text, forged, s.referrer(t, image.Digest, "good", nil))
		}, []string{"bundle good "}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := &signatureServer{documentServer: documentServer{}}
			test.prepare(t, s)
			subject := *image
			if name == "of the index" {
				subject.Index = index
			}
			subject.Repository = serve(t, s) + "/x"
			got, err := newClient(t, Options{}).Attached(context.Background(), &subject)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(found(got), test.want) || len(got.PassedOver) != test.over {
				t.Errorf("found %q, want %q; passed over %d, want %d: %v", found(got), test.want, len(got.PassedOver), test.over, got.PassedOver)
			}
		})
	}
}

// TestFloodOfReferrers: a registry may list without end; a node reads within bounds.
func TestFloodOfReferrers(t *testing.T) {
	image := &Image{Digest: digest.FromString("image"), MediaType: ocispec.MediaTypeImageManifest}
	s := &signatureServer{documentServer: documentServer{}}
	var all []ocispec.Descriptor
	for i := range 300 {
		all = append(all, s.referrer(t, image.Digest, fmt.Sprint(i), nil))
	}
	s.referrers = listing(all...)
	image.Repository = serve(t, s) + "/x"
	c := newClient(t, Options{})
	got, err := c.Attached(context.Background(), image)
	if err != nil || len(got.Found) != attachedMax {
		t.Errorf("found %d, %v", len(got.Found), err)
	}
	big := strings.Repeat("b", signatureMax-10)
	all = nil
	for i := range 12 {
		all = append(all, s.referrer(t, image.Digest, fmt.Sprint(big, i), nil))
	}
	s.referrers = listing(all...)
	got, err = c.Attached(context.Background(), image)
	if err != nil || len(got.Found) > signaturesMax/signatureMax+1 {
		t.Errorf("found %d of 1 MiB, %v", len(got.Found), err)
	}
}

// TestSearchThatFails: an outage is not the absence of signatures.
func TestSearchThatFails(t *testing.T) {
	image := &Image{Digest: digest.FromString("image"), MediaType: ocispec.MediaTypeImageManifest}
	for name, failing := range map[string]string{"API": "/referrers/", "tag": referrersTag(image.Digest), "older tag": ".sig", "manifest": "/manifests/sha256:", "blob": "/blobs/"} {
		for _, status := range []int{http.StatusServiceUnavailable, http.StatusForbidden} {
			if name == "API" && status == http.StatusForbidden {
				continue // some registries say so of what they don't know
			}
			s := &signatureServer{documentServer: documentServer{}}
			a := s.referrer(t, image.Digest, "a", nil)
			if name != "tag" {
				s.referrers = listing(a)
			}
			image.Repository = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				isOlder := strings.HasSuffix(r.URL.Path, ".sig")
				if strings.Contains(r.URL.Path, failing) && (name != "tag" || !isOlder) {
					w.WriteHeader(status)
					return
				}
				s.ServeHTTP(w, r)
			})) + "/x"
			_, err := newClient(t, Options{}).Attached(context.Background(), image)
			want := map[int]fault.Kind{http.StatusServiceUnavailable: fault.Retry, http.StatusForbidden: fault.Refuse}[status]
			if err == nil || fault.KindOf(err) != want {
				t.Errorf("%s answers %d: kind %v: %v", name, status, fault.KindOf(err), err)
			}
		}
	}
}

// TestAttachedBundleIsAsCosignsOwn compares the manifest with what cosign 3.1 writes, but for the
// time and the order of keys.
func TestAttachedBundleIsAsCosignsOwn(t *testing.T) {
	s := &recorder{}
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 7}
	sig := bundle("{}")
	sig.Annotations = map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
	}
	if err := attach(context.Background(), s, subject, sig); err != nil {
		t.Fatal(err)
	}
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},` +
		`"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}],` +
		`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(subject.Digest) + `","size":7},` +
		`"annotations":{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://sigstore.dev/cosign/sign/v1"}}`
	if got := string(s.manifests[""]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := attach(context.Background(), s, subject, simple("p", "s")); err != nil {
		t.Fatal(err)
	}
	if keys := slices.Sorted(maps.Keys(s.manifests)); !slices.Equal(keys, []string{"", referrersTag(subject.Digest) + ".sig"}) {
		t.Errorf("manifests under %q", keys)
	}
}

// recorder is a target that remembers manifests by tag.
type recorder struct{ manifests map[string][]byte }

func (*recorder) putBlob(context.Context, ocispec.Descriptor, []byte) error { return nil }

func (r *recorder) putManifest(_ context.Context, _ ocispec.Descriptor, b []byte, tag string) error {
	if r.manifests == nil {
		r.manifests = make(map[string][]byte)
	}
	r.manifests[tag] = b
	return nil
}

func (r *recorder) tagged(_ context.Context, tag string) ([]byte, bool, error) {
	b, ok := r.manifests[tag]
	return b, ok, nil
}
