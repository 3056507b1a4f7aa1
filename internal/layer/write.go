package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// WriteOptions says where a layer's contents come from.
type WriteOptions struct {
	// Open opens the content of a regular file that isn't inline.
	Open func(path string, n *tree.Node) (io.ReadCloser, error)
	// Devices allows block and character devices.
	Devices bool
}

// Write writes root as one tar+zstd layer and returns what a manifest and its config say of it.
//
// The same tree gives the same bytes: entries are in the order of tree.Walk, owners are numbers,
// times are the nodes', PAX records are there only where a plain header can't hold a value, and
// the zstd settings are fixed. The compressed bytes may change with the version of the zstd
// library, the DiffID doesn't. The root itself has no entry: its metadata is /usr's in a sealed
// tree. What Read would refuse is refused here, too, so whatever was written can be read.
func Write(ctx context.Context, w io.Writer, root *tree.Node, options WriteOptions) (Descriptor, error) {
	if root.Kind != tree.Directory {
		return Descriptor{}, fault.New(fault.Broken, fault.General, "", "write layer: the root is a %s", kindName(root.Kind))
	}
	packed := &countingWriter{w: w, ctx: ctx}
	packedSum := sha256.New()
	compressor, err := zstd.NewWriter(io.MultiWriter(packed, packedSum),
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(zstdWriteWindow),
		zstd.WithEncoderCRC(true))
	if err != nil {
		return Descriptor{}, fmt.Errorf("write layer: %w", err)
	}
	plainSum := sha256.New()
	plain := bufio.NewWriterSize(io.MultiWriter(compressor, plainSum), streamChunk)
	lw := &layerWriter{
		WriteOptions: options,
		tar:          tar.NewWriter(plain),
		links:        make(map[*tree.Node]string),
		buf:          make([]byte, streamChunk),
	}
	err = lw.writeTree(root)
	if err == nil {
		err = plain.Flush()
	}
	if err != nil {
		_ = compressor.Close() // ends its goroutines; the layer has failed already
		return Descriptor{}, fmt.Errorf("write layer: %w", err)
	}
	if err := compressor.Close(); err != nil {
		return Descriptor{}, fmt.Errorf("write layer: %w", err)
	}
	return Descriptor{
		MediaType: MediaTypeTarZstd,
		Digest:    digest.NewDigest(digest.SHA256, packedSum),
		Size:      packed.n,
		DiffID:    digest.NewDigest(digest.SHA256, plainSum),
	}, nil
}

// zstdWriteWindow is part of what makes the bytes: the encoder's own default depends on its level.
const zstdWriteWindow = 8 << 20

type layerWriter struct {
	WriteOptions
	tar *tar.Writer
	// links holds the first name of each file, for those that have several.
	links map[*tree.Node]string
	buf   []byte
}

func (w *layerWriter) writeTree(root *tree.Node) error {
	for path, n := range root.Walk() {
		if path == "" {
			continue
		}
		if err := w.writeEntry(path, n); err != nil {
			return err
		}
	}
	return w.tar.Close()
}

func (w *layerWriter) writeEntry(path string, n *tree.Node) error {
	hdr, reason := header(path, n)
	if reason == "" {
		reason = w.check(hdr, path)
	}
	if reason != "" {
		return refuse(path, reason)
	}
	if first, ok := w.links[n]; ok {
		hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.PAXRecords = tar.TypeLink, first, 0, nil
	}
	if err := w.tar.WriteHeader(hdr); err != nil {
		return fault.New(fault.Refuse, fault.Input, "rename the file, or leave it out",
			"entry %s can't be in a tar: %w", quoteShort(path), err)
	}
	if hdr.Typeflag == tar.TypeReg {
		if err := w.writeContent(path, n); err != nil {
			return fmt.Errorf("entry %s: %w", quoteShort(path), err)
		}
	}
	if n.Kind != tree.Directory {
		w.links[n] = path
	}
	return nil
}

// check asks the reader's own rules about an entry.
func (w *layerWriter) check(hdr *tar.Header, path string) (reason string) {
	c, reason := readHeader(hdr, w.Devices)
	if reason == "" && (c.op != opNode || c.path != path) {
		return "its name is reserved for whiteouts"
	}
	return reason
}

func (w *layerWriter) writeContent(path string, n *tree.Node) error {
	if n.Size == 0 || n.Inline != nil {
		_, err := w.tar.Write(n.Inline)
		return err
	}
	content, err := w.Open(path, n)
	if err != nil {
		return err
	}
	defer content.Close() //nolint:errcheck // only read from
	// tar.Writer refuses more than the header's size; less shows in the next header or at Close.
	wrote, err := io.CopyBuffer(struct{ io.Writer }{w.tar}, struct{ io.Reader }{content}, w.buf)
	if err == nil && uint64(wrote) != n.Size {
		return fault.New(fault.Broken, fault.Input, "", "its content has %d bytes, not %d", wrote, n.Size)
	}
	return err
}

// header makes a tar header of a node. reason is "" unless a tar can't hold it.
func header(path string, n *tree.Node) (hdr *tar.Header, reason string) {
	hdr = &tar.Header{
		Format:  tar.FormatPAX,
		Name:    path,
		Mode:    int64(n.Mode),
		Uid:     int(n.UID),
		Gid:     int(n.GID),
		ModTime: time.Unix(n.Mtime.Sec, int64(n.Mtime.Nsec)),
	}
	for _, x := range n.Xattrs {
		if strings.ContainsRune(x.Name, '=') {
			return nil, "a PAX header can't hold the extended attribute name " + quoteShort(x.Name)
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = make(map[string]string, len(n.Xattrs))
		}
		hdr.PAXRecords[paxXattr+x.Name] = string(x.Value)
	}
	switch n.Kind {
	case tree.Directory:
		hdr.Typeflag = tar.TypeDir
		hdr.Name += "/"
	case tree.Regular:
		hdr.Typeflag = tar.TypeReg
		hdr.Size = int64(n.Size)
	case tree.Symlink:
		hdr.Typeflag = tar.TypeSymlink
		hdr.Linkname = n.Target
	case tree.CharDevice, tree.BlockDevice:
		hdr.Typeflag = tar.TypeBlock
		if n.Kind == tree.CharDevice {
			hdr.Typeflag = tar.TypeChar
		}
		major, minor := deviceNumber(n.Rdev)
		hdr.Devmajor, hdr.Devminor = int64(major), int64(minor)
	case tree.FIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, "a tar can't hold a " + kindName(n.Kind)
	}
	return hdr, ""
}

type countingWriter struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
