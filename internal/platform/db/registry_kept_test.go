package db

import (
	"errors"
	"strings"
	"testing"
)

// digestFor makes a digest of a word.
func digestFor(word string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.WriteString("sha256:")
	for i := range 64 {
		b.WriteByte(hex[(int(word[i%len(word)])+i/len(word))%16])
	}
	return b.String()
}

// shelf is a repository "r", of which each manifest's parts are known.
type shelf struct {
	t     *testing.T
	d     *DB
	parts map[string]Parts
	// reading is called before a manifest is read.
	reading func()
}

func (s *shelf) of(digest string) (Parts, error) {
	if s.reading != nil {
		s.reading()
	}
	parts, ok := s.parts[digest]
	if !ok {
		return Parts{}, errors.New("no file of " + digest)
	}
	return parts, nil
}

// put puts a manifest by its word, with its blobs, and returns its digest. subject is a word, too.
func (s *shelf) put(word, subject, tag string, parts Parts) string {
	s.t.Helper()
	m := Manifest{Repository: "r", Digest: digestFor(word), MediaType: "x", Parts: parts}
	if subject != "" {
		m.Subject = digestFor(subject)
	}
	for _, blob := range parts.Blobs {
		check(s.t, s.d.LinkBlob(s.t.Context(), "r", blob, 1))
	}
	check(s.t, s.d.PutManifest(s.t.Context(), m, tag))
	s.parts[m.Digest] = parts
	return m.Digest
}

func (s *shelf) register(version, digest string, images ...string) error {
	m := Module{Name: "m", Variety: "config", Version: version, Repository: "r", Digest: digest}
	for i, image := range images {
		m.Images = append(m.Images, Image{Architecture: []string{"amd64", "arm64"}[i], ManifestDigest: image})
	}
	_, err := s.d.RegisterHeld(s.t.Context(), m, s.of)
	return err
}

// TestKept deletes, one after the other, all that a registered module and what is attached to it is made of.
func TestKept(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	s := &shelf{t: t, d: d, parts: map[string]Parts{}}
	attached := func(word, suffix string) string { return strings.Replace(digestFor(word), ":", "-", 1) + suffix }

	amd := s.put("amd", "", "", Parts{Blobs: []string{"sha256:config", "sha256:layer"}})
	arm := s.put("arm", "", "", Parts{Blobs: []string{"sha256:config2"}})
	provenance := s.put("provenance", "", "", Parts{Blobs: []string{"sha256:provenance-blob"}})
	index := s.put("index", "", "v1", Parts{Manifests: []string{amd, arm, provenance}})
	bundle := s.put("bundle", "index", "", Parts{Blobs: []string{"sha256:bundle-blob"}})
	early := s.put("early", "amd", "", Parts{Blobs: []string{"sha256:early-blob"}})
	sig := s.put("sig", "", attached("amd", ".sig"), Parts{Blobs: []string{"sha256:sig-blob"}})
	att := s.put("att", "", attached("index", ".att"), Parts{Blobs: []string{"sha256:att-blob"}})
	listed := s.put("listed", "", "", Parts{Blobs: []string{"sha256:listed-blob"}})
	fallback := s.put("fallback", "", attached("arm", ""), Parts{Manifests: []string{listed}})
	second := s.put("second", "bundle", "", Parts{Blobs: []string{"sha256:second-blob"}}) // a signature of the signature
	// What has nothing to do with it.
	loose := s.put("loose", "", "other", Parts{Blobs: []string{"sha256:loose-blob"}})
	looseSig := s.put("loose sig", "", attached("loose", ".sig"), Parts{Blobs: []string{"sha256:loose-sig-blob"}})
	check(t, s.register("1.0", index, amd, arm))

	for _, digest := range []string{amd, arm, provenance, index, bundle, early, sig, att, listed, fallback, second} {
		if err := d.DeleteManifest(ctx, "r", digest, s.of); !errors.Is(err, ErrInUse) {
			t.Errorf("manifest %s: %v", digest, err)
		}
	}
	for _, word := range []string{"config", "layer", "config2", "provenance-blob", "bundle-blob", "early-blob", "sig-blob", "att-blob", "listed-blob", "second-blob"} {
		if err := d.DeleteBlob(ctx, "r", "sha256:"+word, s.of); !errors.Is(err, ErrInUse) {
			t.Errorf("blob %s: %v", word, err)
		}
	}
	for _, tag := range []string{attached("amd", ".sig"), attached("index", ".att"), attached("arm", "")} {
		if err := d.DeleteTag(ctx, "r", tag, s.of); !errors.Is(err, ErrInUse) {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
	// Nothing of it is hidden by another repository, and that one's is its own.
	check(t, d.LinkBlob(ctx, "q", "sha256:layer", 1))
	check(t, d.DeleteBlob(ctx, "q", "sha256:layer", s.of))
	check(t, d.DeleteTag(ctx, "r", "v1", s.of))
	check(t, d.DeleteTag(ctx, "r", attached("loose", ".sig"), s.of))
	for _, digest := range []string{loose, looseSig} {
		check(t, d.DeleteManifest(ctx, "r", digest, s.of))
	}
	check(t, d.DeleteBlob(ctx, "r", "sha256:loose-blob", s.of))
	if err := d.DeleteBlob(ctx, "r", "sha256:loose-blob", s.of); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: %v", err)
	}

	// A tag that attaches something moves only to what extends it.
	more := Manifest{Repository: "r", Digest: digestFor("more"), MediaType: "x"}
	err := d.PutManifest(ctx, more, attached("amd", ".sig"))
	held, ok := errors.AsType[*TagHeldError](err)
	if !ok || held.Former != sig {
		t.Fatalf("%v", err)
	}
	more.Extends = held.Former
	check(t, d.PutManifest(ctx, more, attached("amd", ".sig")))
	again := Manifest{Repository: "r", Digest: digestFor("again"), MediaType: "x", Extends: sig}
	if err := d.PutManifest(ctx, again, attached("amd", ".sig")); !errors.As(err, &held) || held.Former != more.Digest {
		t.Errorf("it moved meanwhile: %v", err)
	}
	// A manifest whose file can't be read stops the deletion.
	delete(s.parts, att)
	if err := d.DeleteBlob(ctx, "r", "sha256:att-blob", s.of); err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("without the file: %v", err)
	}
}

