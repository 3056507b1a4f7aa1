package agentcli

import (
	"errors"
	"fmt"
	"sync"

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

// mountedMemo is a mountedRoot that reads images only when the mounts have changed: a heartbeat asks each time.
type mountedMemo struct {
	mu     sync.Mutex
	key    string
	digest fsverity.Digest
	err    error
}

func (m *mountedMemo) root(root string, st *store.Store, wanted fsverity.Digest) (fsverity.Digest, error) {
	state, err := live.Mounted(root)
	if err != nil {
		return fsverity.Digest{}, err
	}
	key := fmt.Sprintf("%v %v", state, wanted)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key != key {
		_, m.digest, m.err = mountedRoot(root, st, wanted)
		m.key = key
		if m.err != nil && !errors.Is(m.err, errMixture) {
			m.key = "" // what couldn't be read may be the next time
		}
	}
	return m.digest, m.err
}

// lastRemarks says what of the last update couldn't be done.
func lastRemarks() []string {
	last, _, err := change.ReadLast(boot.RunDir)
	if err != nil {
		return nil
	}
	return last.Remarks()
}
