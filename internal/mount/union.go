package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"golang.org/x/sys/unix"
)

// UnionSpec describes a union: root image, object store and, unless it is read-only, an upper.
// All files stay the caller's, who may close them once Union has returned.
type UnionSpec struct {
	// Image is open for reading on the root image, Digest its root digest.
	Image  *os.File
	Digest fsverity.Digest
	// Objects is the object store's directory.
	Objects *os.File
	// Upper and Work are directories in one file system. The kernel wants Work empty, and no other
	// union on either; both nil make the union read-only.
	Upper, Work *os.File
	// Inherited says that the upper holds changes that were made over another root image; it is
	// remembered there. See stranger.
	Inherited bool
	// Level is what Decide returned.
	Level Level
	// Volatile leaves out every sync of the upper; after a crash the kernel refuses that upper.
	Volatile bool
	// Attrs are the attributes of the union's mount; none for a root.
	Attrs Attr
	// Scratch is an existing directory in which the image is attached for the moment of mounting
	// where the kernel takes no detached layers (before 6.15); "" is the directory for temporary
	// files.
	Scratch string
}

// Union checks the root image against its digest and returns the union as a detached mount. Its
// source in the mount table carries the digest, by which Ours knows it.
//
// At level Enforced the image must have fs-verity with that digest, and the kernel will let no
// object without its digest be opened; on a file system without fs-verity the union is refused.
// At level Checked the image is hashed here; the objects are the caller's affair.
func Union(spec UnionSpec) (*Mount, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := checkImage(spec.Image, spec.Digest, spec.Level); err != nil {
		return nil, err
	}
	u, err := spec.mount(probeLayering())
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Mount, "", "mount the union of root digest %s: %w", spec.Digest, err)
	}
	return u, nil
}

func (spec UnionSpec) validate() error {
	switch {
	case spec.Image == nil || spec.Objects == nil:
		return fault.New(fault.Broken, fault.Mount, "", "mount a union: image and object store must be given")
	case spec.Digest.IsZero():
		return fault.New(fault.Refuse, fault.Verify, "", "mount a union: no root digest to check the image against")
	case spec.Level != Enforced && spec.Level != Checked:
		return fault.New(fault.Refuse, fault.Policy, "", "mount a union: integrity level %q is not one to mount at", spec.Level)
	case (spec.Upper == nil) != (spec.Work == nil):
		return fault.New(fault.Broken, fault.Mount, "", "mount a union: upper and work directory come together")
	case spec.Upper == nil:
		return nil
	}
	upper, _, err := identify(spec.Upper)
	if err != nil {
		return err
	}
	work, _, err := identify(spec.Work)
	if err != nil {
		return err
	}
	if !upper.Same(work) {
		return fault.New(fault.Refuse, fault.Mount, "put both below one directory of one mount",
			"mount a union: upper %s and work directory %s are not on the same mount", spec.Upper.Name(), spec.Work.Name())
	}
	return nil
}

// checkImage proves that image, by this very descriptor, holds the bytes of digest.
func checkImage(image *os.File, digest fsverity.Digest, level Level) error {
	var got fsverity.Digest
	var err error
	if level == Enforced {
		got, err = fsverity.Measure(image)
	} else {
		got, _, err = fsverity.SumFile(image)
	}
	switch {
	case err != nil && level == Enforced:
		return fault.New(fault.Refuse, fault.Verify, `enable fs-verity on it, or let the trust policy accept the level "checked"`,
			"check the root image at level %q: %w", level, err)
	case err != nil:
		return fault.New(fault.Broken, fault.Mount, "", "check the root image at level %q: %w", level, err)
	case got != digest:
		return fault.New(fault.Refuse, fault.Verify, "remove the generation and compose it again",
			"root image %s has digest %s, not %s: it was changed or damaged", image.Name(), got, digest)
	default:
		return nil
	}
}

func (spec UnionSpec) mount(how layering) (*Mount, error) {
	image, err := EROFS(spec.Image, NoSUID|NoDev)
	if err != nil {
		return nil, err
	}
	lower, drop, err := spec.layer(image, how)
	if err != nil {
		return nil, err
	}
	defer drop()
	layers := overlayLayers{image: lower, data: spec.Objects, upper: spec.Upper, work: spec.Work}
	inherited, err := spec.inherited()
	if err != nil {
		return nil, err
	}
	if inherited {
		m, err := stranger()
		if err != nil {
			return nil, err
		}
		if layers.stranger, drop, err = spec.layer(m, how); err != nil {
			return nil, err
		}
		defer drop()
	}
	attrs := spec.Attrs
	if spec.Upper == nil {
		attrs |= ReadOnly
	}
	u, err := New("overlay", attrs, layers.options(how, sourcePrefix+spec.Digest.String(), spec.Level, spec.Volatile)...)
	runtime.KeepAlive(layers) // an option may name a directory by the number of its descriptor
	return u, err
}

// layer opens the root of m as a layer, and closes m. drop is called once the overlay is made.
func (spec UnionSpec) layer(m *Mount, how layering) (dir *os.File, drop func(), err error) {
	remove := func() {}
	if !how.detached {
		if remove, err = attachForNow(m, spec.Scratch); err != nil {
			return nil, nil, errors.Join(err, m.Close())
		}
	}
	if dir, err = m.OpenDir(); err != nil {
		remove()
		return nil, nil, errors.Join(err, m.Close())
	}
	return dir, func() {
		dir.Close()
		remove()
		m.Close()
	}, nil
}

// attachForNow attaches m at a new directory in scratch and returns what takes it away again. The
// overlay keeps a copy of the mount of its own. Whoever is killed between the two leaves a
// read-only mount behind until the next reboot; nothing depends on it.
func attachForNow(m *Mount, scratch string) (remove func(), err error) {
	dir, err := os.MkdirTemp(scratch, "powernode-layer-")
	if err != nil {
		return nil, fmt.Errorf("make a place for the image's mount: %w", err)
	}
	if err := m.Attach(dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return func() {
		_ = unix.Unmount(procPath(m.f), unix.MNT_DETACH)
		_ = os.Remove(dir)
	}, nil
}
