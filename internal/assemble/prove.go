package assemble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// imageMax is the largest module image in bytes that is read into memory: a million files of
// metadata.
const imageMax = 1 << 30

// Wanted is a module as the assignment, or a generation's record, asks for it.
type Wanted struct {
	ID      string
	Name    string
	Version string
	// Repository is "host/path", without tag or digest.
	Repository        string
	ManifestDigest    string
	EffectivePriority int
}

// String returns the name and version, for messages.
func (w Wanted) String() string { return w.Name + " " + w.Version }

// Proven is a module of the store that passed every check in this run.
type Proven struct {
	Wanted   Wanted
	Module   store.Module
	Manifest *module.Manifest
	Signed   *signature.Verified
	// Root is the module's canonical tree, read from the image that the seal names.
	Root *tree.Node
	// Objects is how many objects the tree refers to; 0 where they weren't looked at (Prover.Running).
	Objects int
}

// Checks returns the account of what was checked: each passed.
func (p *Proven) Checks() []signature.Check {
	return append(append([]signature.Check(nil), p.Signed.Checks...), sealCheck(p.Module.Seal),
		signature.Check{Name: "objects", Detail: fmt.Sprintf("%d objects have the bytes of their digests", p.Objects)})
}

// Prover checks modules that are in the store.
type Prover struct {
	Store    *store.Store
	Verifier *signature.Verifier
	// Fresh are objects whose bytes were hashed on their way into the store by this process; they
	// are not hashed again. nil means none.
	Fresh map[fsverity.Digest]struct{}
	// Enforce has fs-verity enabled on every object and image that was proven and lacks it, as
	// after a move to a disk or a kernel that has it: a union at the level "enforced" opens nothing
	// without.
	Enforce bool
	// Running has the objects of a module left alone: the module is part of the root that runs, for which they were proven, and
	// from which they are read. Its record, signature, config, seal and image are proven as ever.
	Running bool
	// Deep has every byte read also of objects with fs-verity, which the kernel checks block by
	// block as they are read, and not before.
	Deep bool

	images sync.Pool // of *bytes.Buffer, for one image after the other
}

// Prove checks one module: record, signature, config, seal, objects, in this order, and returns
// it with its tree. A verdict is a fault in area Verify that names the module and, for an object,
// the file. What another copy of the same bytes would mend has a *DamageError in the chain.
func (p *Prover) Prove(ctx context.Context, want Wanted) (*Proven, error) {
	get := p.Store.GetModule
	if p.Running {
		get = p.Store.SignedModule
	}
	m, err := get(want.ManifestDigest)
	if err != nil {
		return nil, &DamageError{Wanted: want, Record: true, Err: fmt.Errorf("module %s: %w", want, err)}
	}
	bundles := make([]signature.Bundle, len(m.Bundles))
	for i, raw := range m.Bundles {
		bundles[i] = signature.DecodeBundle(raw)
	}
	signed, err := p.Verifier.VerifyManifest(signature.Subject{
		Repository: want.Repository, ManifestDigest: want.ManifestDigest, Manifest: m.Manifest,
		Name: want.Name, Version: want.Version,
	}, bundles)
	if err != nil {
		return nil, err
	}
	image, err := ociimage.ParseImage(m.Manifest, m.Config)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", want, err)
	}
	sealed, err := readSealed(want, image)
	if err != nil {
		return nil, err
	}
	if m.Seal != sealed.Seal {
		return nil, &DamageError{Wanted: want, Record: true, Err: fault.New(fault.Broken, fault.Verify, "have it pulled again: remove its directory below modules in the store",
			"module %s: the store's record says that its seal is %s, and the signed manifest %s", want, m.Seal, sealed.Seal)}
	}
	root, err := p.openSealed(want, sealed.Seal)
	if damage, ok := errors.AsType[*DamageError](err); ok {
		// Its files are named by that image; the record lists their objects all the same.
		bad, ctxErr := p.Store.Damaged(ctx, m.Objects, p.Deep)
		if ctxErr != nil {
			return nil, ctxErr
		}
		damage.Objects = append(damage.Objects, slices.Collect(maps.Keys(bad))...)
	}
	if err != nil {
		return nil, err
	}
	if p.Running {
		if err := checkContents(want, root); err != nil {
			return nil, err
		}
		return &Proven{Wanted: want, Module: m, Manifest: sealed.Manifest, Signed: signed, Root: root}, nil
	}
	bare, err := p.proveObjects(ctx, want, root)
	if err != nil {
		return nil, err
	}
	all := objects(root, nil)
	if p.Enforce {
		for _, d := range all {
			if _, fresh := p.Fresh[d]; fresh {
				bare = append(bare, d)
			}
		}
		if err := p.Store.EnableVerity(ctx, append(bare, sealed.Seal)); err != nil {
			return nil, fmt.Errorf("module %s: %w", want, err)
		}
	}
	return &Proven{Wanted: want, Module: m, Manifest: sealed.Manifest, Signed: signed, Root: root, Objects: len(all)}, nil
}

