package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/signing"
)

// forgery says how an image that is pushed past powernode differs from what powernode would push.
type forgery struct {
	// repository is its path; "" is where the module belongs.
	repository string
	// key is the prefix of the key that signs it; "" leaves it unsigned.
	key string
	// annotate changes the annotations that get signed.
	annotate func(map[string]string)
	// inIndex signs an index around the image in place of the image.
	inIndex bool
}

// forge pushes an image to the platform's registry, and returns where it went.
func (p *platform) forge(m mod, f forgery) (repository, digest string) {
	p.T.Helper()
	m = m.Sealed(p.T)
	m.Annotations[module.AnnotationName], m.Annotations[module.AnnotationVersion] = m.Name, m.Version
	if f.annotate != nil {
		f.annotate(m.Annotations)
	}
	l, err := ociimage.CreateLayout(filepath.Join(tempDir(p.T), "forged"))
	if err != nil {
		p.T.Fatal(err)
	}
	defer l.Close()
	image := m.AddTo(p.T, l)
	config := p.Credentials()
	tls, err := config.TLS()
	if err != nil {
		p.T.Fatal(err)
	}
	client := ociimage.NewClient(ociimage.Options{TLS: tls, Credential: func(context.Context, string) (string, string, error) {
		return operatorapi.RegistryUser, config.Token.Reveal(), nil
	}})
	defer client.Close()
	if repository = f.repository; repository == "" {
		repository = "modules/" + m.Name
	}
	name := config.RegistryHost() + "/" + repository
	if err := client.Push(p.T.Context(), l, image, ociimage.Reference{Repository: name}, nil); err != nil {
		p.T.Fatal(err)
	}
	attach := func(s ociimage.Signature) error { return client.Attach(p.T.Context(), name, image, s) }
	digest = string(image.Digest)
	if f.inIndex {
		index, err := client.PushIndex(p.T.Context(), name, "forged", []*ociimage.Image{image}, image.Annotations)
		if err != nil {
			p.T.Fatal(err)
		}
		digest = string(index.Digest)
		attach = func(s ociimage.Signature) error { return client.AttachToIndex(p.T.Context(), name, index, s) }
	}
	if f.key != "" {
		sign(p.T, f.key, name, digest, attach)
	}
	return repository, digest
}

