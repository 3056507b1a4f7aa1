package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// LiveMark is the extended attribute of what a live change put into the root of an upper for a root image, and nobody
// else did.
const LiveMark = "trusted.powernode.live"

// ForgetNames removes from the root of an upper directory what live changes put there for the root images: links,
// marks that a link is gone, empty directories. A boot over an upper that has outlived the last one begins with it,
// so that the image's own names are seen.
func ForgetNames(upper string) error {
	entries, err := os.ReadDir(upper)
	if err != nil {
		return fmt.Errorf("look for what live changes left: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(upper, e.Name())
		if _, err := unix.Lgetxattr(path, LiveMark, nil); err != nil {
			continue // nobody's, or one of a kind that can't be marked
		}
		err := os.Remove(path)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = unix.Lremovexattr(path, LiveMark)
		}
		if err != nil {
			return fmt.Errorf("forget the name %s: %w", path, err)
		}
	}
	return nil
}
