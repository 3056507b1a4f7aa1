package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// FuzzRead feeds any bytes to the reader. Whatever it accepts must be a tree within the rules, and
// one that can be written and read again.
func FuzzRead(f *testing.F) {
	for _, mediaType := range []string{MediaTypeTar, MediaTypeTarGzip, MediaTypeTarZstd} {
		blob, _ := pack(f, makeTar(f, sample()...), mediaType)
		f.Add(blob)
	}
	f.Add(makeTar(f, entry{name: "d/.wh.x"}, entry{name: "d/.wh..wh..opq"}, entry{name: "d/"}, entry{name: "l", kind: tar.TypeLink, link: "d/x"}))
	f.Add(makeTar(f, entry{name: "../x"}, entry{name: "c", kind: tar.TypeChar}))
	limits := Limits{Entries: 200, Metadata: 1 << 16, Bytes: 1 << 20, Devices: true}
	f.Fuzz(func(t *testing.T, data []byte) {
		sink := newMemorySink()
		l, err := NewReader(sink, limits).ReadTar(context.Background(), bytes.NewReader(data))
		if sink.open != 0 {
			t.Fatalf("%d objects were left open", sink.open)
		}
		if err == nil && l.Stats.Uncompressed > limits.Bytes {
			t.Fatalf("%d bytes were read", l.Stats.Uncompressed)
		}
		if err != nil {
			if fault.KindOf(err) != fault.Refuse {
				t.Fatalf("not refused: %v", err)
			}
			return
		}
		root, err := Merge(l)
		if err != nil {
			return
		}
		checkRules(t, root)
		if crc32.ChecksumIEEE(data)%16 != 0 {
			return // compressing costs a hundred times as much as reading
		}
		var blob bytes.Buffer
		d, err := Write(context.Background(), &blob, root, WriteOptions{Open: sink.content, Devices: true})
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := NewReader(Discard{}, limitsWithDevices()).Read(context.Background(), d, &blob)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		root2, err := Merge(again)
		if err != nil {
			t.Fatal(err)
		}
		a, b := flatten(root), flatten(root2)
		delete(a, "") // a written layer says nothing of the root
		delete(b, "")
		if len(a) != len(b) {
			t.Fatalf("%d entries became %d", len(a), len(b))
		}
		for path := range a {
			if a[path] != b[path] {
				t.Fatalf("%q: %+v became %+v", path, a[path], b[path])
			}
		}
	})
}

func limitsWithDevices() Limits {
	l := DefaultLimits()
	l.Devices = true
	return l
}

func checkRules(t *testing.T, root *tree.Node) {
	t.Helper()
	for path, n := range root.Walk() {
		for name := range n.Entries() {
			if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".wh.") {
				t.Fatalf("the name %q is in the tree, in %q", name, path)
			}
		}
		if n.Kind == tree.CharDevice && n.Rdev == 0 {
			t.Fatalf("%q is an overlay whiteout", path)
		}
		if n.Mode > 0o7777 {
			t.Fatalf("%q has mode %o", path, n.Mode)
		}
		for _, x := range n.Xattrs {
			if !AllowedXattr(x.Name) {
				t.Fatalf("%q has the extended attribute %q", path, x.Name)
			}
		}
		if n.Kind == tree.Regular && n.Size > 0 && n.Digest.IsZero() == (n.Inline == nil) {
			t.Fatalf("%q has no content, or two", path)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"", ".", "./", "a//b/./c/", "../a", "a/..", "/a", "a\x00b", ".wh.x", strings.Repeat("x", 256)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, _, reason := cleanName(name)
		if reason != "" {
			return
		}
		again, slash, reason := cleanName(path)
		if path != "" && (again != path || slash || reason != "") {
			t.Fatalf("%q became %q, and that %q (%s)", name, path, again, reason)
		}
		for part := range strings.SplitSeq(path, "/") {
			if part == "." || part == ".." || len(part) > 255 || (part == "" && path != "") || strings.ContainsRune(part, 0) {
				t.Fatalf("%q became %q", name, path)
			}
		}
	})
}
