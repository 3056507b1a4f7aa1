package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// EtcSpec says what to make another layer of local changes to /etc of: beside the one that is in use,
// for another root image to come beneath the same changes.
type EtcSpec struct {
	// Image is open on /etc of the root image's union.
	Image      *os.File
	RootDigest fsverity.Digest
	// Upper and Work are the directories of the overlay, in one mount: the upper that the running
	// one has, and a work directory that was never used.
	Upper, Work *os.File
	// StateDir is the directory of record.
	StateDir string
	// Scratch is a directory to attach a tmpfs below for a moment.
	Scratch string
	// Remark takes what a person should know; nil drops it.
	Remark func(text, hint string)
}

// EtcLayer returns local changes to /etc over a root image's as a detached mount, of the same make as
// Make's: see there for why the image's /etc is copied. Where changes go to memory because the disk
// can't take them, what the disk has of earlier ones lies between.
func EtcLayer(ctx context.Context, spec EtcSpec) (*mount.Mount, error) {
	remark := spec.Remark
	if remark == nil {
		remark = func(string, string) {}
	}
	image, drop, err := copyOfEtc(ctx, spec.Image, filepath.Join(spec.Scratch, "etc-image"), remark)
	if err != nil {
		return nil, err
	}
	defer drop()
	lowers := []*os.File{image}
	kept, err := openDir(filepath.Join(spec.StateDir, etcName, upperName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("look for local changes to /etc: %w", err)
	default:
		defer kept.Close()
		same, err := sameDir(kept, spec.Upper)
		if err != nil {
			return nil, err
		}
		if !same {
			lowers = []*os.File{kept, image}
		}
	}
	return mount.Layers(mount.LayersSpec{Source: sourceOf(etcName, spec.RootDigest), Lowers: lowers, Upper: spec.Upper, Work: spec.Work})
}

func sameDir(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", a.Name(), err)
	}
	y, err := b.Stat()
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", b.Name(), err)
	}
	return os.SameFile(x, y), nil
}

// EtcLayerOf reports whether a mount is a layer of local changes to /etc, and over which root image.
func EtcLayerOf(e mount.Entry) (fsverity.Digest, bool) {
	mark, ok := strings.CutPrefix(e.Source, sourcePrefix+etcName+":")
	if !ok || e.FSType != "overlay" {
		return fsverity.Digest{}, false
	}
	digest, err := fsverity.ParseDigest(mark)
	return digest, err == nil
}
