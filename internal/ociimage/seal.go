package ociimage

import (
	"fmt"
	"maps"
	"slices"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Canonical returns the tree that is sealed, after composefs-rs's sealing specification and its
// transformation for OCI images: the root directory has mode, owner, time and extended attributes
// of /usr, because builders disagree about the root or leave it out; /run is empty and has the
// time of /usr, because whatever lies there was left behind by the build. root is not changed;
// the result shares everything else with it.
//
// composefs-rs also drops all extended attributes but security.capability (and, by option,
// user.*); here all stay that a module may carry. BeyondSealingSpec tells where that makes the
// seals differ.
func Canonical(root *tree.Node) (*tree.Node, error) {
	usr := root.Child("usr")
	if usr == nil || usr.Kind != tree.Directory {
		return nil, fault.New(fault.Refuse, fault.Verify, "put the module's files below /usr", "seal a tree that has no directory /usr")
	}
	sealed := withMetadata(usr)
	for name, child := range root.Entries() {
		sealed.SetChild(name, child)
	}
	if run := root.Child("run"); run != nil {
		if run.Kind != tree.Directory {
			return nil, fault.New(fault.Refuse, fault.Verify, "make /run a directory, or leave it out", "seal a tree whose /run is no directory")
		}
		empty := withMetadata(run)
		empty.Mtime = usr.Mtime
		sealed.SetChild("run", empty)
	}
	return sealed, nil
}

// withMetadata returns an empty directory with another's metadata.
func withMetadata(dir *tree.Node) *tree.Node {
	return &tree.Node{
		Kind: tree.Directory, Mode: dir.Mode, UID: dir.UID, GID: dir.GID,
		Mtime: dir.Mtime, Xattrs: slices.Clone(dir.Xattrs),
	}
}

// Seal returns the seal of a tree as its layers have it: the fs-verity digest of the version 1
// composefs image of the canonical tree.
func Seal(root *tree.Node) (fsverity.Digest, error) {
	canonical, err := Canonical(root)
	if err != nil {
		return fsverity.Digest{}, err
	}
	seal, err := composefs.Digest(canonical, composefs.V1)
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("seal tree: %w", err)
	}
	return seal, nil
}

// BeyondSealingSpec returns the names of extended attributes in the tree that composefs-rs drops
// before it seals, sorted: with any, its seal of the same layers is another one. user.* counts
// among them, since it is kept there only by option.
func BeyondSealingSpec(root *tree.Node) []string {
	found := make(map[string]struct{})
	for _, n := range root.Walk() {
		for _, x := range n.Xattrs {
			if x.Name != "security.capability" {
				found[x.Name] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
