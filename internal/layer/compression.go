package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Media types of layers: the OCI image specification's, and those that docker writes.
const (
	MediaTypeTar     = "application/vnd.oci.image.layer.v1.tar"
	MediaTypeTarGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	MediaTypeTarZstd = "application/vnd.oci.image.layer.v1.tar+zstd"

	dockerTar     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerTarGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerTarZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

type compression uint8

const (
	uncompressed compression = iota
	gzipped
	zstandard
)

func (c compression) String() string {
	return [...]string{"an uncompressed tar", "gzip", "zstd"}[c]
}

// KnownMediaType reports whether layers of that media type can be read.
func KnownMediaType(mediaType string) bool {
	_, ok := compressionOf(mediaType)
	return ok
}

// OCIMediaType returns the OCI media type of layers that have docker's, and any other as it is.
func OCIMediaType(mediaType string) string {
	switch mediaType {
	case dockerTar:
		return MediaTypeTar
	case dockerTarGzip:
		return MediaTypeTarGzip
	case dockerTarZstd:
		return MediaTypeTarZstd
	}
	return mediaType
}

func compressionOf(mediaType string) (compression, bool) {
	switch mediaType {
	case MediaTypeTar, dockerTar:
		return uncompressed, true
	case MediaTypeTarGzip, dockerTarGzip:
		return gzipped, true
	case MediaTypeTarZstd, dockerTarZstd:
		return zstandard, true
	}
	return 0, false
}

// sniff tells a stream's compression by its first bytes: RFC 1952 section 2.3.1 for gzip, RFC 8878
// sections 3.1.1 and 3.1.2 for a zstd frame or skippable frame (zstd:chunked ends in such, and
// other writers begin with one).
func sniff(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zstandard
	}
	return uncompressed
}

// errMismatch marks a stream that isn't compressed as its media type says.
var errMismatch = errors.New("compression mismatch")

// decompress returns the stream's uncompressed bytes. Close gives back the decoder's memory and
// ends its goroutines; r is not read from afterwards.
func decompress(r *bufio.Reader, c compression) (io.ReadCloser, error) {
	head, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if got := sniff(head); got != c {
		return nil, fmt.Errorf("its media type says %v, its first bytes say %v: %w", c, got, errMismatch)
	}
	switch c {
	case gzipped:
		return gzip.NewReader(r)
	case zstandard:
		d, err := zstd.NewReader(r,
			zstd.WithDecoderMaxWindow(zstdWindowMax),
			zstd.WithDecoderMaxMemory(zstdWindowMax),
			zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(r), nil
	}
}
