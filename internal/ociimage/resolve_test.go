package ociimage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// documentServer is a registry of nothing but manifests and blobs by name.
type documentServer map[string][]byte

func (s documentServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, ok := s[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

// put adds a document under its digest.
func (s documentServer) put(t testing.TB, v any) ocispec.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromBytes(b)
	s[string(d)] = b
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(b))}
}

func configFor(arch string, layers int) ocispec.Image {
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	for i := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString(fmt.Sprint("diff", i)))
	}
	return c
}

// image adds an image whose layers aren't there, and returns its descriptor.
func (s documentServer) image(t testing.TB, arch string, change func(*ocispec.Manifest)) ocispec.Descriptor {
	t.Helper()
	config := s.put(t, configFor(arch, 1))
	config.MediaType = ocispec.MediaTypeImageConfig
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromString("layer"), Size: 5}},
	}
	if change != nil {
		change(&m)
	}
	d := s.put(t, m)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

func TestResolveByArchitecture(t *testing.T) {
	s := documentServer{}
	amd, arm, all := s.image(t, "amd64", nil), s.image(t, "arm64", nil), s.image(t, AnyArchitecture, nil)
	windows := amd
	windows.Platform = &ocispec.Platform{OS: "windows", Architecture: "riscv64"}
	attestation := amd
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	index := func(of ...ocispec.Descriptor) digest.Digest {
		return s.put(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, of...)}).Digest
	}
	two, withAny, only := index(windows, attestation, arm, amd), index(all, amd), index(arm)
	docker := strings.ReplaceAll(string(s[string(two)]), ocispec.MediaTypeImageIndex, dockerManifestList)
	c := newClient(t, Options{})
	host := serve(t, s)
	for name, test := range map[string]struct {
		digest digest.Digest
		arch   string
		want   digest.Digest
		err    string
	}{
		"manifest":                        {amd.Digest, "amd64", amd.Digest, ""},
		"manifest, no wish":               {amd.Digest, "", amd.Digest, ""},
		"manifest for any":                {all.Digest, "amd64", all.Digest, ""},
		"manifest for another":            {arm.Digest, "amd64", "", "another architecture: for arm64, not for amd64"},
		"index":                           {two, "amd64", amd.Digest, ""},
		"index, the other":                {two, "arm64", arm.Digest, ""},
		"index without it":                {two, "riscv64", "", "another architecture: for amd64, arm64, not for riscv64"},
		"index, no wish":                  {two, "", "", "has images for amd64, arm64"},
		"index of one, no wish":           {only, "", arm.Digest, ""},
		"exact before any":                {withAny, "amd64", amd.Digest, ""},
		"any where there is no exact":     {withAny, "arm64", all.Digest, ""},
		"docker's list":                   {s.put(t, []byte(docker)).Digest, "arm64", arm.Digest, ""},
		"empty index":                     {index(), "amd64", "", "no Linux architecture"},
		"not there":                       {digest.FromString("?"), "amd64", "", "the registry doesn't have it"},
		"not a digest":                    {"sha256:xyz", "amd64", "", "is not valid"},
		"index that names no image there": {index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("?"), Size: 5, Platform: amd.Platform}), "amd64", "", "doesn't have it"},
		"index with a wrong size":         {index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: amd.Digest, Size: 5, Platform: amd.Platform}), "amd64", "", "is not the manifest that it lists"},
		"index in an index":               {index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: two, Size: int64(len(s[string(two)])), Platform: amd.Platform}), "amd64", "", "is not the manifest that it lists"},
		"index with a huge manifest":      {index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: amd.Digest, Size: 1 << 30, Platform: amd.Platform}), "amd64", "", "out of bounds"},
	} {
		image, err := c.Resolve(context.Background(), Reference{Repository: host + "/x", Digest: test.digest}, test.arch)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || fault.KindOf(err) != fault.Refuse {
				t.Errorf("%s: %v, want %q", name, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if image.Digest != test.want || (image.Index != nil) != (test.digest != test.want) || image.Index != nil && image.Index.Digest != test.digest {
			t.Errorf("%s: %+v", name, image)
		}
	}
}

func TestResolveRefusesHostileDocuments(t *testing.T) {
	s := documentServer{}
	c := newClient(t, Options{})
	host := serve(t, s)
	manifest := func(change func(*ocispec.Manifest)) []byte { return s[string(s.image(t, "amd64", change).Digest)] }
	descriptor := func(size int64) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("x"), Size: size}
	}
	both := bytes.Replace(manifest(nil), []byte(`"layers"`), []byte(`"manifests":[],"layers"`), 1)
	other := configFor("amd64", 2)
	badDiff := configFor("amd64", 1)
	badDiff.RootFS.DiffIDs[0] = "sha256:x"
	withConfig := func(c any) []byte {
		return manifest(func(m *ocispec.Manifest) {
			m.Config = s.put(t, c)
			m.Config.MediaType = ocispec.MediaTypeImageConfig
		})
	}
	for name, test := range map[string]struct {
		doc  []byte
		want string
	}{
		"no JSON":                 {[]byte("hello"), "invalid character"},
		"no document":             {[]byte("{}"), "not clear"},
		"index and manifest":      {both, "not clear"},
		"index, typed a manifest": {[]byte(`{"mediaType":"` + ocispec.MediaTypeImageManifest + `","manifests":[]}`), "not clear"},
		"manifest, typed an index": {
			bytes.Replace(manifest(nil), []byte(ocispec.MediaTypeImageManifest), []byte(ocispec.MediaTypeImageIndex), 1),
			"not clear",
		},
		"another type": {[]byte(`{"mediaType":"application/x","layers":[]}`), "neither a manifest nor an index"},
		"two truths about a layer": {func() []byte {
			config := s.put(t, configFor("amd64", 2))
			return manifest(func(m *ocispec.Manifest) {
				config.MediaType = ocispec.MediaTypeImageConfig
				m.Config, m.Layers = config, append(m.Layers, m.Layers[0])
			})
		}(), "says two things of layer"},
		"no layers":               {manifest(func(m *ocispec.Manifest) { m.Layers = []ocispec.Descriptor{} }), "0 layers"},
		"too many layers":         {manifest(func(m *ocispec.Manifest) { m.Layers = make([]ocispec.Descriptor, 129) }), "129 layers"},
		"an artifact":             {manifest(func(m *ocispec.Manifest) { m.Config.MediaType = ocispec.MediaTypeEmptyJSON }), "it is no image"},
		"a config without digest": {manifest(func(m *ocispec.Manifest) { m.Config.Digest = "" }), "is not sha256:"},
		"a huge config":           {manifest(func(m *ocispec.Manifest) { m.Config.Size = documentMax + 1 }), "out of bounds"},
		"a shorter config":        {manifest(func(m *ocispec.Manifest) { m.Config.Size-- }), "bytes"},
		"a longer config":         {manifest(func(m *ocispec.Manifest) { m.Config.Size++ }), "bytes"},
		"a negative layer":        {manifest(func(m *ocispec.Manifest) { m.Layers = []ocispec.Descriptor{descriptor(-1)} }), "out of bounds"},
		"an endless layer":        {manifest(func(m *ocispec.Manifest) { m.Layers = []ocispec.Descriptor{descriptor(1 << 60)} }), "out of bounds"},
		"a foreign layer": {manifest(func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
		}), "no type of a tar layer"},
		"a sha512 layer":         {manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.SHA512.FromString("x") }), "is not sha256:"},
		"a digest with a path":   {manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../etc/passwd" }), "is not sha256:"},
		"other layers in config": {withConfig(other), "2 diff_ids for the manifest's 1 layers"},
		"a bad diff_id":          {withConfig(badDiff), "is no sha256 digest"},
		"a config that is none":  {withConfig([]byte("[]")), "cannot unmarshal"},
		"windows":                {withConfig(ocispec.Image{Platform: ocispec.Platform{OS: "windows", Architecture: "amd64"}, RootFS: configFor("", 1).RootFS}), `operating system "windows"`},
	} {
		d := s.put(t, test.doc)
		_, err := c.Resolve(context.Background(), Reference{Repository: host + "/x", Digest: d.Digest}, "amd64")
		if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: kind %v: %v, want %q", name, fault.KindOf(err), err, test.want)
		}
	}
	// Other bytes than were asked for, and more of them than there may be.
	good := s.image(t, "amd64", nil)
	s[string(good.Digest)] = append(s[string(good.Digest)], ' ')
	if _, err := c.Resolve(context.Background(), Reference{Repository: host + "/x", Digest: good.Digest}, "amd64"); err == nil || !strings.Contains(err.Error(), "the registry sent sha256:") {
		t.Errorf("other bytes: %v", err)
	}
	s[string(good.Digest)] = bytes.Repeat([]byte(" "), documentMax+1)
	if _, err := c.Resolve(context.Background(), Reference{Repository: host + "/x", Digest: good.Digest}, "amd64"); err == nil || !strings.Contains(err.Error(), "larger than 4194304 bytes") {
		t.Errorf("endless bytes: %v", err)
	}
	if _, err := c.Resolve(context.Background(), Reference{Repository: host + "/x"}, ""); fault.KindOf(err) != fault.Refuse {
		t.Errorf("no version: %v", err)
	}
}

