package layer

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// malformedError marks an error of the stream's form (gzip, zstd, tar), as opposed to one of the
// sink, or of an entry that is well formed and not wanted. Its cause may be the stream's source.
type malformedError struct{ error }

func (e malformedError) Unwrap() error { return e.error }

func isMalformed(err error) bool {
	_, ok := errors.AsType[malformedError](err)
	return ok
}

func malformed(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return malformedError{fault.New(fault.Refuse, fault.Verify, "rebuild the module", "the layer is malformed: %w", err)}
}

// readTar reads the entries of a tar stream to the end of the stream.
func readTar(plain *meter, sink Sink, used *spend) (*Layer, error) {
	buffered := bufio.NewReaderSize(plain, streamChunk)
	archive := tar.NewReader(buffered)
	l := &Layer{}
	buf := make([]byte, streamChunk)
	for {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		// GODEBUG=tarinsecurepath=0 makes archive/tar judge names; cleanName does that here.
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, malformed(err)
		}
		if !used.addEntry() {
			return nil, tooMuch("entries", used.limits.Entries)
		}
		l.Stats.Entries++
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			if err := checkGlobal(hdr); err != nil {
				return nil, err
			}
			continue
		}
		c, reason := readHeader(hdr, used.limits.Devices)
		if reason != "" {
			return nil, refuse(hdr.Name, reason)
		}
		if c.node != nil && c.node.Kind == tree.Regular {
			if err := readContent(archive, c.node, sink, &l.Stats, buf); err != nil {
				return nil, fmt.Errorf("entry %s: %w", quoteShort(hdr.Name), err)
			}
		}
		if !used.addMetadata(c.metadata()) {
			return nil, tooMuch("bytes of metadata", used.limits.Metadata)
		}
		l.changes = append(l.changes, c)
	}
	return l, readTail(buffered, buf)
}

// readTail reads what follows the end of the archive, which may be padding only: anything else is
// hidden from one reader and shown to another (tar --ignore-zeros).
func readTail(r io.Reader, buf []byte) error {
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return malformed(errors.New("there is data after the end of the archive"))
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return malformed(err)
		}
	}
}

// readContent reads a regular file's bytes into its node or into the sink.
func readContent(archive io.Reader, n *tree.Node, sink Sink, stats *Stats, buf []byte) error {
	if n.Size <= tree.InlineMax {
		if n.Size == 0 {
			return nil
		}
		n.Inline = make([]byte, n.Size)
		if _, err := io.ReadFull(archive, n.Inline); err != nil {
			return malformed(err)
		}
		return nil
	}
	object, err := sink.NewObject(int64(n.Size))
	if err != nil {
		return err
	}
	if err := copyContent(object, archive, n.Size, buf); err != nil {
		object.Abort()
		return err
	}
	sum, isNew, err := object.Commit()
	if err != nil {
		return err
	}
	n.Digest = sum
	stats.Objects++
	stats.ObjectBytes += int64(n.Size)
	if isNew {
		stats.NewObjects++
		stats.NewObjectBytes += int64(n.Size)
	}
	return nil
}

func copyContent(w io.Writer, r io.Reader, size uint64, buf []byte) error {
	for left := size; left > 0; {
		n, err := io.ReadFull(r, buf[:min(uint64(len(buf)), left)])
		if err != nil {
			return malformed(err)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		left -= uint64(n)
	}
	return nil
}

// checkGlobal passes a global PAX header that only comments, as git archive writes. Others would
// change all entries that follow, and readers differ in whether they heed them.
func checkGlobal(hdr *tar.Header) error {
	for _, key := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		if key != "comment" {
			return refuse(hdr.Name, "it is a global header that sets "+quoteShort(key))
		}
	}
	return nil
}

// refuse says why an entry can't be in a layer.
func refuse(name, reason string) error {
	return fault.New(fault.Refuse, fault.Verify, "rebuild the module without that entry",
		"entry %s is refused: %s", quoteShort(name), reason)
}
