package live

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Forget removes from the root of an upper directory what live changes put there for the root images and
// nobody else did: links, marks that a link is gone, empty directories. A boot over an upper that has
// outlived the last one calls it before the union is made, so that the image's own names are seen.
func Forget(upper string) error {
	entries, err := os.ReadDir(upper)
	if err != nil {
		return fmt.Errorf("look for what live changes left: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(upper, e.Name())
		if !marked(path) {
			continue
		}
		err := os.Remove(path)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = unix.Lremovexattr(path, mark)
		}
		if err != nil {
			return fmt.Errorf("forget the name %s: %w", path, err)
		}
	}
	return nil
}
