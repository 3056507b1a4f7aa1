package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// drawTree makes a tree of any shape that a layer may have, and its objects.
func drawTree(t *rapid.T, sink *memorySink) *tree.Node {
	root := tree.NewDir(0o755)
	dirs := []*tree.Node{root}
	var files []*tree.Node
	name := rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9_+~ -]{1,12}`),
		rapid.SampledFrom([]string{strings.Repeat("n", 255), strings.Repeat("ü", 127), "\xff\xfe", "new\nline", "...", "-", "=", "wh.x", ".w"}),
	)
	for range rapid.IntRange(0, 25).Draw(t, "entries") {
		dir := rapid.SampledFrom(dirs).Draw(t, "dir")
		n := &tree.Node{
			Kind: rapid.SampledFrom([]tree.Kind{tree.Directory, tree.Directory, tree.Regular, tree.Regular, tree.Symlink, tree.FIFO, tree.CharDevice, tree.BlockDevice}).Draw(t, "kind"),
			Mode: rapid.Uint16Range(0, 0o7777).Draw(t, "mode"),
			UID:  rapid.SampledFrom([]uint32{0, 1, 65535, 65536, 2097151, 2097152, 1<<32 - 2}).Draw(t, "uid"),
			GID:  rapid.Uint32Range(0, 1<<32-2).Draw(t, "gid"),
		}
		n.Mtime.Sec = rapid.OneOf(rapid.Int64Range(-5, 5), rapid.Int64Range(-1<<40, 1<<40)).Draw(t, "sec")
		n.Mtime.Nsec = rapid.SampledFrom([]uint32{0, 1, 500_000_000, 999_999_999}).Draw(t, "nsec")
		for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
			key := rapid.SampledFrom([]string{"user.a", "user.b c", "user.overlayed", "security.capability", "security.selinux", "system.posix_acl_access"}).Draw(t, "xattr")
			n.SetXattr(key, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value"))
		}
		switch n.Kind {
		case tree.Regular:
			content := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "content")
			n.Size = uint64(len(content))
			if len(content) > tree.InlineMax {
				n.Digest = fsverity.SumBytes(content)
				sink.objects[n.Digest] = content
			} else if len(content) > 0 {
				n.Inline = content
			}
		case tree.Symlink:
			n.Target = rapid.SampledFrom([]string{"x", "/abs", "../..", strings.Repeat("t", 4095)}).Draw(t, "target")
		case tree.CharDevice, tree.BlockDevice:
			n.Rdev = rapid.Uint32Range(1, 1<<32-1).Draw(t, "rdev")
		case tree.Directory:
			dirs = append(dirs, n)
		}
		key := name.Draw(t, "name")
		if old := dir.Child(key); old != nil {
			continue
		}
		dir.SetChild(key, n)
		if n.Kind != tree.Directory {
			files = append(files, n)
		}
	}
	for i := range rapid.IntRange(0, min(3, len(files))).Draw(t, "links") {
		dir := rapid.SampledFrom(dirs).Draw(t, "link dir")
		key := "link" + string(rune('0'+i))
		dir.SetChild(key, rapid.SampledFrom(files).Draw(t, "linked"))
	}
	prune(root)
	return root
}

// prune drops paths that are too long for a layer.
func prune(root *tree.Node) {
	for path := range root.Walk() {
		if len(path) > pathMax {
			dir, base := split(path)
			root.Lookup(dir).RemoveChild(base)
		}
	}
}

func TestWriteThenRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sink := newMemorySink()
		root := drawTree(t, sink)
		before := flatten(root)
		var blob bytes.Buffer
		d, err := Write(context.Background(), &blob, root, WriteOptions{Open: sink.content, Devices: true})
		if err != nil {
			t.Fatal(err)
		}
		if d.Digest != digest.FromBytes(blob.Bytes()) || d.Size != int64(blob.Len()) || d.MediaType != MediaTypeTarZstd {
			t.Fatalf("descriptor %+v", d)
		}
		var again bytes.Buffer
		if d2, err := Write(context.Background(), &again, root, WriteOptions{Open: sink.content, Devices: true}); err != nil || d2 != d || !bytes.Equal(again.Bytes(), blob.Bytes()) {
			t.Fatalf("a second writing differs: %+v, %v", d2, err)
		}
		limits := DefaultLimits()
		limits.Devices = true
		l, err := NewReader(newMemorySink(), limits).Read(context.Background(), d, bytes.NewReader(blob.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		back, err := Merge(l)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, flatten(back)); diff != "" {
			t.Fatalf("the tree changed (-before +after):\n%s", diff)
		}
	})
}

func bigTree(t testing.TB, sink *memorySink) *tree.Node {
	t.Helper()
	root := tree.NewDir(0o755)
	usr := tree.NewDir(0o755)
	root.SetChild("usr", usr)
	for i := range 300 {
		content := []byte(strings.Repeat(string(rune('a'+i%26))+"bc\n", 1000*(i%17+1)))
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(content)), Digest: fsverity.SumBytes(content)}
		sink.objects[n.Digest] = content
		usr.SetChild("file"+strings.Repeat("x", i), n)
		if i == 200 {
			break
		}
	}
	return root
}

// TestWriteIsTheSameOnEveryMachine: the encoder works in as many goroutines as there are CPUs.
func TestWriteIsTheSameOnEveryMachine(t *testing.T) {
	sink := newMemorySink()
	root := bigTree(t, sink)
	var want Descriptor
	for i, procs := range []int{1, 2, 8} {
		old := runtime.GOMAXPROCS(procs)
		open := sink.content
		if i == 2 {
			open = func(path string, n *tree.Node) (io.ReadCloser, error) {
				rc, err := sink.content(path, n)
				return io.NopCloser(iotest.OneByteReader(rc)), err
			}
		}
		d, err := Write(context.Background(), io.Discard, root, WriteOptions{Open: open})
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = d
		} else if d != want {
			t.Errorf("with %d CPUs: %+v, with 1: %+v", procs, d, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	file := func() *tree.Node { return &tree.Node{Kind: tree.Regular, Mode: 0o644} }
	short := &tree.Node{Kind: tree.Regular, Size: 100, Digest: fsverity.SumBytes([]byte("x"))}
	long := &tree.Node{Kind: tree.Regular, Size: 70, Digest: fsverity.SumBytes([]byte("y"))}
	withXattr := func(name string) *tree.Node {
		n := file()
		n.SetXattr(name, []byte("v"))
		return n
	}
	sink := newMemorySink()
	sink.objects[short.Digest] = make([]byte, 99)
	sink.objects[long.Digest] = make([]byte, 71)
	for name, test := range map[string]struct {
		child string
		node  *tree.Node
		want  string
	}{
		"a whiteout's name":     {".wh.x", file(), "reserved for whiteouts"},
		"an opaque mark's name": {".wh..wh..opq", file(), "reserved for whiteouts"},
		"a directory so named":  {".wh.d", tree.NewDir(0o755), "empty regular file"},
		"a socket":              {"s", &tree.Node{Kind: tree.Socket}, "can't hold a socket"},
		"an overlay whiteout":   {"w", &tree.Node{Kind: tree.CharDevice}, "overlayfs's whiteout"},
		"a device":              {"d", &tree.Node{Kind: tree.CharDevice, Rdev: 5}, "device node"},
		"an overlay xattr":      {"x", withXattr("trusted.overlay.opaque"), "trusted.overlay.opaque"},
		"an xattr with =":       {"x", withXattr("user.a=b"), "PAX header"},
		"too short a content":   {"f", short, "99 bytes, not 100"},
		"too long a content":    {"f", long, "write too long"},
		"a climbing name":       {"..", file(), `".."`},
		"a name with a slash":   {"a//b", file(), "reserved"},
	} {
		root := tree.NewDir(0o755)
		root.SetChild(test.child, test.node)
		_, err := Write(context.Background(), io.Discard, root, WriteOptions{Open: sink.content})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
	if _, err := Write(context.Background(), io.Discard, file(), WriteOptions{}); fault.KindOf(err) != fault.Broken {
		t.Errorf("a file as the root: %v", err)
	}
}

func TestWriteErrorsComeBack(t *testing.T) {
	sink := newMemorySink()
	root := bigTree(t, sink)
	full := errors.New("disk full")
	if _, err := Write(context.Background(), failingWriter{full}, root, WriteOptions{Open: sink.content}); !errors.Is(err, full) {
		t.Errorf("the writer fails: %v", err)
	}
	gone := func(string, *tree.Node) (io.ReadCloser, error) { return nil, full }
	if _, err := Write(context.Background(), io.Discard, root, WriteOptions{Open: gone}); !errors.Is(err, full) {
		t.Errorf("the opener fails: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, io.Discard, root, WriteOptions{Open: sink.content}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
