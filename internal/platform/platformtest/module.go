package platformtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Module is a module to build out of nothing but names and texts.
type Module struct {
	Name    string
	Version string
	// Architecture is "amd64" where it is "".
	Architecture string
	// Manifest is appended to the lines of manifest.yaml that every manifest has.
	Manifest string
	// Files are the contents of files by path.
	Files map[string]string

	// What a test makes wrong: the annotations, config and layer before they are hashed.
	Annotations func(map[string]string)
	Config      func(*ocispec.Image)
	Root        func(*tree.Node)
}

// ManifestText returns the module's manifest.yaml.
func (m Module) ManifestText() string {
	return "schema_version: 1\nname: " + m.Name + "\n" + m.Manifest
}

// Tree returns the module's tree as its one layer has it, and the contents by digest.
func (m Module) Tree() (*tree.Node, map[fsverity.Digest]string) {
	root, contents := tree.NewDir(0o755), map[fsverity.Digest]string{}
	files := map[string]string{module.ManifestPath(m.Name): m.ManifestText()}
	for path, text := range m.Files {
		files[path] = text
	}
	for path, text := range files {
		dir := root
		parts := strings.Split(path, "/")
		for _, part := range parts[:len(parts)-1] {
			next := dir.Child(part)
			if next == nil {
				next = tree.NewDir(0o755)
				dir.SetChild(part, next)
			}
			dir = next
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text))}
		if len(text) <= tree.InlineMax {
			n.Inline = []byte(text)
		} else {
			n.Digest = fsverity.SumBytes([]byte(text))
			contents[n.Digest] = text
		}
		dir.SetChild(parts[len(parts)-1], n)
	}
	if m.Root != nil {
		m.Root(root)
	}
	return root, contents
}

// Push builds the module, seals it, and pushes it to the repository "modules/<name>". It returns
// what a registration of it holds.
func (p *Platform) Push(m Module) operatorapi.ModuleRegister {
	p.t.Helper()
	repository := "modules/" + m.Name
	d := p.pushImage(repository, m)
	return operatorapi.ModuleRegister{Repository: repository, Digest: string(d.Digest)}
}

// PushIndex pushes the modules as one index.
func (p *Platform) PushIndex(repository string, modules ...Module) operatorapi.ModuleRegister {
	p.t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, m := range modules {
		index.Manifests = append(index.Manifests, p.pushImage(repository, m))
	}
	d := p.pushManifest(repository, ocispec.MediaTypeImageIndex, index)
	return operatorapi.ModuleRegister{Repository: repository, Digest: string(d.Digest)}
}

// Publish pushes and registers a module.
func (p *Platform) Publish(m Module) operatorapi.Module {
	p.t.Helper()
	out, err := p.Operator.RegisterModule(p.t.Context(), p.Push(m))
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *Platform) pushImage(repository string, m Module) ocispec.Descriptor {
	p.t.Helper()
	if m.Architecture == "" {
		m.Architecture = "amd64"
	}
	root, contents := m.Tree()
	var blob bytes.Buffer
	l, err := layer.Write(p.t.Context(), &blob, root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(contents[n.Digest])), nil
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	seal, err := ociimage.Seal(root)
	if err != nil {
		p.t.Fatal(err)
	}
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: m.Architecture},
		Config:   ocispec.ImageConfig{Labels: map[string]string{module.LabelManifest: m.ManifestText()}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.DiffID}},
	}
	if m.Config != nil {
		m.Config(&config)
	}
	configText, err := json.Marshal(config)
	if err != nil {
		p.t.Fatal(err)
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: p.PushBlob(repository, configText), Size: int64(len(configText))},
		Layers: []ocispec.Descriptor{{MediaType: l.MediaType, Digest: p.PushBlob(repository, blob.Bytes()), Size: l.Size}},
		Annotations: map[string]string{
			module.AnnotationName: m.Name, module.AnnotationVersion: m.Version, module.AnnotationSeal: seal.String(),
		},
	}
	if m.Annotations != nil {
		m.Annotations(manifest.Annotations)
	}
	d := p.pushManifest(repository, ocispec.MediaTypeImageManifest, manifest)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: m.Architecture}
	return d
}

// PushBlob pushes a blob and returns its digest.
func (p *Platform) PushBlob(repository string, data []byte) digest.Digest {
	p.t.Helper()
	sum := sha256.Sum256(data)
	d := "sha256:" + hex.EncodeToString(sum[:])
	p.asOperator(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+d, "application/octet-stream", data)
	return digest.Digest(d)
}

func (p *Platform) pushManifest(repository, mediaType string, doc any) ocispec.Descriptor {
	p.t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		p.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	p.asOperator(http.MethodPut, "/v2/"+repository+"/manifests/"+string(d.Digest), mediaType, data)
	return d
}

func (p *Platform) asOperator(method, path, contentType string, data []byte) {
	p.t.Helper()
	a := p.Do(nil, method, path, bytes.NewReader(data), "Authorization", "Bearer "+p.Config.Token.Reveal(), "Content-Type", contentType)
	if a.Status != http.StatusCreated {
		p.t.Fatalf("%s %s: status %d: %s", method, path, a.Status, a.Body)
	}
}
