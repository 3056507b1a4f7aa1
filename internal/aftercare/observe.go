package aftercare

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Observed is what a plan needs to know of the running system.
type Observed struct {
	// Systemd says that it runs; Units are those that it has loaded.
	Systemd   bool
	Units     []systemd.LoadedUnit
	Processes []Process
}

// Observe looks at the running system before a change. local is as Input.Local.
func Observe(ctx context.Context, manager systemd.Manager, scan Scan, d *difference.Difference, local func(path string) bool) (Observed, error) {
	var o Observed
	var err error
	switch o.Units, err = manager.Loaded(ctx); {
	case err == nil:
		o.Systemd = true
	case !errors.Is(err, systemd.ErrNone):
		return Observed{}, err
	}
	if o.Processes, err = scan.Using(ctx, d, local); err != nil {
		return Observed{}, err
	}
	return o, nil
}

// contentMax bounds the files whose content a decision needs, in bytes: unit files, configuration of the linker, and the
// index of kernel modules, the largest of them.
const contentMax = 16 << 20

// Contents returns what reads the files of root images from a store.
func Contents(st *store.Store) func(*tree.Node) ([]byte, error) {
	return func(n *tree.Node) ([]byte, error) {
		switch {
		case uint64(len(n.Inline)) == n.Size:
			return n.Inline, nil
		case n.Size > contentMax:
			return nil, fmt.Errorf("a file of %d bytes is too large to be looked at", n.Size)
		}
		f, err := st.OpenObject(n.Digest)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, contentMax))
	}
}
