package registry

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

// blobs is the directory of content by digest: <first two digits>/<all digits>, 64 of SHA-256 or 128 of
// SHA-512. Manifests lie in it too. The label of its writes is "registry-blob".
type blobs struct{ dir *durable.Dir }

const blobLabel = "registry-blob"

// open opens the content of a digest. An error that wraps fs.ErrNotExist says that it isn't there.
func (b blobs) open(digest string) (*os.File, error) {
	_, hex, _ := strings.Cut(digest, ":")
	sub, err := b.dir.Sub(hex[:2])
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", digest, err)
	}
	defer sub.Close()
	return sub.Open(hex)
}

// adopt gives the unnamed file f, whose content has that digest, its name, durably.
func (b blobs) adopt(f *os.File, digest string) error {
	return b.place(f, digest, func(sub *durable.Dir, name string) error { return sub.Link(f, name, blobLabel) })
}

// move is adopt for the file f of that name in the sub-directory from. Where the content is there already, the file stays what it is.
func (b blobs) move(from, name string, f *os.File, digest string) error {
	source, err := b.dir.Sub(from)
	if err != nil {
		return fmt.Errorf("keep blob %s: %w", digest, err)
	}
	defer source.Close()
	if err := b.place(f, digest, func(sub *durable.Dir, to string) error {
		return sub.Step(blobLabel+":rename", func() error {
			err := unix.Renameat2(int(source.File().Fd()), name, int(sub.File().Fd()), to, unix.RENAME_NOREPLACE)
			return os.NewSyscallError("renameat2", err)
		})
	}); err != nil {
		return err
	}
	return source.Sync(blobLabel)
}

// place puts f on the disk and calls name to give it its name, with the directory for it, which is put on the disk then.
func (b blobs) place(f *os.File, digest string, name func(sub *durable.Dir, name string) error) error {
	_, hex, _ := strings.Cut(digest, ":")
	sub, err := b.dir.MakeSub(hex[:2], 0o700, blobLabel)
	if err != nil {
		return fmt.Errorf("keep blob %s: %w", digest, err)
	}
	defer sub.Close()
	if err := b.dir.Step(blobLabel+":fsync", f.Sync); err != nil {
		return fmt.Errorf("keep blob %s: %w", digest, b.dir.Diagnose(err))
	}
	// The same content again is no error; the first one's name may not be on the disk yet, so
	// the directory is synced in both cases.
	if err := name(sub, hex); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep blob %s: %w", digest, b.dir.Diagnose(err))
	}
	return sub.Sync(blobLabel)
}

// put keeps a small content, whose digest that is.
func (b blobs) put(data []byte, digest string) error {
	f, err := b.dir.Temp(".", 0o600, blobLabel)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.dir.WriteAll(f, data, blobLabel); err != nil {
		return err
	}
	return b.adopt(f, digest)
}

// longPrefix is how digests by SHA-512 begin.
const longPrefix = "sha512:"

// sumLike returns the digest of a content by the algorithm of want; where that is none, by SHA-256.
func sumLike(want string, data []byte) string {
	if strings.HasPrefix(want, longPrefix) {
		sum := sha512.Sum512(data)
		return longPrefix + hex.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
