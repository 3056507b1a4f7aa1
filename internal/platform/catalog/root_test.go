package catalog

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// emptyRegistry holds nothing.
type emptyRegistry struct{}

func (emptyRegistry) Manifest(context.Context, string, string) (string, string, []byte, error) {
	return "", "", nil, db.ErrNotFound
}

func (emptyRegistry) OpenBlob(context.Context, string, string, int64) (io.ReadCloser, error) {
	return nil, db.ErrNotFound
}

// TestComposeLoadsInItsTurn has a damaged module image, which reading removes: a composition that
// waits for its turn hasn't read it, and one that has its turn needs no second one to inspect it.
func TestComposeLoadsInItsTurn(t *testing.T) {
	path := t.TempDir()
	dir, err := durable.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: dir, Registry: emptyRegistry{}})
	seal := fsverity.SumBytes([]byte("an image"))
	image := filepath.Join(path, seal.String())
	if err := os.WriteFile(image, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	modules := []db.Module{{Name: "m", Version: "1", Images: []db.Image{{Architecture: "amd64", Seal: seal}}}}

	var free []func()
	for range cap(c.heavy) {
		done, err := c.work(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		free = append(free, done)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.compose(ctx, "amd64", modules); !errors.Is(err, context.Canceled) {
		t.Errorf("composed while others work: %v", err)
	}
	if _, err := os.Stat(image); err != nil {
		t.Errorf("the module image was read before its turn: %v", err)
	}

	free[0]()
	if _, err := c.compose(t.Context(), "amd64", modules); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("composed from an empty registry: %v", err)
	}
	if _, err := os.Stat(image); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged module image is still there: %v", err)
	}
	free[1]()
	if len(c.heavy) != 0 {
		t.Errorf("%d turns were never given back", len(c.heavy))
	}
}
