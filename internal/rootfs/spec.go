package rootfs

import (
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// Names of the root's top-level directories that are mounted on.
const (
	persistName = "persist"
	varName     = "var"
)

// rootsName is the directory of the directory of record that holds what the root's own
// directories keep from one boot to the next.
const rootsName = "roots"

// Spec says what root to make, and where.
type Spec struct {
	// At is where the union is mounted; it is made where it is missing.
	At string
	// Scratch is a directory of this boot, on a tmpfs, for what the root needs beside itself: its
	// writable layer is mounted at "upper" below it.
	Scratch string
	// Store holds the root image and its objects; its path is the directory of record.
	Store      *store.Store
	RootDigest fsverity.Digest
	// Level is what mount.Decide returned.
	Level mount.Level
	// Persist is the directory that becomes the root's /persist.
	Persist string
	// Upper is the writable layer.
	Upper Upper
	// Init is the program that is to be started in the root.
	Init string
}

// Upper says what the writable layer is made of.
type Upper struct {
	// Size of it, as tmpfs writes it ("512m", "25%"); "" is half of the memory.
	Size string
}

func (s *Spec) fill() error {
	if s.At == "" || s.Scratch == "" || s.Store == nil || s.Persist == "" || s.RootDigest.IsZero() {
		return fault.New(fault.Broken, fault.Mount, "", "make a root: place, scratch directory, store, root digest and persist directory must be given")
	}
	if s.Upper.Size == "" {
		s.Upper.Size = "50%"
	}
	if s.Init == "" {
		s.Init = "/sbin/init"
	}
	return nil
}

// upperDir is where the file system of the writable layer is mounted.
func (s *Spec) upperDir() string { return filepath.Join(s.Scratch, "upper") }

// Unfit says that a root was mounted as it should be, and can't run: its modules are to blame.
type Unfit struct{ error }

// Unwrap returns the reason.
func (e *Unfit) Unwrap() error { return e.error }
