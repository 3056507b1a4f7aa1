package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// meter hashes and counts what is read through it, and ends the reading when there is more than
// there may be. It keeps the first error of its source, because decoders on the way wrap or
// replace it.
type meter struct {
	ctx context.Context
	r   io.Reader
	sum hash.Hash // nil: count only
	n   int64
	// allow is asked for every read; false ends the reading with errTooLong.
	allow func(n int64) bool
	err   error
}

// errTooLong is what a meter ends with when its source has more bytes than allowed.
var errTooLong = errors.New("more bytes than allowed")

func newMeter(ctx context.Context, r io.Reader, allow func(int64) bool) *meter {
	return &meter{ctx: ctx, r: r, sum: sha256.New(), allow: allow}
}

// Read passes bytes on that were allowed.
func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if err := context.Cause(m.ctx); err != nil {
		m.err = err
		return 0, err
	}
	n, err := m.r.Read(p)
	if n > 0 && !m.allow(int64(n)) {
		m.err = errTooLong
		return 0, errTooLong
	}
	if m.sum != nil {
		m.sum.Write(p[:n])
	}
	m.n += int64(n)
	if err != nil {
		m.err = err
	}
	return n, err
}

// failure returns the source's error, or nil if it ended well or hasn't ended.
func (m *meter) failure() error {
	if m.err == io.EOF { //nolint:errorlint // the unwrapped end of the stream
		return nil
	}
	return m.err
}

func (m *meter) digest() digest.Digest { return digest.NewDigest(digest.SHA256, m.sum) }
