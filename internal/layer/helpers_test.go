package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// entry is a tar entry for tests; the zero values make a small file of root's.
type entry struct {
	name, link, body string
	kind             byte // 0: a file, or a directory if the name ends in a slash
	mode             int64
	uid, gid         int
	mtime            time.Time
	major, minor     int64
	records          map[string]string
}

func (e entry) header() *tar.Header {
	hdr := &tar.Header{
		Typeflag: e.kind, Name: e.name, Linkname: e.link, Mode: e.mode, Uid: e.uid, Gid: e.gid,
		ModTime: e.mtime, Devmajor: e.major, Devminor: e.minor, PAXRecords: e.records,
		Size: int64(len(e.body)), Format: tar.FormatPAX,
	}
	if hdr.Typeflag == 0 {
		hdr.Typeflag = tar.TypeReg
		if e.name != "" && e.name[len(e.name)-1] == '/' {
			hdr.Typeflag = tar.TypeDir
		}
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return &tar.Header{Typeflag: hdr.Typeflag, Name: hdr.Name, PAXRecords: hdr.PAXRecords}
	}
	if hdr.Mode == 0 {
		hdr.Mode = 0o644
		if hdr.Typeflag == tar.TypeDir {
			hdr.Mode = 0o755
		}
	}
	if hdr.ModTime.IsZero() {
		hdr.ModTime = time.Unix(0, 0)
	}
	return hdr
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(e.header()); err != nil {
			t.Fatalf("entry %q: %v", e.name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatalf("entry %q: %v", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func pack(t testing.TB, plain []byte, mediaType string) ([]byte, Descriptor) {
	t.Helper()
	var buf bytes.Buffer
	switch c, _ := compressionOf(mediaType); c {
	case gzipped:
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	case zstandard:
		w, err := zstd.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	default:
		buf.Write(plain)
	}
	return buf.Bytes(), Descriptor{
		MediaType: mediaType,
		Digest:    digest.FromBytes(buf.Bytes()),
		Size:      int64(buf.Len()),
		DiffID:    digest.FromBytes(plain),
	}
}

// readTarball reads an uncompressed tar as a layer.
func readTarball(t testing.TB, plain []byte, limits Limits) (*Layer, error) {
	t.Helper()
	blob, d := pack(t, plain, MediaTypeTar)
	return NewReader(Discard{}, limits).Read(context.Background(), d, bytes.NewReader(blob))
}

func readEntries(t testing.TB, entries ...entry) *Layer {
	t.Helper()
	l, err := readTarball(t, makeTar(t, entries...), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// paths lists a tree's paths, with the kind where it isn't a regular file.
func paths(root *tree.Node) []string {
	var all []string
	for path, n := range root.Walk() {
		switch {
		case path == "":
		case n.Kind == tree.Directory:
			all = append(all, path+"/")
		case n.Kind == tree.Symlink:
			all = append(all, path+" -> "+n.Target)
		default:
			all = append(all, path)
		}
	}
	return all
}

// memorySink keeps objects, for tests that read them back.
type memorySink struct {
	mu      sync.Mutex
	objects map[fsverity.Digest][]byte
	open    int
}

func newMemorySink() *memorySink {
	return &memorySink{objects: make(map[fsverity.Digest][]byte)}
}

func (s *memorySink) NewObject(int64) (ObjectWriter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &memoryObject{sink: s}, nil
}

type memoryObject struct {
	bytes.Buffer
	sink *memorySink
}

func (o *memoryObject) Commit() (fsverity.Digest, bool, error) {
	d := fsverity.SumBytes(o.Bytes())
	o.sink.mu.Lock()
	defer o.sink.mu.Unlock()
	_, old := o.sink.objects[d]
	o.sink.objects[d] = o.Bytes()
	o.sink.open--
	return d, !old, nil
}

func (o *memoryObject) Abort() {
	o.sink.mu.Lock()
	defer o.sink.mu.Unlock()
	o.sink.open--
}

func (s *memorySink) content(_ string, n *tree.Node) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.objects[n.Digest])), nil
}

// flat is all there is to know of an inode, and the first of its names.
type flat struct {
	Kind          tree.Kind
	Mode          uint16
	UID, GID      uint32
	Mtime         tree.Time
	Xattrs        string
	Rdev          uint32
	Size          uint64
	Inline        string
	Digest        string
	Target, First string
}

// flatten describes a tree completely, for comparison.
func flatten(root *tree.Node) map[string]flat {
	all := make(map[string]flat)
	first := make(map[*tree.Node]string)
	for path, n := range root.Walk() {
		if _, ok := first[n]; !ok {
			first[n] = path
		}
		all[path] = flat{
			Kind: n.Kind, Mode: n.Mode, UID: n.UID, GID: n.GID, Mtime: n.Mtime, Xattrs: fmt.Sprintf("%q", n.Xattrs),
			Rdev: n.Rdev, Size: n.Size, Inline: string(n.Inline), Digest: n.Digest.String(), Target: n.Target, First: first[n],
		}
	}
	return all
}
