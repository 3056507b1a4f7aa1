package agentcli

import (
	"errors"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// errMixture says that what is mounted is no root of one generation.
var errMixture = errors.New("what is mounted is of several roots, and equal to none: a change was interrupted, or somebody mounted something")

// mountedRoot returns the union at root, and the root digest that the whole of what is mounted there is equal to, as the
// kernel's tables and the images say. wanted is what it should be.
func mountedRoot(root string, st *store.Store, wanted fsverity.Digest) (mount.MountedUnion, fsverity.Digest, error) {
	state, err := live.Mounted(root)
	if err != nil {
		return mount.MountedUnion{}, fsverity.Digest{}, err
	}
	if len(state.Directories) == 0 && !wentLive(root) {
		return state.Base, state.Base.Digest, nil
	}
	digest, ok, err := live.Whole(state, root, wanted, func(d fsverity.Digest) (*tree.Node, error) { return change.ReadTree(st, d) })
	if err == nil && !ok {
		err = errMixture
	}
	return state.Base, digest, err
}

// wentLive reports whether the root was changed since it was booted.
func wentLive(root string) bool {
	facts, err := boot.ReadFacts(root)
	return err == nil && !facts.Base.IsZero()
}
