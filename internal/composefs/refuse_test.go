package composefs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

func deep(levels int) *tree.Node {
	root := tree.NewDir(0o755)
	dir := root
	for range levels {
		next := tree.NewDir(0o755)
		dir.SetChild("d", next)
		dir = next
	}
	return root
}

func TestWriteRefusesWhatTheFormatCantHold(t *testing.T) {
	with := func(name string, n *tree.Node) *tree.Node {
		root, sub := tree.NewDir(0o755), tree.NewDir(0o755)
		root.SetChild("sub", sub)
		sub.SetChild(name, n)
		return root
	}
	file := func(change func(*tree.Node)) *tree.Node {
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644}
		change(n)
		return with("file", n)
	}
	empty := &tree.Node{Kind: tree.Regular}
	whiteout := &tree.Node{Kind: tree.CharDevice}
	twice, circle := with("a", tree.NewDir(0)), tree.NewDir(0)
	twice.SetChild("again", twice.Child("sub"))
	circle.SetChild("circle", circle)
	linked := with("a", whiteout)
	linked.SetChild("b", whiteout)
	for name, c := range map[string]struct {
		root *tree.Node
		want string
	}{
		"no root":               {nil, "root must be a directory"},
		"a file as root":        {empty, "root must be a directory"},
		"an empty name":         {with("", empty), "can't be an entry's"},
		"dot":                   {with(".", empty), "can't be an entry's"},
		"dot dot":               {with("..", empty), "can't be an entry's"},
		"a long name":           {with(strings.Repeat("n", 256), empty), "256 bytes"},
		"a slash":               {with("a/b", empty), "slash or a NUL"},
		"a NUL":                 {with("a\x00", empty), "slash or a NUL"},
		"no kind":               {with("a", &tree.Node{}), "unknown inode type"},
		"a mode with a type":    {file(func(n *tree.Node) { n.Mode = 0o100644 }), "only permission bits"},
		"entries of a file":     {file(func(n *tree.Node) { n.SetChild("a", empty) }), "no directory"},
		"an empty symlink":      {with("a", &tree.Node{Kind: tree.Symlink}), "target is empty"},
		"a long symlink":        {with("a", &tree.Node{Kind: tree.Symlink, Target: strings.Repeat("t", 4096)}), "4096 bytes"},
		"a symlink with a NUL":  {with("a", &tree.Node{Kind: tree.Symlink, Target: "a\x00b"}), "holds a NUL"},
		"content and size":      {file(func(n *tree.Node) { n.Inline = []byte("abc"); n.Size = 4 }), "must be equal"},
		"too large to inline":   {file(func(n *tree.Node) { n.Inline = make([]byte, 5001); n.Size = 5001 }), "at most 5000"},
		"too large a file":      {file(func(n *tree.Node) { n.Size = 1<<53 + 1 }), "too large"},
		"a payload with a NUL":  {file(func(n *tree.Node) { n.Size = 100; n.Payload = "a\x00" }), "holds a NUL"},
		"an unnamed attribute":  {file(func(n *tree.Node) { n.Xattrs = []tree.Xattr{{}} }), "0 bytes"},
		"a long attribute name": {file(func(n *tree.Node) { n.SetXattr(strings.Repeat("x", 256), nil) }), "256 bytes"},
		"an attribute's NUL":    {file(func(n *tree.Node) { n.SetXattr("user.\x00", nil) }), "NUL in its name"},
		"a long attribute":      {file(func(n *tree.Node) { n.SetXattr("user.x", make([]byte, 65536)) }), "65536 bytes"},
		"unsorted attributes":   {file(func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "b"}, {Name: "a"}} }), "sorted and unique"},
		"attributes twice":      {file(func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "a"}, {Name: "a"}} }), "sorted and unique"},
		"too many attributes": {file(func(n *tree.Node) {
			for i := range 5 {
				n.SetXattr(fmt.Sprint("user.", i), make([]byte, 65535))
			}
		}), "2^18"},
		"a directory twice":   {twice, "one name only"},
		"a circle":            {circle, "one name only"},
		"a linked whiteout":   {linked, "can't have hard links"},
		"too deep a tree":     {deep(depthLimit), "nest deeper"},
		"too new an image":    {tree.NewDir(0o755), "the latest is 1"},
		"deep, but all right": {deep(depthLimit - 1), ""},
	} {
		opts := V1
		if name == "too new an image" {
			opts.MaxVersion = 2
		}
		var out bytes.Buffer
		err := Write(&out, c.root, opts)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || c.want == "" || fault.KindOf(err) != fault.Refuse || out.Len() > 0 {
			t.Errorf("%s: error %v after %d bytes, want %q", name, err, out.Len(), c.want)
		}
	}
}