// openSealed reads the module image that the seal names. The image is hashed whole and parsed
// from the same bytes, so that nothing can change between.
func (p *Prover) openSealed(want Wanted, seal fsverity.Digest) (*tree.Node, error) {
	buf, ok := p.images.Get().(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	defer p.images.Put(buf)
	if err := p.readSealed(want, seal, buf); err != nil {
		return nil, err
	}
	root, err := composefs.Parse(buf.Bytes()) // which shares nothing with it
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", want, err)
	}
	return root, nil
}

func (p *Prover) readSealed(want Wanted, seal fsverity.Digest, image *bytes.Buffer) error {
	damaged := func(err error) error {
		return &DamageError{Wanted: want, Objects: []fsverity.Digest{seal}, Err: err}
	}
	f, err := p.Store.OpenModuleImage(seal)
	if err != nil {
		return damaged(fmt.Errorf("module %s: %w", want, err))
	}
	defer f.Close()
	err = readAll(f, image)
	switch {
	case errors.Is(err, syscall.EIO):
		return damaged(fault.New(fault.Broken, fault.Verify, hintMend, "module %s: its image is damaged: the kernel refuses to read it: %w", want, err))
	case err != nil:
		return fault.New(fault.Broken, fault.Mount, "check the disk", "module %s: read its image: %w", want, err)
	case image.Len() > imageMax:
		return fault.New(fault.Refuse, fault.Verify, "split the module", "module %s: its image is larger than %d bytes", want, imageMax)
	}
	if got := fsverity.SumBytes(image.Bytes()); got != seal {
		return damaged(fault.New(fault.Broken, fault.Verify, hintMend,
			"module %s: its image is damaged: the seal is %s, %s holds %s", want, seal, f.Name(), got))
	}
	return nil
}

// proveObjects checks the bytes of every object of the tree that isn't fresh, and returns those
// that are in order but not under fs-verity.
func (p *Prover) proveObjects(ctx context.Context, want Wanted, root *tree.Node) (bare []fsverity.Digest, err error) {
	if err := checkContents(want, root); err != nil {
		return nil, err
	}
	bad, bare, err := p.Store.Inspect(ctx, objects(root, p.Fresh), p.Deep)
	if err != nil || len(bad) == 0 {
		return bare, err
	}
	// Say which file of the module one of them is.
	for path, n := range root.Walk() {
		if n.Kind != tree.Regular || bad[n.Digest] == nil {
			continue
		}
		err := fmt.Errorf("module %s: /%s: %w", want, path, bad[n.Digest])
		if more := len(bad) - 1; more > 0 {
			err = fmt.Errorf("%w (and %d more of its objects)", err, more)
		}
		return nil, &DamageError{Wanted: want, Objects: slices.Collect(maps.Keys(bad)), Err: err}
	}
	return nil, fault.New(fault.Broken, fault.General, "report this defect", "module %s: objects that no file has", want)
}

// readAll reads an image into a buffer, of which it takes one byte more than imageMax at the most.
func readAll(f *os.File, image *bytes.Buffer) error {
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	image.Reset()
	image.Grow(int(min(size, imageMax)) + bytes.MinRead) // with room to find the end
	_, err := image.ReadFrom(io.LimitReader(f, imageMax+1))
	return err
}

// checkContents refuses a tree with a file whose content lies anywhere but in the object of its
// own digest: nobody could say what bytes it has.
func checkContents(want Wanted, root *tree.Node) error {
	if !strays(root) {
		return nil
	}
	for path, n := range root.Walk() {
		if stray(n) {
			return fault.New(fault.Refuse, fault.Verify, "build the module again with powernode module build",
				"module %s: /%s: its content isn't named by a digest", want, path)
		}
	}
	return nil
}

// strays reports whether there are such files in a directory and below. Putting paths together would take most of the time.
func strays(dir *tree.Node) bool {
	for _, n := range dir.Unordered() {
		if n.Kind == tree.Directory && strays(n) || stray(n) {
			return true
		}
	}
	return false
}

func stray(n *tree.Node) bool {
	if n.Kind != tree.Regular || n.Size <= uint64(len(n.Inline)) {
		return false
	}
	// The path isn't put together where it is the usual one.
	usual := n.Payload == "" && n.Explicit&tree.ExplicitPayload == 0
	return n.Digest.IsZero() || !usual && n.PayloadPath() != n.Digest.ObjectPath()
}

// objects returns the digests of the tree's objects, sorted, each once, without those in except.
func objects(root *tree.Node, except map[fsverity.Digest]struct{}) []fsverity.Digest {
	var digests []fsverity.Digest
	for _, n := range root.Walk() {
		if n.Kind != tree.Regular || n.Digest.IsZero() {
			continue
		}
		if _, skip := except[n.Digest]; !skip {
			digests = append(digests, n.Digest)
		}
	}
	slices.SortFunc(digests, func(a, b fsverity.Digest) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(digests)
}
