package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/signing"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

const extraName = "extra"

// node is a machine with a running root, its registry and its platform.
type node struct {
	dir, state, run, root string
	layout                *ociimage.Layout
	key                   *signing.Key
	verifier              *signature.Verifier
	layer                 layer.Descriptor
	level                 mount.Level
	list                  nodeapi.ModuleList
	files, modules        int
	paths                 []string // of the base modules' files
	seals                 []fsverity.Digest
	running               store.Generation
	made                  *rootfs.Root
}

// Modules implements reconcile.Platform.
func (n *node) Modules(context.Context) (*nodeapi.ModuleList, error) {
	list := n.list
	list.Modules, list.Count = slices.Clone(list.Modules), len(list.Modules)
	return &list, nil
}

// newNode makes the modules, and the root of all but the extra one.
func newNode(ctx context.Context, dir string, files, modules int) (*node, error) {
	scratch, err := os.MkdirTemp("", "bench-live-")
	if err != nil {
		return nil, err
	}
	n := &node{dir: scratch, run: filepath.Join(scratch, "run"), files: files, modules: modules}
	n.root = filepath.Join(n.run, "root")
	if n.state, err = filepath.Abs(filepath.Join(dir, fmt.Sprintf("%d-files", files))); err != nil {
		return nil, err
	}
	if err := n.make(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *node) make(ctx context.Context) error {
	if err := n.prepare(); err != nil {
		return err
	}
	st, err := store.Open(n.state, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	abilities, err := mount.Probe(st.ObjectsPath())
	if err != nil {
		return err
	}
	if n.level, err = mount.Decide(abilities, mount.Checked); err != nil {
		return err
	}
	if err := n.publishAll(ctx, st); err != nil {
		return err
	}
	return n.boot(ctx, st)
}

// prepare makes the key, the registry and the directory of this boot.
func (n *node) prepare() (err error) {
	if n.key, err = signing.GenerateKey(); err != nil {
		return err
	}
	policy, err := signature.LoadPolicy([]byte("schema_version: 1\nrules:\n  - name: bench\n    images: [\"example.org/**\"]\n    keys: [{file: k.pub}]\n"),
		fstest.MapFS{"k.pub": {Data: n.key.PublicPEM()}})
	if err != nil {
		return err
	}
	if n.verifier, err = signature.NewVerifier(policy, signature.Options{}); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(n.state, "persist"), n.run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	m, err := mount.New("tmpfs", 0, mount.String("mode", "755"))
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Attach(n.run); err != nil {
		return err
	}
	n.layout, err = ociimage.CreateLayout(filepath.Join(n.run, "registry"))
	return err
}

// publishAll puts the modules into the store and, signed, into the registry. Their one layer there is none of theirs: nobody
// fetches it.
func (n *node) publishAll(ctx context.Context, st *store.Store) (err error) {
	if n.layer, err = n.layout.AddLayer(ctx, tree.NewDir(0o755), layer.WriteOptions{}); err != nil {
		return err
	}
	f := newFiller(st)
	packages := (n.files + packageFiles - 1) / packageFiles
	for i := range n.modules {
		name := fmt.Sprintf("module-%03d-of-%d", i, n.modules)
		first, last := packages*i/n.modules*packageFiles, min(packages*(i+1)/n.modules*packageFiles, n.files)
		text := manifestOf(name)
		root, err := f.module(name, first, last, text)
		if err != nil {
			return err
		}
		if i == 0 {
			init := initProgram()
			put(root, "usr/sbin/init", &tree.Node{Kind: tree.Regular, Mode: 0o755, Size: uint64(len(init)), Digest: fsverity.SumBytes(init)})
			put(root, "sbin", &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "usr/sbin"})
			put(root, "var/lib", tree.NewDir(0o755))
			if err := add(st, init); err != nil {
				return err
			}
		}
		if err := n.publish(ctx, st, name, "1.0.0", text, root); err != nil {
			return err
		}
	}
	n.paths = f.paths
	return nil
}

// publishExtra puts a version of the extra module into the store and has it assigned. Each version has a file of its own.
func (n *node) publishExtra(ctx context.Context, st *store.Store, version string) error {
	root, err := newFiller(st).module(extraName, 0, extraFiles-1, manifestOf(extraName))
	if err != nil {
		return err
	}
	put(root, "usr/share/"+extraName+"/version", &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(version)), Inline: []byte(version)})
	n.list.Modules = n.list.Modules[:n.modules]
	return n.publish(ctx, st, extraName, version, manifestOf(extraName), root)
}

func manifestOf(name string) string { return "schema_version: 1\nname: " + name + "\n" }