func TestImageSeal(t *testing.T) {
	for claim, ok := range map[string]bool{
		strings.Repeat("0a", 32):       true,
		strings.Repeat("0A", 32):       false,
		strings.Repeat("00", 32):       false,
		"sha256:" + "0a":               false,
		strings.Repeat("0a", 32) + "0": false,
		"":                             false,
	} {
		seal, err := (&Image{Annotations: map[string]string{module.AnnotationSeal: claim}}).Seal()
		if (err == nil) != ok || ok && seal.String() != claim {
			t.Errorf("%q: %v, %v", claim, seal, err)
		}
	}
	if _, err := (&Image{}).Seal(); fault.AreaOf(err) != fault.Verify {
		t.Errorf("no seal: %v", err)
	}
}

func FuzzParseImage(f *testing.F) {
	s := documentServer{}
	d := s.image(f, "amd64", nil)
	var m ocispec.Manifest
	if err := json.Unmarshal(s[string(d.Digest)], &m); err != nil {
		f.Fatal(err)
	}
	f.Add(s[string(d.Digest)], s[string(m.Config.Digest)])
	f.Add([]byte(`{"manifests":[{"digest":"sha256:","size":-1}]}`), []byte("{}"))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		_, _ = choose(manifest, digest.FromBytes(manifest), "amd64")
		_, _ = documentType(manifest)
		image, err := ParseImage(manifest, config)
		if err != nil {
			if fault.KindOf(err) != fault.Refuse {
				t.Fatalf("not refused: %v", err)
			}
			return
		}
		if len(image.Layers) == 0 || len(image.Layers) > layersMax || image.Size() < 0 {
			t.Fatalf("accepted %+v", image)
		}
		for _, l := range image.Layers {
			if !validDigest(l.Digest) || !validDigest(l.DiffID) || l.Size < 0 {
				t.Fatalf("accepted the layer %+v", l)
			}
		}
	})
}
