package delta

import (
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// The marks of overlayfs, as our unions have them (no userxattr).
const (
	markMetacopy = "trusted.overlay.metacopy"
	markRedirect = "trusted.overlay.redirect"
	markOpaque   = "trusted.overlay.opaque"
	markOrigin   = "trusted.overlay.origin"
	markWhiteout = "trusted.overlay.whiteout"
)

// markHides is ours, on an opaque directory that was made where an image has one.
const markHides = "trusted.powernode.hides"

const (
	// markMax bounds a mark's value: a redirect is a path.
	markMax = 4096
	nameMax = 255
)

// struct ovl_metacopy (fs/overlayfs/overlayfs.h): version, length of the whole, flags, algorithm, digest.
const (
	metacopyHeader = 4
	metacopySHA256 = 1 // FS_VERITY_HASH_ALG_SHA256
)

// parseMetacopy returns the digest that a metacopy's content must have. It is zero where the mark says none, as those
// of unions without verity.
func parseMetacopy(b []byte) (fsverity.Digest, error) {
	if len(b) == 0 {
		return fsverity.Digest{}, nil
	}
	if len(b) < metacopyHeader || b[0] != 0 || int(b[1]) != len(b) {
		return fsverity.Digest{}, fmt.Errorf("the mark of a metacopy of %d bytes is damaged", len(b))
	}
	algorithm, digest := b[3], b[metacopyHeader:]
	if algorithm == 0 && len(digest) == 0 {
		return fsverity.Digest{}, nil
	}
	var d fsverity.Digest
	if algorithm != metacopySHA256 || len(digest) != len(d) {
		return fsverity.Digest{}, fmt.Errorf("the mark of a metacopy has a digest of %d bytes by algorithm %d, which no object of ours has", len(digest), algorithm)
	}
	copy(d[:], digest)
	return d, nil
}

// parseRedirect checks a redirect as the kernel does (ovl_get_redirect_xattr): an absolute path in the lower
// layer, or the name of a sibling.
func parseRedirect(b []byte) (string, error) {
	s := string(b)
	path, absolute := strings.CutPrefix(s, "/")
	if s == "" || len(s) >= markMax || !absolute && strings.Contains(s, "/") {
		return "", fmt.Errorf("a redirect of %d bytes is neither a path nor a name", len(s))
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > nameMax || strings.Contains(name, "\x00") {
			return "", errors.New("a redirect has an element that is no name")
		}
	}
	return s, nil
}
