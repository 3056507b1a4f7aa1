package layer

import "sync/atomic"

// Limits bounds what the layers of one image may hold together. Compressed sizes aren't here:
// they come from the descriptors, which a signature covers.
type Limits struct {
	// Entries is the most tar entries.
	Entries int64
	// Metadata is the most bytes of names, link targets and extended attributes: what a tree
	// holds in memory.
	Metadata int64
	// Bytes is the most uncompressed bytes, tar headers included.
	Bytes int64
	// Devices says whether block and character devices may be in a layer.
	Devices bool
}

// DefaultLimits returns bounds far above any operating system tree, and small enough that the
// most hostile image ends in an error instead of an exhausted machine: a million entries, 256 MiB
// of metadata, 32 GiB of contents, no devices.
func DefaultLimits() Limits {
	return Limits{Entries: 1_000_000, Metadata: 256 << 20, Bytes: 32 << 30}
}

// Limits of single entries, from Linux: NAME_MAX, PATH_MAX without its NUL, XATTR_SIZE_MAX and
// XATTR_NAME_MAX; the number and sum of an inode's attributes are bounded well below what the
// image format can hold.
const (
	pathMax        = 4095
	xattrNameMax   = 255
	xattrValueMax  = 65535
	xattrCountMax  = 256
	xattrTotalMax  = 128 << 10
	zstdWindowMax  = 128 << 20 // what `zstd --long` writes, and the most the tool reads by default
	streamChunk    = 256 << 10
	deviceMajorMax = 1<<12 - 1
	deviceMinorMax = 1<<20 - 1
)

// budget counts what an image's layers, read at the same time, have used of the limits.
type budget struct {
	limits                   Limits
	entries, metadata, bytes atomic.Int64
}

// spend is one layer's use of a budget; refund gives it back when the layer failed, so that it
// can be read again.
type spend struct {
	*budget
	myEntries, myMetadata, myBytes int64
}

func (s *spend) addBytes(n int64) bool {
	s.myBytes += n
	return s.bytes.Add(n) <= s.limits.Bytes
}

func (s *spend) addEntry() bool {
	s.myEntries++
	return s.entries.Add(1) <= s.limits.Entries
}

func (s *spend) addMetadata(n int64) bool {
	s.myMetadata += n
	return s.metadata.Add(n) <= s.limits.Metadata
}

func (s *spend) refund() {
	s.entries.Add(-s.myEntries)
	s.metadata.Add(-s.myMetadata)
	s.bytes.Add(-s.myBytes)
}