// sign attaches a signature in the newer form, made with the key of that prefix.
func sign(t testing.TB, key, repository, digest string, attach func(ociimage.Signature) error) {
	t.Helper()
	k, err := signing.OpenKey(read(t, key+".key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signing.SignManifest(k, signing.Image{Digest: digest, Repository: repository})
	if err == nil {
		err = attach(ociimage.Signature{MediaType: signing.BundleMediaType, Data: s.Bundle, Annotations: map[string]string{
			signing.AnnotationBundleContent: signing.BundleContent, signing.AnnotationPredicateType: signing.PredicateType,
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostilePlatform: a platform that was taken over tells a node to run what its trust policy
// doesn't allow. A node that has run stays with what it ran and says why; a new one refuses.
func TestHostilePlatform(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	b := p.Publish(base("1"))
	p.Publish(app("1"))
	old := p.node("old", "base", "app")
	s := old.boot()
	root := s.status().RootDigest
	s.exit()

	foreign := foreignKey(t)
	// Each is another image: a signature that an earlier one has would count for the same one.
	evil := func(kind string) mod {
		m := app("6.6.6")
		m.Files["usr/lib/app/data"] = "evil: " + kind
		return m
	}
	for _, c := range []struct {
		name string
		// make returns what the platform then says of the module app.
		make  func() (version, repository, digest string)
		code  int
		wants []string
	}{
		{"a foreign key", p.says("6.6.6", evil("foreign key"), forgery{key: foreign}), 2, []string{"app 6.6.6", "key"}},
		{"no signature", p.says("6.6.6", evil("unsigned"), forgery{}), 2, []string{"app 6.6.6", "not signed"}},
		{"another seal", p.says("6.6.6", evil("seal"), forgery{key: p.Key, annotate: func(a map[string]string) {
			a[module.AnnotationSeal] = strings.Repeat("ab", 32)
		}}), 2, []string{"app 6.6.6", "seal", strings.Repeat("ab", 32)}},
		{"no seal", p.says("6.6.6", evil("no seal"), forgery{key: p.Key, annotate: func(a map[string]string) {
			delete(a, module.AnnotationSeal)
		}}), 2, []string{"app 6.6.6", "seal"}},
		{"another module of the right key", func() (string, string, string) { return "1", "modules/base", b.Digest }, 2, []string{"app 1", "base"}},
		{"an old version under a new number", p.says("2", app("1"), forgery{key: p.Key}), 2, []string{"app 2", "1"}},
		{"another name in the annotation than in the manifest", p.says("1", base("1"), forgery{key: p.Key, repository: "modules/app", annotate: func(a map[string]string) {
			a[module.AnnotationName] = "app"
		}}), 2, []string{"app", "base"}},
		{"a repository that no rule is for", p.says("6.6.6", evil("repository"), forgery{key: p.Key, repository: "elsewhere/app"}), 2, []string{"app 6.6.6", "elsewhere/app", "no rule"}},
		{"a signed index around an unsigned image", p.says("6.6.6", evil("index"), forgery{key: p.Key, inIndex: true}), 2, []string{"app 6.6.6", "not signed"}},
		{"a digest that isn't there", func() (string, string, string) { return "2", "modules/app", "sha256:" + strings.Repeat("0", 64) }, 5, []string{"app", "2"}},
		{"a name that leads out of the store", func() (string, string, string) { return "../../2", "modules/app", b.Digest }, 5, []string{"../../2"}},
	} {
		version, repository, digest := c.make()
		p.corrupt(`UPDATE versions SET version = ?, repository = ?, digest = ? WHERE id = (SELECT version_id FROM modules WHERE name = 'app')`,
			version, repository, digest)
		t.Run(c.name, func(t *testing.T) {
			s := old.on(t).boot()
			status := s.status()
			if status.RootDigest != root || status.Generation != 1 || status.InStep || len(status.Remarks) != 1 {
				t.Errorf("a node that has run: %+v", status)
			}
			for _, want := range append(c.wants, "staying with generation 1") {
				if len(status.Remarks) > 0 && !strings.Contains(status.Remarks[0], want) {
					t.Errorf("the remark %q doesn't say %q", status.Remarks[0], want)
				}
			}
			if shown := s.agent("status").Stdout; version == "6.6.6" && !strings.Contains(shown, "app 6.6.6 is assigned, and ") {
				t.Errorf("the status doesn't say what is assigned instead:\n%s", shown)
			}
			s.exit()
			p.on(t).node(nodeName(), "base", "app").refuses(c.code, c.wants...)
		})
	}
}

// says returns what makes a forged module and says what the platform would of it.
func (p *platform) says(version string, m mod, f forgery) func() (string, string, string) {
	return func() (string, string, string) {
		repository, digest := p.forge(m, f)
		return version, repository, digest
	}
}

// TestHostileRegistry: what lies in the registry was damaged or taken away after it was pushed.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	for _, c := range []struct {
		name string
		// blob picks the file to spoil.
		blob  func(m published, layer, config string) string
		spoil func(t testing.TB, path string)
		code  int
		wants []string
	}{
		{"a byte of the layer", pickLayer, damage, 2, []string{"app", "layer", "the registry's copy is damaged"}},
		{"the layer is cut short", pickLayer, truncate, 2, []string{"app", "layer", "the registry's copy is damaged"}},
		{"the layer is gone", pickLayer, remove, 5, []string{"app", "layer", "500"}},
		{"a byte of the config", pickConfig, damage, 2, []string{"app", "damaged"}},
		{"a byte of the manifest", pickManifest, damage, 2, []string{"app", "manifest", "the registry's copy is damaged"}},
		{"the manifest is cut short", pickManifest, truncate, 2, []string{"app", "manifest", "the registry's copy is damaged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := app("1")
			m.Name = "app-" + nodeName()
			out := p.on(t).Publish(m)
			n := p.on(t).node(nodeName(), "base", m.Name)
			manifest := decode[struct {
				Config struct{ Digest string }
				Layers []struct{ Digest string }
			}](t, read(t, p.Blob(out.Digest)))
			c.spoil(t, p.Blob(c.blob(out, manifest.Layers[0].Digest, manifest.Config.Digest)))
			n.refuses(c.code, c.wants...)
		})
	}
}

func pickLayer(_ published, layer, _ string) string   { return layer }
func pickConfig(_ published, _, config string) string { return config }
func pickManifest(m published, _, _ string) string    { return m.Digest }
