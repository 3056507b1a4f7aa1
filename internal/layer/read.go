package layer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Descriptor is what a manifest and its config say about a layer.
type Descriptor struct {
	MediaType string
	// Digest is the sha256 of the blob's Size bytes as they are stored and sent.
	Digest digest.Digest
	Size   int64
	// DiffID is the sha256 of the uncompressed tar.
	DiffID digest.Digest
}

// Stats counts what a layer held.
type Stats struct {
	// Compressed and Uncompressed are bytes read.
	Compressed, Uncompressed int64
	// Entries is the number of tar entries.
	Entries int64
	// Objects is the number of files that went to the Sink, NewObjects of those that were not
	// there before; their bytes.
	Objects, NewObjects         int64
	ObjectBytes, NewObjectBytes int64
}

// Add adds another layer's counts.
func (s *Stats) Add(o Stats) {
	s.Compressed += o.Compressed
	s.Uncompressed += o.Uncompressed
	s.Entries += o.Entries
	s.Objects += o.Objects
	s.NewObjects += o.NewObjects
	s.ObjectBytes += o.ObjectBytes
	s.NewObjectBytes += o.NewObjectBytes
}

// Layer is what a layer changes in the tree below it, in the order of its stream.
type Layer struct {
	// DiffID is the sha256 of the uncompressed tar.
	DiffID  digest.Digest
	Stats   Stats
	changes []change
	// merged says that the changes' nodes are in a tree.
	merged bool
}

// Reader reads the layers of one image. Its methods may be called at the same time; the limits
// hold for all layers together.
type Reader struct {
	sink   Sink
	budget budget
}

// NewReader returns a Reader that puts contents into sink.
func NewReader(sink Sink, limits Limits) *Reader {
	return &Reader{sink: sink, budget: budget{limits: limits}}
}

// Read reads the layer d from src to its end. It is Refused (area Verify) when the bytes aren't
// those that d describes, or hold what a layer can't. An error of src or of the sink comes back
// wrapped, with the kind that it had.
func (r *Reader) Read(ctx context.Context, d Descriptor, src io.Reader) (_ *Layer, err error) {
	c, ok := compressionOf(d.MediaType)
	if !ok {
		return nil, fault.New(fault.Refuse, fault.Verify, "build the module with tar, tar+gzip or tar+zstd layers",
			"read layer %s: media type %q is not a layer's", d.Digest, d.MediaType)
	}
	used := &spend{budget: &r.budget}
	defer func() {
		if err != nil {
			used.refund()
		}
	}()
	left := d.Size
	packed := newMeter(ctx, src, func(n int64) bool { left -= n; return left >= 0 })
	l, err := r.read(ctx, packed, c, used)
	if err == nil || isMalformed(err) {
		// A damaged blob mostly shows as a stream that doesn't decode. The digest says which of
		// the two it is: not what was signed, or signed like this.
		if digestErr := checkBlob(d, packed); digestErr != nil {
			return nil, fmt.Errorf("read layer %s: %w", d.Digest, digestErr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", d.Digest, err)
	}
	l.Stats.Compressed = packed.n
	if l.DiffID != d.DiffID {
		return nil, fault.New(fault.Refuse, fault.Verify, "rebuild the module: its config and layers don't belong together",
			"read layer %s: its uncompressed bytes are %s, the config says %s", d.Digest, l.DiffID, d.DiffID)
	}
	return l, nil
}

// ReadTar reads a tar file of which no digest is known, compressed in any of the known ways: what
// a module is built from, never what is pulled.
func (r *Reader) ReadTar(ctx context.Context, src io.Reader) (*Layer, error) {
	buffered := bufio.NewReaderSize(src, streamChunk)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read tar: %w", err)
	}
	packed := newMeter(ctx, buffered, func(int64) bool { return true })
	l, err := r.read(ctx, packed, sniff(head), &spend{budget: &r.budget})
	if err != nil {
		return nil, fmt.Errorf("read tar: %w", err)
	}
	l.Stats.Compressed = packed.n
	return l, nil
}

// read decompresses and reads a tar stream. It has stopped reading from packed when it returns.
func (r *Reader) read(ctx context.Context, packed *meter, c compression, used *spend) (*Layer, error) {
	stream, err := decompress(bufio.NewReaderSize(packed, streamChunk), c)
	if err != nil {
		return nil, r.cause(packed, nil, malformed(err))
	}
	plain := newMeter(ctx, stream, used.addBytes)
	if c == uncompressed {
		plain.sum = nil // packed hashes the same bytes
	}
	l, err := readTar(plain, r.sink, used)
	// The zstd decoder reads ahead in a goroutine of its own, which Close ends.
	if closeErr := stream.Close(); err == nil && closeErr != nil {
		err = malformed(closeErr)
	}
	if err != nil {
		return nil, r.cause(packed, plain, err)
	}
	hashed := plain
	if c == uncompressed {
		hashed = packed
	}
	l.DiffID = hashed.digest()
	l.Stats.Uncompressed = plain.n
	return l, nil
}

// cause returns why a stream could not be decoded: its source's own error, the limit that it hit,
// or else err.
func (r *Reader) cause(packed, plain *meter, err error) error {
	if !isMalformed(err) {
		return err
	}
	if failed := packed.failure(); failed != nil && !errors.Is(failed, errTooLong) {
		return failed
	}
	if plain == nil {
		return err
	}
	if errors.Is(plain.failure(), errTooLong) {
		return tooMuch("uncompressed bytes", r.budget.limits.Bytes)
	}
	if cause := context.Cause(plain.ctx); cause != nil {
		return cause
	}
	return err
}

// checkBlob reads what a decoder left of a blob and compares it with its descriptor.
func checkBlob(d Descriptor, packed *meter) error {
	if _, err := io.Copy(io.Discard, packed); err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	got := packed.digest()
	hint := "pull it again; if that gives the same, the registry's copy is damaged"
	switch {
	case errors.Is(packed.err, errTooLong):
		return fault.New(fault.Refuse, fault.Verify, hint, "the blob is longer than the %d bytes of the manifest", d.Size)
	case packed.n != d.Size:
		return fault.New(fault.Refuse, fault.Verify, hint, "the blob is truncated: %d of %d bytes", packed.n, d.Size)
	case got != d.Digest:
		return fault.New(fault.Refuse, fault.Verify, hint, "the blob's bytes are %s", got)
	}
	return nil
}

func tooMuch(what string, limit int64) error {
	return fault.New(fault.Refuse, fault.Verify, "split the module, or raise the limit",
		"there are more than %d %s in the module's layers", limit, what)
}