func add(st *store.Store, content []byte) error {
	w, err := st.NewObject(int64(len(content)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return err
	}
	_, _, err = w.Commit()
	return err
}

func (n *node) publish(ctx context.Context, st *store.Store, name, version, text string, root *tree.Node) error {
	canonical, err := ociimage.Canonical(root)
	if err != nil {
		return err
	}
	image, seal, err := composefs.Build(canonical, composefs.V1)
	if err != nil {
		return err
	}
	oci, err := n.layout.AddImage(ociimage.ImageSpec{
		Architecture: runtime.GOARCH, Layers: []layer.Descriptor{n.layer}, Labels: map[string]string{module.LabelManifest: text},
		Annotations: map[string]string{module.AnnotationName: name, module.AnnotationVersion: version, module.AnnotationSeal: seal.String()},
	})
	if err != nil {
		return err
	}
	m := nodeapi.Module{
		ID: "id-" + name, Name: name, Version: version, Repository: "example.org/modules/" + name, Digest: string(oci.Digest), EffectivePriority: 10_000,
	}
	signed, err := signing.SignManifest(n.key, signing.Image{Digest: m.Digest, Repository: m.Repository})
	if err != nil {
		return err
	}
	// The registry is asked for the extra module only, and looks through all signatures that it has.
	if name == extraName {
		if err := n.layout.Attach(ctx, oci, ociimage.Signature{MediaType: signing.BundleMediaType, Data: signed.Bundle}); err != nil {
			return err
		}
	}
	bundle, err := signature.Bundle{MediaType: signing.BundleMediaType, Data: signed.Bundle}.Encode()
	if err != nil {
		return err
	}
	record := store.Module{
		Name: name, Version: version, Repository: m.Repository, ManifestDigest: m.Digest, Seal: seal, PulledAt: time.Now().UTC(),
		Manifest: oci.Manifest, Config: oci.Config, Bundles: [][]byte{bundle},
	}
	for _, node := range canonical.Walk() {
		if node.Kind == tree.Regular && !node.Digest.IsZero() {
			record.Objects = append(record.Objects, node.Digest)
		}
	}
	n.list.Modules = append(n.list.Modules, m)
	n.seals = append(n.seals, seal)
	return st.PutModule(record, bytes.NewReader(image))
}

// boot makes the root as a boot does, but for the initramfs.
func (n *node) boot(ctx context.Context, st *store.Store) error {
	r, err := n.reconciler(st)
	if err != nil {
		return err
	}
	defer r.Close()
	wanted := make([]assemble.Wanted, 0, n.modules)
	for _, m := range n.list.Modules {
		wanted = append(wanted, assemble.Wanted{
			ID: m.ID, Name: m.Name, Version: m.Version, Repository: m.Repository, ManifestDigest: m.Digest, EffectivePriority: m.EffectivePriority,
		})
	}
	proven, err := r.Prove(ctx, wanted)
	if err != nil {
		return err
	}
	c, err := r.Compose(ctx, proven)
	if err != nil {
		return err
	}
	if n.running, err = r.Keep(c, "boot"); err != nil {
		return err
	}
	if err := st.Pass(n.running.Number, time.Now(), nil); err != nil {
		return err
	}
	n.made, err = rootfs.Make(ctx, rootfs.Spec{
		At: n.root, Scratch: n.run, Store: st, RootDigest: n.running.RootDigest, Level: n.level, Persist: filepath.Join(n.state, "persist"),
		Upper: rootfs.Upper{Size: "256m"}, Remark: func(text, hint string) { fmt.Fprintln(os.Stderr, "boot:", text, hint) },
	})
	if err != nil {
		return err
	}
	return unix.Mount("", n.root, "", unix.MS_SHARED|unix.MS_REC, "")
}

func (n *node) reconciler(st *store.Store) (*reconcile.Reconciler, error) {
	return reconcile.New(reconcile.Config{Store: st, Verifier: n.verifier, Arch: runtime.GOARCH, Level: n.level, Platform: n, Source: n.layout})
}

// close takes away everything but the store.
func (n *node) close() error {
	if n.layout != nil {
		n.layout.Close()
	}
	table, err := mount.ReadTable()
	for _, e := range slices.Backward(table) {
		if strings.HasPrefix(e.Point, n.dir+"/") {
			err = errors.Join(err, unix.Unmount(e.Point, unix.MNT_DETACH))
		}
	}
	return errors.Join(err, os.RemoveAll(n.dir))
}

// initProgram is a static program for this machine, as far as its headers say.
func initProgram() []byte {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Phoff: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD)})
	return b.Bytes()
}