// TestKeptAtOnce: a module is registered while one of its blobs is being deleted. Either the one is refused or the other.
func TestKeptAtOnce(t *testing.T) {
	d, _ := newDB(t)
	ctx := t.Context()
	s := &shelf{t: t, d: d, parts: map[string]Parts{}}
	one := s.put("one", "", "", Parts{Blobs: []string{"sha256:one-layer"}})
	two := s.put("two", "", "", Parts{Blobs: []string{"sha256:two-layer"}})
	three := s.put("three", "", "", Parts{Blobs: []string{"sha256:three-layer"}})
	four := s.put("four", "", "", Parts{Blobs: []string{"sha256:four-layer"}})
	check(t, s.register("1", one, one))

	// The second is registered after the deletion has looked, and before it takes its turn.
	registered := false
	s.reading = func() {
		s.reading = nil
		check(t, s.register("2", two, two))
		registered = true
	}
	if err := d.DeleteBlob(ctx, "r", "sha256:two-layer", s.of); !errors.Is(err, ErrInUse) || !registered {
		t.Errorf("registered %v, and: %v", registered, err)
	}
	// The third's blob goes after the third was looked at.
	check(t, d.DeleteBlob(ctx, "r", "sha256:three-layer", s.of))
	err := s.register("3", three, three)
	if missing, ok := errors.AsType[*MissingError](err); !ok || missing.Digest != "sha256:three-layer" {
		t.Errorf("%v", err)
	}
	if m := first(d.Module(ctx, "m")); m.Version != "2" {
		t.Errorf("version %s is the current one", m.Version)
	}
	// So does a manifest, and one that is put finds its parts gone.
	check(t, d.DeleteManifest(ctx, "r", four, s.of))
	if missing, ok := errors.AsType[*MissingError](s.register("4", four, four)); !ok || missing.Digest != four {
		t.Errorf("%v", missing)
	}
	err = d.PutManifest(ctx, Manifest{Repository: "r", Digest: three, MediaType: "x", Parts: s.parts[three]}, "")
	if missing, ok := errors.AsType[*MissingError](err); !ok || missing.Digest != "sha256:three-layer" {
		t.Errorf("%v", err)
	}
}
