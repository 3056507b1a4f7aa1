package registry

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// session is an upload that a request works on.
type session struct {
	id         string
	repository string
	// file is locked as long as it is open, against other requests here and at other platforms. Its length is what has arrived.
	file *os.File
	// name is the file's in the directory of uploads; "" where it has none, as that of a blob that came with one request.
	name string
	size int64
	// sum is of the first bytes, which this process saw go by; what others wrote is read when the digest is wanted.
	sum checkpoint
}

// checkpoint is a hash of the first size bytes of an upload. Uploads only ever grow, so it holds whatever came after.
type checkpoint struct {
	hash hash.Hash
	size int64
}

// Write appends to the upload.
func (s *session) Write(p []byte) (int, error) {
	n, err := s.file.WriteAt(p, s.size)
	if s.sum.size == s.size {
		s.sum.add(p[:n])
	}
	s.size += int64(n)
	return n, err
}

func (c *checkpoint) add(p []byte) {
	// hash.Hash never returns an error.
	_, _ = c.hash.Write(p)
	c.size += int64(len(p))
}

// digest returns the digest of what has arrived, by the algorithm of want. SHA-256 went along; for the other, which
// clients name at the end only, what arrived is read again.
func (s *session) digest(want string) (string, error) {
	if !strings.HasPrefix(want, longPrefix) {
		if err := s.read(s.sum.hash, s.sum.size); err != nil {
			return "", err
		}
		s.sum.size = s.size
		return "sha256:" + hex.EncodeToString(s.sum.hash.Sum(nil)), nil
	}
	long := sha512.New()
	if err := s.read(long, 0); err != nil {
		return "", err
	}
	return longPrefix + hex.EncodeToString(long.Sum(nil)), nil
}

// read gives w what has arrived from that offset on.
func (s *session) read(w io.Writer, from int64) error {
	n, err := io.Copy(w, io.NewSectionReader(s.file, from, s.size-from))
	if err == nil && n != s.size-from {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read an upload for %s again: %w", s.repository, err)
	}
	return nil
}

func nothingYet() checkpoint { return checkpoint{hash: sha256.New()} }