func TestWriteErrorsAreTheWritersOwn(t *testing.T) {
	err := Write(failingWriter{}, tree.NewDir(0o755), V1)
	if err == nil || !strings.Contains(err.Error(), "disk full") || fault.KindOf(err) == fault.Refuse {
		t.Errorf("error %v", err)
	}
	if err := WriteDump(failingWriter{}, tree.NewDir(0o755)); err == nil {
		t.Error("WriteDump swallows the error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("disk full") }

// hostile returns the image of a small tree and its plan, to be damaged.
func hostile(t *testing.T) ([]byte, *plan) {
	t.Helper()
	root, a, b := tree.NewDir(0o755), tree.NewDir(0o755), tree.NewDir(0o755)
	root.SetChild("a", a)
	root.SetChild("b", b)
	a.SetChild("file", &tree.Node{Kind: tree.Regular, Size: 100, Digest: fsverity.Digest{1}})
	a.SetChild("small", &tree.Node{Kind: tree.Regular, Size: 3, Inline: []byte("abc")})
	a.Child("small").SetXattr("user.shared", []byte("value"))
	a.Child("file").SetXattr("user.shared", []byte("value"))
	b.SetChild("link", &tree.Node{Kind: tree.Symlink, Target: "target"})
	b.SetChild("device", &tree.Node{Kind: tree.BlockDevice, Rdev: 5})
	p, err := newPlan(root, V1)
	if err != nil {
		t.Fatal(err)
	}
	image, _, err := Build(root, V1)
	if err != nil {
		t.Fatal(err)
	}
	return image, p
}

func TestReadRefusesHostileImages(t *testing.T) {
	le := binary.LittleEndian
	// find returns where an inode lies, and the inode.
	find := func(p *plan, name string) (uint64, *inode) {
		for _, e := range p.entries {
			if e.name == name {
				in := &p.inodes[e.ref]
				return in.nid * 32, in
			}
		}
		t.Fatalf("no inode %q", name)
		return 0, nil
	}
	// dirent returns where the entry of a name in directory "a" or "b" lies: after inode and attributes.
	dirent := func(p *plan, dir, name string) uint64 {
		at, in := find(p, dir)
		at += in.headerSize() + uint64(in.xattrSize)
		for i, e := range p.entriesOf(in) {
			if e.name == name {
				return at + uint64(i)*12
			}
		}
		t.Fatalf("no entry %q", name)
		return 0
	}
	for name, c := range map[string]struct {
		damage func(image []byte, p *plan)
		want   string
	}{
		"wrong magic":            {func(b []byte, _ *plan) { b[0] = 0 }, "magic"},
		"unknown header version": {func(b []byte, _ *plan) { b[4] = 2 }, "unknown"},
		"unknown version":        {func(b []byte, _ *plan) { b[12] = 2 }, "unknown"},
		"no EROFS":               {func(b []byte, _ *plan) { b[1024] = 0 }, "magic"},
		"other blocks":           {func(b []byte, _ *plan) { b[1024+12] = 9 }, "blocks of 2^9"},
		"compression":            {func(b []byte, _ *plan) { b[1024+80] = 1 }, "incompatible features"},
		"a block too few":        {func(b []byte, _ *plan) { b[1024+36]-- }, "blocks"},
		"root elsewhere":         {func(b []byte, _ *plan) { le.PutUint16(b[1024+14:], 0xffff) }, "beyond the image's end"},
		"metadata elsewhere":     {func(b []byte, _ *plan) { le.PutUint32(b[1024+40:], 0xffffffff) }, "beyond the image's end"},
		"attributes elsewhere":   {func(b []byte, _ *plan) { le.PutUint16(b[1024+16:], 9) }, "inodes"},
		"a directory in itself": {func(b []byte, p *plan) {
			at, _ := find(p, "a")
			le.PutUint64(b[dirent(p, "a", "file"):], at/32)
			b[dirent(p, "a", "file")+10] = 2
		}, "two names"},
		"an entry leads to the root": {func(b []byte, p *plan) {
			le.PutUint64(b[dirent(p, "a", "file"):], p.inodes[0].nid)
			b[dirent(p, "a", "file")+10] = 2
		}, "two names"},
		"a directory with two names": {func(b []byte, p *plan) {
			at, _ := find(p, "a")
			le.PutUint64(b[dirent(p, "b", "link"):], at/32)
			b[dirent(p, "b", "link")+10] = 2
		}, "two names"},
		"an entry leads nowhere": {func(b []byte, p *plan) { le.PutUint64(b[dirent(p, "a", "file"):], math.MaxUint64) }, "beyond the image's end"},
		"dot leads elsewhere":    {func(b []byte, p *plan) { b[dirent(p, "a", ".")]++ }, `"." leads to`},
		"dot dot leads elsewhere": {func(b []byte, p *plan) {
			b[dirent(p, "a", "..")]++
		}, `".." leads to`},
		"an entry of another type": {func(b []byte, p *plan) { b[dirent(p, "a", "file")+10] = 2 }, "entry of type 2"},
		"names that don't ascend":  {func(b []byte, p *plan) { copy(b[dirent(p, "a", ".")+48:], "...zile") }, "ascend"},
		"a name with a slash":      {func(b []byte, p *plan) { copy(b[dirent(p, "a", ".")+48:], "...f/le") }, "slash"},
		"a name with a NUL":        {func(b []byte, p *plan) { copy(b[dirent(p, "a", ".")+48:], "...f\x00le") }, "NUL"},
		"names out of place":       {func(b []byte, p *plan) { le.PutUint16(b[dirent(p, "a", ".")+8:], 4095) }, "names start at"},
		"a name out of place":      {func(b []byte, p *plan) { le.PutUint16(b[dirent(p, "a", "..")+8:], 4095) }, "whose name is at"},
		"a compressed inode":       {func(b []byte, p *plan) { at, _ := find(p, "file"); b[at] = 3 }, "isn't one of composefs's"},
		"an unknown file type":     {func(b []byte, p *plan) { at, _ := find(p, "file"); b[at+5] = 0xf0 }, "entry of type"},
		"attributes without end":   {func(b []byte, p *plan) { at, _ := find(p, "file"); le.PutUint16(b[at+2:], 0xffff) }, "beyond the image's end"},
		"references without end":   {func(b []byte, p *plan) { at, in := find(p, "file"); b[at+in.headerSize()+4] = 0xff }, "shared attributes"},
		"a reference elsewhere": {func(b []byte, p *plan) {
			at, in := find(p, "small")
			le.PutUint32(b[at+in.headerSize()+12:], 0xfffffff0)
		}, "shared attribute"},
		"a digest of another kind": {func(b []byte, p *plan) {
			at, _ := find(p, "file")
			copy(b[at+bytesIndex(b[at:], "overlay.metacopy")+16:], "\x00\x24\x00\x02")
		}, "metacopy"},
		"a relative redirect": {func(b []byte, p *plan) {
			at, _ := find(p, "file")
			b[at+bytesIndex(b[at:], "overlay.redirect")+16] = '.'
		}, "redirect"},
		"an unescaped overlay attribute": {func(b []byte, p *plan) {
			at, _ := find(p, "file")
			copy(b[at+bytesIndex(b[at:], "overlay.redirect"):], "overlay.rEdirect")
		}, "has no business here"},
		"a large symlink":      {func(b []byte, p *plan) { at, _ := find(p, "link"); le.PutUint32(b[at+8:], 5000) }, "at most 4095"},
		"an empty symlink":     {func(b []byte, p *plan) { at, _ := find(p, "link"); b[at] = 0; le.PutUint32(b[at+8:], 0) }, "target is empty"},
		"large inline content": {func(b []byte, p *plan) { at, _ := find(p, "small"); le.PutUint32(b[at+8:], 5001) }, "more than 5000"},
		"content elsewhere": {func(b []byte, p *plan) {
			at, _ := find(p, "small")
			b[at] = 0
			le.PutUint32(b[at+16:], 0xffffffff)
		}, "beyond the image's end"},
		"a large device": {func(b []byte, p *plan) { at, _ := find(p, "device"); b[at+8] = 1 }, "of 1 bytes"},
		"an unescaped whiteout": {func(b []byte, p *plan) {
			at, _ := find(p, "device")
			le.PutUint16(b[at+4:], 0o20000)
			b[at+16] = 0
			b[dirent(p, "b", "device")+10] = 3
		}, "isn't escaped"},
	} {
		image, p := hostile(t)
		c.damage(image, p)
		root, err := Read(bytes.NewReader(image), int64(len(image)))
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || root != nil {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	for _, size := range []int64{-1, 0, 4095, 1<<30 + 1} {
		if _, err := Read(bytes.NewReader(nil), size); fault.KindOf(err) != fault.Refuse {
			t.Errorf("size %d: error %v", size, err)
		}
	}
	image, _ := hostile(t)
	if _, err := Read(bytes.NewReader(image), int64(len(image))+4096); err == nil || fault.KindOf(err) == fault.Refuse {
		t.Errorf("an image that ends early: error %v", err)
	}
}

func bytesIndex(b []byte, s string) uint64 { return uint64(bytes.Index(b, []byte(s))) }

func TestReadDumpRefuses(t *testing.T) {
	const root = "/ 4096 40755 2 0 0 0 0.0 - - -\n"
	for dump, want := range map[string]string{
		"":                                     "holds nothing",
		"\n":                                   "",
		"/a 0 100644 1 0 0 0 0.0 - - -":        "root must come first",
		"/ 0 100644 1 0 0 0 0.0 - - -":         "root must be a directory",
		root + root:                            "a root already",
		root + "/a 0 644 1 0 0 0 0.0 - - -":    "no known file type",
		root + "/a x 100644 1 0 0 0 0.0 - - -": "size",
		root + "/a 0 100648 1 0 0 0 0.0 - - -": "mode",
		root + "/a 0 100644 99999999999 0 0 0 0.0 - - -":                          "nlink",
		root + "/a 0 100644 1 99999999999 0 0 0.0 - - -":                          "uid",
		root + "/a 0 100644 1 0 -99999999999 0 0.0 - - -":                         "gid",
		root + "/a 0 100644 1 0 0 0 0 - - -":                                      "mtime",
		root + "/a 0 100644 1 0 0 0 0.1000000000 - - -":                           "mtime",
		root + "/a 4 100644 1 0 0 0 0.0 - abc -":                                  "content of 3 bytes",
		root + "/a 4 100644 1 0 0 0 0.0 - - 12":                                   "64 hexadecimal",
		root + `/a\x0 0 100644 1 0 0 0 0.0 - - -`:                                 "hexadecimal digits",
		root + `/a\q 0 100644 1 0 0 0 0.0 - - -`:                                  "unknown escape",
		root + `/a\x00b 0 100644 1 0 0 0 0.0 - - -`:                               "NUL",
		root + "/a\x00b 0 100644 1 0 0 0 0.0 - - -":                               "NUL",
		root + "/a/b 0 100644 1 0 0 0 0.0 - - -":                                  "isn't there",
		root + "/a/ 0 100644 1 0 0 0 0.0 - - -":                                   "can't be an entry's",
		root + "/a 0 100644 1 0 0 0 0.0 - - - novalue":                            `no "="`,
		root + "/a 0 100644 1 0 0 0 0.0 - - - =v":                                 "0 bytes",
		root + "/a 0 @40755 1 0 0 0 0.0 / - -":                                    "one name only",
		root + "/a 0 @100644 1 0 0 0 0.0 / - -":                                   "one name only",
		root + "/a 0 @100644 1 0 0 0 0.0 - - -":                                   "path as payload",
		root + "/a 0 @100644 1 0 0 0 0.0 /b - -":                                  "isn't there",
		root + "/a 0 @100644 1 0 0 0 0.0 /a - -":                                  "circle",
		root + "/a 0 @100644 1 0 0 0 0.0 /b - -\n/b 0 @100644 1 0 0 0 0.0 /a - -": "circle",
		root + "/w 0 20000 1 0 0 0 0.0 - - -\n/x 0 @20000 1 0 0 0 0.0 /w - -":     "can't have hard links",
		root + "/" + strings.Repeat("x", lineLimit):                               "longer than",
	} {
		_, err := ReadDump(strings.NewReader(dump), Limits{})
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Refuse {
			t.Errorf("%.100q: error %v, want %q", dump, err, want)
		}
	}
	twice := root + strings.Repeat("/a 0 100644 1 0 0 0 0.0 - - -\n", 2)
	if _, err := ReadDump(strings.NewReader(twice), Limits{}); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := ReadDump(strings.NewReader(twice), Limits{Entries: 1}); err == nil || !strings.Contains(err.Error(), "more than 1 entries") {
		t.Errorf("too many entries: %v", err)
	}
	if _, err := ReadDump(strings.NewReader(twice), Limits{Bytes: 40}); err == nil || !strings.Contains(err.Error(), "longer than 40 bytes") {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := ReadDump(iotest.ErrReader(io.ErrUnexpectedEOF), Limits{}); err == nil || fault.KindOf(err) == fault.Refuse {
		t.Errorf("a reader's error: %v", err)
	}
}
