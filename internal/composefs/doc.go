// Package composefs turns file trees into composefs images and back, and into composefs's text
// format for dumps and back.
//
// An image is an EROFS file system without file contents. Each regular file that isn't tiny says,
// in overlayfs's attributes, where in an object store its content lies and which fs-verity digest
// it must have. The image's own fs-verity digest therefore stands for the whole tree, contents and all.
//
// It promises that an image is a function of the tree and the options alone, byte for byte the one
// that C mkcomposefs 1.0.8 writes (SHA-256, versions 0 and 1); that reading an image gives the
// tree that it was written from; and that no input, image or dump, makes it panic, loop or
// hold more memory than a small multiple of the input. It trusts nothing that it reads.
// What it can't promise is meaning: a tree read from an image or a dump is as good as its source.
//
// Where C is lax by accident this package is strict: it refuses dumps with NULs in names, with
// further names for directories or whiteouts, with cycles of them, and with broken digests.
//
// Source of the layout: composefs 1.0.8, whose images the tests compare with.
package composefs

import (
	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Options choose an image's version: MinVersion, unless the tree holds something that a later
// version up to MaxVersion does better. The only such thing is a whiteout, which version 1 marks
// in a way that overlayfs understands since Linux 6.8. A MaxVersion below MinVersion means MinVersion.
type Options struct {
	MinVersion, MaxVersion uint32
}

// maxVersion is the latest version of the format.
const maxVersion = 1

// Default is what mkcomposefs does when it is not asked for a version.
var Default = Options{MinVersion: 0, MaxVersion: 1}

// V1 is what modules and roots are sealed with: mkcomposefs --min-version=1, the "erofs.v1" of
// the sealing specification.
var V1 = Options{MinVersion: 1, MaxVersion: 1}

// version returns the image's version for a tree with or without whiteouts.
func (o Options) version(whiteouts bool) (uint32, error) {
	if o.MinVersion > maxVersion || o.MaxVersion > maxVersion {
		return 0, fault.New(fault.Refuse, fault.Input, "use version 0 or 1",
			"composefs image of version %d to %d: the latest is %d", o.MinVersion, o.MaxVersion, maxVersion)
	}
	if whiteouts && o.MinVersion < 1 && o.MaxVersion >= 1 {
		return 1, nil
	}
	return o.MinVersion, nil
}

// Limits of the format, from composefs, EROFS and Linux.
const (
	// inlineLimit is the largest content that may lie in an image (LCFS_INLINE_CONTENT_MAX).
	inlineLimit = 5000
	// pathLimit bounds a symlink's target and a payload's path in bytes (PATH_MAX with its NUL).
	pathLimit = 4095
	// depthLimit bounds how deep directories nest: no path that a system call takes goes deeper.
	depthLimit = 2048
	// xattrNameLimit is Linux's XATTR_NAME_MAX.
	xattrNameLimit = 255
	// xattrValueLimit is what EROFS's 16-bit value size can say.
	xattrValueLimit = 65535
	// chunkLimit is how many chunk indexes composefs spends on a file.
	chunkLimit = 1024
	// chunkBitsLimit is the largest chunk size that EROFS can say: 2^43 bytes.
	chunkBitsLimit = 12 + 31
)

// header is the 32 bytes at the start of an image (struct lcfs_erofs_header_s).
const (
	headerMagic   = 0xd078629a
	headerVersion = 1
	headerSize    = 32
	flagHasACL    = 1
)

// The names that overlayfs gives a meaning to, and their escaped forms.
const (
	overlayPrefix = "trusted.overlay."
	escapePrefix  = overlayPrefix + "overlay."
	userPrefix    = "user.overlay."

	nameMetacopy = overlayPrefix + "metacopy"
	nameRedirect = overlayPrefix + "redirect"
	nameOpaque   = overlayPrefix + "opaque"

	nameEscapedWhiteout  = escapePrefix + "whiteout"
	nameUserWhiteout     = userPrefix + "whiteout"
	nameEscapedWhiteouts = escapePrefix + "whiteouts"
	nameUserWhiteouts    = userPrefix + "whiteouts"
	nameEscapedOpaque    = escapePrefix + "opaque"
	nameUserOpaque       = userPrefix + "opaque"

	nameSELinux    = "security.selinux"
	nameACLAccess  = "system.posix_acl_access"
	nameACLDefault = "system.posix_acl_default"
)

const blockSize = erofs.BlockSize

// roundUp rounds n up to a multiple of a power of two.
func roundUp(n, unit uint64) uint64 { return (n + unit - 1) &^ (unit - 1) }
