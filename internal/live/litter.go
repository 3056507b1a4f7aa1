package live

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// tempPrefix begins the names that links and marks of removed ones have in "/" until they take their place.
const tempPrefix = ".powernode-"

// nonceLen of the characters of such a name are random, sumLen a sum of those and of what is made: whoever finds what a kill left knows it for
// ours before it has its mark, and takes nothing for it that somebody else has named so.
const (
	nonceLen = 10
	sumLen   = 16
)

// whiteout stands for the target in the name of a mark of a removed link. No link has an empty one.
const whiteout = ""

// tempName is a name for a link with a target.
func tempName(target string) string {
	nonce := strings.ToLower(rand.Text()[:nonceLen])
	return tempPrefix + nonce + tempSum(nonce, target)
}

func tempSum(nonce, target string) string {
	sum := sha256.Sum256([]byte("powernode temporary link\x00" + nonce + "\x00" + target))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:sumLen]
}

// isTempName reports whether tempName gave a name to a link with that target.
func isTempName(name, target string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(rest) == nonceLen+sumLen && rest[nonceLen:] == tempSum(rest[:nonceLen], target)
}

// sweepNames removes what a change that was killed left of a link, or of the mark of one: in memory as on the disk, from where the layer comes
// back with the next boot. Nothing of it is worth a failure; the next change tries again.
func (w *work) sweepNames() {
	if err := w.trySweepNames(); err != nil {
		w.spec.Remark("what a change that was killed left in / isn't removed: "+fault.OneLine(err.Error()), "")
	}
}

func (w *work) trySweepNames() error {
	names, err := w.upperNames()
	if err != nil {
		return err
	}
	var errs []error
	swept := false
	for _, name := range names {
		from, err := w.litter(name)
		if err == nil && from != nil {
			swept = true
			err = w.step("litter:sweep", func() error { return unix.Unlinkat(int(from.Fd()), name, 0) })
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("/%s: %w", name, err))
		}
	}
	if swept {
		errs = append(errs, w.step("litter:sync", w.upper.Sync))
	}
	return errors.Join(errs...)
}

// upperNames are the names in the upper's root that may be litter.
func (w *work) upperNames() ([]string, error) {
	dir, err := openDirectory(w.upper.Name())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for {
		some, err := dir.Readdirnames(1024)
		for _, name := range some {
			if strings.HasPrefix(name, tempPrefix) {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// litter returns the directory that a name is to be removed from if it is one that a change left, else nil. A link goes through the union,
// which may know it; what a mark of a removed link becomes is a whiteout, which no union shows.
func (w *work) litter(name string) (*os.File, error) {
	info, err := lstat(w.upper, name)
	if err != nil {
		return nil, err
	}
	switch {
	case info.Mode&unix.S_IFMT == unix.S_IFLNK:
		target, err := readlink(w.upper, name)
		if err != nil || !isTempName(name, target) {
			return nil, err
		}
		return w.root, nil
	case info.Mode&unix.S_IFMT == unix.S_IFCHR && info.Rdev == 0 && isTempName(name, whiteout):
		return w.upper, nil
	}
	return nil, nil
}
