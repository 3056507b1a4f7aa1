package live

import (
	"context"
	"os"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Images is where root images and objects come from: a *store.Store.
type Images interface {
	// OpenRootImage opens a root image for reading.
	OpenRootImage(fsverity.Digest) (*os.File, error)
	// ObjectsDir is the object store's directory, open as long as the store is.
	ObjectsDir() *os.File
	// Path is the directory of record.
	Path() string
}

// Place says where a root runs.
type Place struct {
	// Root is the running root, "/" on a node.
	Root string
	// RunDir is the directory of this boot, on a tmpfs: the journal is "live.json" there, and "live" is
	// a directory to mount on for a moment.
	RunDir string
	Images Images
	// UpperDir is the directory of the writable layer, where it is known; "" is what the mount table
	// says. It is used only if it is proven to be the one.
	UpperDir string
	// Remark takes what a person should know although all went well; nil drops it.
	Remark func(text, hint string)
	// BeforeReplace, if not nil, is called when everything is ready and directly before the first directory is replaced: to settle
	// what was changed in the meantime. back says that it is the way back, From the root that goes. An error ends
	// the change before anything is replaced; on the way back it becomes a remark.
	BeforeReplace func(ctx context.Context, back bool) error
	// Hook sees the label of every step; for tests.
	Hook durable.Hook
}

// Spec is a change of the running root. The integrity level stays the one that it is mounted at.
type Spec struct {
	Place
	From, To Side
	// Changes is what Changes returned for the difference between the two root images.
	Changes []Change
	// Tree is the new root image, for Check to look whether it has the places of submounts; nil leaves
	// that to Swap.
	Tree *tree.Node
}

func (p *Place) fill() error {
	if p.Root == "" || p.RunDir == "" || p.Images == nil {
		return fault.New(fault.Broken, fault.Mount, "", "change the running root: root, directory of this boot and store must be given")
	}
	if p.Remark == nil {
		p.Remark = func(string, string) {}
	}
	return nil
}

func (s *Spec) fill() error {
	if err := s.Place.fill(); err != nil {
		return err
	}
	if s.From.RootDigest.IsZero() || s.To.RootDigest.IsZero() {
		return fault.New(fault.Broken, fault.Mount, "", "change the running root: both root digests must be given")
	}
	for _, c := range s.Changes {
		if err := c.validate(); err != nil {
			return err
		}
	}
	return nil
}
