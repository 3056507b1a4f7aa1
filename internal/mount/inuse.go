package mount

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// WorkInUse reports whether a directory is the work directory of an overlay that lives, be it that only
// an open file or another mount namespace holds it, which no mount table shows. It tries to make an
// overlay there that demands to be the only one (index=on): the kernel marks upper and work directories
// that are in use (ovl_inuse_trylock in fs/overlayfs), and says so in its log. lower and upper are
// empty directories of the caller's, upper and work on one mount. A work directory that was free holds
// an index afterwards, and isn't fit for a union any more.
//
// Where the file system can't have an index, everything seems to be free: ask about one first that is
// known to be in use.
func WorkInUse(lower, upper, work *os.File) (bool, error) {
	m, err := New("overlay", 0, String("source", "powernode-probe"), String("index", "on"), String("redirect_dir", "off"), String("metacopy", "off"),
		String("lowerdir", procPath(lower)), String("upperdir", procPath(upper)), String("workdir", procPath(work)))
	runtime.KeepAlive(lower)
	runtime.KeepAlive(upper)
	runtime.KeepAlive(work)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, m.Close()
}
