package live

import (
	"os"

	"github.com/powernode/powernode-agent/internal/mount"
)

// OpenUpper opens the writable layer of the root that runs at a place, once it is proven to be the one.
func OpenUpper(place Place) (*os.File, error) {
	if err := place.fill(); err != nil {
		return nil, err
	}
	base, err := mount.UnionAt(place.Root)
	if err != nil {
		return nil, err
	}
	root, err := openDirectory(place.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openUpper(root, place.UpperDir, base.Upper)
}
