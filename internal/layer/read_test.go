package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var longText = strings.Repeat("a line that is not to be kept inline\n", 5000)

func sample() []entry {
	name := "usr/share/" + strings.Repeat("n", 255)
	return []entry{
		{name: "./", mode: 0o700},
		{name: "./usr/", mtime: time.Unix(1000, 5)},
		{name: "./usr/bin/", uid: 70000, gid: 4_000_000_000},
		{name: "./usr/bin/tool", body: longText, mode: 0o4755, mtime: time.Unix(-3, 999_999_999), records: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.user.empty":          "",
		}},
		{name: "./usr/bin/alias", kind: tar.TypeLink, link: "./usr/bin/tool"},
		{name: "./usr/bin/sh", kind: tar.TypeSymlink, link: "/bin/../dash", mode: 0o777},
		{name: "usr//share/"},
		{name: name, body: strings.Repeat("x", tree.InlineMax)},
		{name: name[:200], body: strings.Repeat("x", tree.InlineMax+1)},
		{name: "usr/share/empty"},
		{name: "run/", mode: 0o1777},
		{name: "run/pipe", kind: tar.TypeFifo},
	}
}

func checkSample(t *testing.T, l *Layer) {
	t.Helper()
	root, err := Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	tool := root.Lookup("usr/bin/tool")
	want := &tree.Node{
		Kind: tree.Regular, Mode: 0o4755, Mtime: tree.Time{Sec: -3, Nsec: 999_999_999},
		Size: uint64(len(longText)), Digest: fsverity.SumBytes([]byte(longText)),
		Xattrs: []tree.Xattr{
			{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
			{Name: "user.empty", Value: []byte{}},
		},
	}
	if diff := cmp.Diff(want, tool, cmp.Exporter(func(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[tree.Node]().PkgPath() })); diff != "" {
		t.Errorf("usr/bin/tool (-want +got):\n%s", diff)
	}
	if root.Lookup("usr/bin/alias") != tool {
		t.Error("usr/bin/alias is not the same inode as usr/bin/tool")
	}
	if n := root.Lookup("usr/bin/sh"); n.Kind != tree.Symlink || n.Target != "/bin/../dash" {
		t.Errorf("usr/bin/sh = %+v", n)
	}
	if n := root.Lookup("usr/bin"); n.UID != 70000 || n.GID != 4_000_000_000 {
		t.Errorf("usr/bin is owned by %d:%d", n.UID, n.GID)
	}
	if n := root.Lookup("usr"); n.Mtime != (tree.Time{Sec: 1000, Nsec: 5}) {
		t.Errorf("usr has mtime %+v", n.Mtime)
	}
	if n := root.Lookup("usr/share/" + strings.Repeat("n", 255)); len(n.Inline) != tree.InlineMax || !n.Digest.IsZero() {
		t.Errorf("a file of %d bytes is not inline: %+v", tree.InlineMax, n)
	}
	if n := root.Lookup("usr/share/" + strings.Repeat("n", 190)); n.Inline != nil || n.Digest.IsZero() {
		t.Errorf("a file of %d bytes is inline: %+v", tree.InlineMax+1, n)
	}
	if root.Mode != 0o700 {
		t.Errorf("root has mode %o", root.Mode)
	}
}

func TestReadEveryCompression(t *testing.T) {
	plain := makeTar(t, sample()...)
	for _, mediaType := range []string{MediaTypeTar, MediaTypeTarGzip, MediaTypeTarZstd, dockerTar, dockerTarGzip, dockerTarZstd} {
		blob, d := pack(t, plain, mediaType)
		l, err := NewReader(Discard{}, DefaultLimits()).Read(context.Background(), d, iotest.HalfReader(bytes.NewReader(blob)))
		if err != nil {
			t.Errorf("%s: %v", mediaType, err)
			continue
		}
		checkSample(t, l)
		want := Stats{
			Compressed: int64(len(blob)), Uncompressed: int64(len(plain)), Entries: 12,
			Objects: 2, NewObjects: 2, ObjectBytes: int64(len(longText) + 65), NewObjectBytes: int64(len(longText) + 65),
		}
		if l.Stats != want || l.DiffID != digest.FromBytes(plain) {
			t.Errorf("%s: stats %+v, want %+v; DiffID %s", mediaType, l.Stats, want, l.DiffID)
		}
		l, err = NewReader(Discard{}, DefaultLimits()).ReadTar(context.Background(), bytes.NewReader(blob))
		if err != nil {
			t.Errorf("%s without a descriptor: %v", mediaType, err)
			continue
		}
		checkSample(t, l)
	}
}

// TestReadForeignForms reads what other writers make of names, types and padding.
func TestReadForeignForms(t *testing.T) {
	long := strings.Repeat("d/", 120) + strings.Repeat("f", 200)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, hdr := range []*tar.Header{
		{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "4d2b"}},
		{Typeflag: tar.TypeReg, Name: long, Format: tar.FormatGNU, Mode: 0o100644},
		{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "../" + long, Format: tar.FormatGNU},
		{Typeflag: tar.TypeReg, Name: "old", Format: tar.FormatUSTAR, ModTime: time.Unix(7, 0)},
		{Typeflag: tar.TypeReg, Name: "gnu", Uid: 1 << 22, ModTime: time.Unix(-7, 0), Format: tar.FormatGNU},
	} {
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, plain := range map[string][]byte{
		"as written":     buf.Bytes(),
		"padded":         append(slices.Clone(buf.Bytes()), make([]byte, 9000)...),
		"no end marker":  buf.Bytes()[:buf.Len()-1024],
		"half an end":    buf.Bytes()[:buf.Len()-512],
		"nothing at all": {},
	} {
		l, err := readTarball(t, plain, DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		root, err := Merge(l)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(plain) == 0 {
			continue
		}
		if n := root.Lookup(long); n == nil || n.Mode != 0o644 {
			t.Errorf("%s: the file with the long name is %+v", name, n)
		}
		if n := root.Lookup("s"); n == nil || n.Target != "../"+long {
			t.Errorf("%s: the symlink with the long target is %+v", name, n)
		}
		if n := root.Lookup("gnu"); n == nil || n.UID != 1<<22 || n.Mtime.Sec != -7 {
			t.Errorf("%s: the file with base-256 numbers is %+v", name, n)
		}
	}
}

func TestHostileEntries(t *testing.T) {
	x := func(key, value string) map[string]string { return map[string]string{key: value} }
	many := make(map[string]string)
	for i := range 257 {
		many["SCHILY.xattr.user."+strconv.Itoa(i)] = "v"
	}
	device := Limits{Entries: 100, Metadata: 1 << 20, Bytes: 1 << 20, Devices: true}
	for name, test := range map[string]struct {
		entries []entry
		limits  *Limits
		want    string
	}{
		"absolute":                   {entries: []entry{{name: "/etc/passwd"}}, want: "absolute"},
		"absolute root":              {entries: []entry{{name: "/"}}, want: "absolute"},
		"climbs":                     {entries: []entry{{name: "../etc/passwd"}}, want: `".."`},
		"climbs inside":              {entries: []entry{{name: "usr/../../etc/passwd"}}, want: `".."`},
		"climbs at the end":          {entries: []entry{{name: "usr/.."}}, want: `".."`},
		"component too long":         {entries: []entry{{name: "a/" + strings.Repeat("x", 256)}}, want: "255 bytes"},
		"path too long":              {entries: []entry{{name: strings.Repeat("x/", 2048) + "x"}}, want: "4095 bytes"},
		"file is the root":           {entries: []entry{{name: "."}}, want: "directory's"},
		"file with slash":            {entries: []entry{{name: "a", kind: tar.TypeReg}, {name: "b/", kind: tar.TypeSymlink, link: "a"}}, want: "directory's"},
		"symlink as root":            {entries: []entry{{name: "./", kind: tar.TypeSymlink, link: "/"}}, want: "directory's"},
		"hard link out":              {entries: []entry{{name: "a", kind: tar.TypeLink, link: "../../etc/shadow"}}, want: `".."`},
		"hard link absolute":         {entries: []entry{{name: "a", kind: tar.TypeLink, link: "/etc/shadow"}}, want: "absolute"},
		"hard link to itself":        {entries: []entry{{name: "a", kind: tar.TypeLink, link: "./a"}}, want: "itself"},
		"hard link to root":          {entries: []entry{{name: "a", kind: tar.TypeLink, link: "."}}, want: "directory"},
		"symlink to nothing":         {entries: []entry{{name: "a", kind: tar.TypeSymlink}}, want: "target of 0 bytes"},
		"symlink target too long":    {entries: []entry{{name: "a", kind: tar.TypeSymlink, link: strings.Repeat("x", 4096)}}, want: "target of 4096 bytes"},
		"device":                     {entries: []entry{{name: "dev/sda", kind: tar.TypeBlock, major: 8}}, want: "device node (8:0)"},
		"char device":                {entries: []entry{{name: "dev/mem", kind: tar.TypeChar, major: 1, minor: 1}}, want: "device node (1:1)"},
		"overlay whiteout":           {entries: []entry{{name: "etc/shadow", kind: tar.TypeChar}}, limits: &device, want: "overlayfs's whiteout"},
		"device number":              {entries: []entry{{name: "d", kind: tar.TypeChar, major: 4096}}, limits: &device, want: "4096:0"},
		"owner":                      {entries: []entry{{name: "a", uid: 1<<32 - 1}}, want: "no user ID"},
		"group":                      {entries: []entry{{name: "a", gid: 1 << 32}}, want: "no group ID"},
		"unknown type":               {entries: []entry{{name: "a", kind: 'Z'}}, want: `'Z'`},
		"contiguous":                 {entries: []entry{{name: "a", kind: tar.TypeCont}}, want: `'7'`},
		"trusted overlay":            {entries: []entry{{name: "a", records: x("SCHILY.xattr.trusted.overlay.redirect", "/etc/shadow")}}, want: `"trusted.overlay.redirect"`},
		"user overlay":               {entries: []entry{{name: "a", records: x("SCHILY.xattr.user.overlay.opaque", "y")}}, want: `"user.overlay.opaque"`},
		"escaped overlay":            {entries: []entry{{name: "a", records: x("SCHILY.xattr.trusted.overlay.overlay.opaque", "y")}}, want: "trusted.overlay.overlay.opaque"},
		"trusted":                    {entries: []entry{{name: "a", records: x("SCHILY.xattr.trusted.x", "y")}}, want: `"trusted.x"`},
		"on a directory":             {entries: []entry{{name: "a/", records: x("SCHILY.xattr.trusted.overlay.opaque", "y")}}, want: "trusted.overlay.opaque"},
		"on the root":                {entries: []entry{{name: "./", records: x("SCHILY.xattr.trusted.overlay.opaque", "y")}}, want: "trusted.overlay.opaque"},
		"no namespace":               {entries: []entry{{name: "a", records: x("SCHILY.xattr.foo", "y")}}, want: `"foo"`},
		"empty user name":            {entries: []entry{{name: "a", records: x("SCHILY.xattr.user.", "y")}}, want: `"user."`},
		"security.ima":               {entries: []entry{{name: "a", records: x("SCHILY.xattr.security.ima", "y")}}, want: `"security.ima"`},
		"xattr name too long":        {entries: []entry{{name: "a", records: x("SCHILY.xattr.user."+strings.Repeat("n", 251), "y")}}, want: "longer than 255"},
		"xattr too large":            {entries: []entry{{name: "a", records: x("SCHILY.xattr.user.n", strings.Repeat("v", 65536))}}, want: "65535 bytes"},
		"too many xattrs":            {entries: []entry{{name: "a", records: many}}, want: "more than 256 extended"},
		"star ACL":                   {entries: []entry{{name: "a", records: x("SCHILY.acl.access", "user::rwx")}}, want: "star's text form"},
		"GNU label":                  {entries: []entry{{name: "a", records: x("RHT.security.selinux", "x")}}, want: "--xattrs-include"},
		"libarchive form only":       {entries: []entry{{name: "a", records: x("LIBARCHIVE.xattr.security%2ecapability", "AQ==")}}, want: "libarchive's form"},
		"global header":              {entries: []entry{{name: "g", kind: tar.TypeXGlobalHeader, records: x("SCHILY.xattr.user.n", "v")}}, want: "global header"},
		"whiteout with bytes":        {entries: []entry{{name: "a/.wh.b", body: "x"}}, want: "empty regular file"},
		"whiteout as a directory":    {entries: []entry{{name: "a/.wh.b/"}}, want: "empty regular file"},
		"whiteout as a symlink":      {entries: []entry{{name: "a/.wh.b", kind: tar.TypeSymlink, link: "x"}}, want: "empty regular file"},
		"whiteout of nothing":        {entries: []entry{{name: "a/.wh."}}, want: "no possible name"},
		"whiteout of the directory":  {entries: []entry{{name: "a/.wh.."}}, want: "no possible name"},
		"whiteout of the parent":     {entries: []entry{{name: "a/.wh..."}}, want: "no possible name"},
		"aufs":                       {entries: []entry{{name: ".wh..wh.plnk"}}, want: "no possible name"},
		"below a whiteout":           {entries: []entry{{name: "a/.wh.b/c"}}, want: "reserved"},
		"below an opaque mark":       {entries: []entry{{name: ".wh..wh..opq/c"}}, want: "reserved"},
		"hard link to nowhere":       {entries: []entry{{name: "a", kind: tar.TypeLink, link: "b"}}, want: `"b", which is not there`},
		"hard link to a later":       {entries: []entry{{name: "a", kind: tar.TypeLink, link: "b"}, {name: "b"}}, want: "not there"},
		"hard link to a directory":   {entries: []entry{{name: "b/"}, {name: "a", kind: tar.TypeLink, link: "b"}}, want: "to a directory"},
		"hard link through symlink":  {entries: []entry{{name: "d/"}, {name: "d/f"}, {name: "s", kind: tar.TypeSymlink, link: "d"}, {name: "a", kind: tar.TypeLink, link: "s/f"}}, want: "not there"},
		"below a symlink":            {entries: []entry{{name: "s", kind: tar.TypeSymlink, link: "/etc"}, {name: "s/passwd"}}, want: "not a directory but a symlink"},
		"below a file":               {entries: []entry{{name: "f"}, {name: "f/g/h"}}, want: "not a directory but a regular file"},
		"file over own directory":    {entries: []entry{{name: "d/"}, {name: "d/e/f"}, {name: "d", body: "x"}}, want: "with entries in it"},
		"symlink over own directory": {entries: []entry{{name: "d/"}, {name: "d/f"}, {name: "d", kind: tar.TypeSymlink, link: "/"}}, want: "with entries in it"},
		"entry, then its whiteout":   {entries: []entry{{name: "d/f"}, {name: "d/.wh.f"}}, want: "and then its whiteout"},
		"too many entries":           {entries: []entry{{name: "a"}, {name: "b"}, {name: "c"}}, limits: &Limits{Entries: 2, Metadata: 100, Bytes: 1 << 20}, want: "more than 2 entries"},
		"too much metadata":          {entries: []entry{{name: "aaaaaa"}, {name: "bbbbbb"}}, limits: &Limits{Entries: 2, Metadata: 10, Bytes: 1 << 20}, want: "more than 10 bytes of metadata"},
		"too many bytes":             {entries: []entry{{name: "a", body: longText}}, limits: &Limits{Entries: 2, Metadata: 100, Bytes: 100_000}, want: "more than 100000 uncompressed bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			limits := DefaultLimits()
			if test.limits != nil {
				limits = *test.limits
			}
			l, err := readTarball(t, makeTar(t, test.entries...), limits)
			if err == nil {
				_, err = Merge(l)
			}
			if err == nil {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify {
				t.Errorf("error is of kind %v, area %v", fault.KindOf(err), fault.AreaOf(err))
			}
		})
	}
}

// archive/tar writes no sparse files, so these are bare headers.
func TestSparseHeaders(t *testing.T) {
	for _, hdr := range []*tar.Header{
		{Name: "s", Typeflag: tar.TypeGNUSparse},
		{Name: "s", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GNU.sparse.major": "1"}},
		{Name: "s", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.realsize": "99999"}},
	} {
		if _, reason := readHeader(hdr, false); !strings.Contains(reason, "sparse") {
			t.Errorf("%v: reason %q", hdr, reason)
		}
	}
}

func TestDevicesByOption(t *testing.T) {
	limits := DefaultLimits()
	limits.Devices = true
	l, err := readTarball(t, makeTar(t, entry{name: "dev/x", kind: tar.TypeBlock, major: 0xabc, minor: 0xfedcb}), limits)
	if err != nil {
		t.Fatal(err)
	}
	root, err := Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	n := root.Lookup("dev/x")
	if n.Kind != tree.BlockDevice || n.Rdev != 0xfedabccb {
		t.Errorf("device is %v %#x", n.Kind, n.Rdev)
	}
	if major, minor := deviceNumber(n.Rdev); major != 0xabc || minor != 0xfedcb {
		t.Errorf("device number comes back as %#x:%#x", major, minor)
	}
}

func TestDamagedBlobs(t *testing.T) {
	plain := makeTar(t, sample()...)
	for _, mediaType := range []string{MediaTypeTar, MediaTypeTarGzip, MediaTypeTarZstd} {
		blob, d := pack(t, plain, mediaType)
		flipped := slices.Clone(blob)
		flipped[len(flipped)/2] ^= 0x40
		_, other := pack(t, makeTar(t, entry{name: "x"}), mediaType)
		wrongDiff := d
		wrongDiff.DiffID = other.DiffID
		mislabelled := d
		mislabelled.MediaType = map[string]string{MediaTypeTar: MediaTypeTarZstd, MediaTypeTarGzip: MediaTypeTar, MediaTypeTarZstd: MediaTypeTarGzip}[mediaType]
		hidden, hiddenD := pack(t, append(slices.Clone(plain), makeTar(t, entry{name: "hidden"})...), mediaType)
		malformedBlob, malformedD := pack(t, append(slices.Clone(plain[:5000]), longText...), mediaType)
		foreign := d
		foreign.MediaType = "application/vnd.oci.image.layer.v1.tar+lzma"
		for name, test := range map[string]struct {
			blob []byte
			d    Descriptor
			want string
		}{
			"truncated":           {blob[:len(blob)-5], d, "is truncated: "},
			"half":                {blob[:len(blob)/2], d, "is truncated: "},
			"empty":               {nil, d, "is truncated: 0 of "},
			"longer":              {append(slices.Clone(blob), 0), d, "is longer than"},
			"flipped bit":         {flipped, d, "the blob's bytes are sha256:"},
			"another layer's":     {blob, wrongDiff, "the config says"},
			"mislabelled":         {blob, mislabelled, "its media type says"},
			"unknown type":        {blob, foreign, "is not a layer's"},
			"hidden second tar":   {hidden, hiddenD, "data after the end of the archive"},
			"malformed as signed": {malformedBlob, malformedD, "malformed"},
		} {
			sink := newMemorySink()
			reader := NewReader(sink, DefaultLimits())
			l, err := reader.Read(context.Background(), test.d, bytes.NewReader(test.blob))
			if err == nil || l != nil {
				t.Errorf("%s, %s: accepted", mediaType, name)
				continue
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), string(test.d.Digest)) {
				t.Errorf("%s, %s: error %q does not say %q of %s", mediaType, name, err, test.want, test.d.Digest)
			}
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify {
				t.Errorf("%s, %s: kind %v, area %v: %v", mediaType, name, fault.KindOf(err), fault.AreaOf(err), err)
			}
			if sink.open != 0 {
				t.Errorf("%s, %s: %d objects were left open", mediaType, name, sink.open)
			}
			if b := &reader.budget; b.entries.Load() != 0 || b.bytes.Load() != 0 || b.metadata.Load() != 0 {
				t.Errorf("%s, %s: the failed layer still counts", mediaType, name)
			}
		}
	}
}

// TestBomb reads a small blob that holds more than the limit.
func TestBomb(t *testing.T) {
	plain := makeTar(t, entry{name: "zeros", body: strings.Repeat("\x00", 64<<20)})
	for _, mediaType := range []string{MediaTypeTarGzip, MediaTypeTarZstd} {
		blob, d := pack(t, plain, mediaType)
		limits := DefaultLimits()
		limits.Bytes = 1 << 20
		sink := newMemorySink()
		_, err := NewReader(sink, limits).Read(context.Background(), d, bytes.NewReader(blob))
		if err == nil || !strings.Contains(err.Error(), "uncompressed bytes") {
			t.Errorf("%s: error %v", mediaType, err)
		}
		if sink.open != 0 || len(sink.objects) != 0 {
			t.Errorf("%s: %d open, %d objects", mediaType, sink.open, len(sink.objects))
		}
	}
}

// TestLimitsHoldTogether reads two layers that only together exceed the limit.
func TestLimitsHoldTogether(t *testing.T) {
	limits := DefaultLimits()
	limits.Entries = 3
	blob, d := pack(t, makeTar(t, entry{name: "a"}, entry{name: "b"}), MediaTypeTar)
	r := NewReader(Discard{}, limits)
	if _, err := r.Read(context.Background(), d, bytes.NewReader(blob)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(context.Background(), d, bytes.NewReader(blob)); err == nil {
		t.Error("four entries were accepted")
	}
}

type failingSink struct {
	Sink
	at  string
	err error
}

func (s failingSink) NewObject(n int64) (ObjectWriter, error) {
	if s.at == "new" {
		return nil, s.err
	}
	w, err := s.Sink.NewObject(n)
	return failingObject{w, s}, err
}

type failingObject struct {
	ObjectWriter
	sink failingSink
}

func (o failingObject) Write(p []byte) (int, error) {
	if o.sink.at == "write" {
		return 0, o.sink.err
	}
	return o.ObjectWriter.Write(p)
}

func (o failingObject) Commit() (fsverity.Digest, bool, error) {
	if o.sink.at == "commit" {
		o.Abort()
		return fsverity.Digest{}, false, o.sink.err
	}
	return o.ObjectWriter.Commit()
}

func TestOthersErrorsComeBack(t *testing.T) {
	blob, d := pack(t, makeTar(t, sample()...), MediaTypeTarZstd)
	full := fault.New(fault.Retry, fault.Mount, "make room", "no space left")
	for _, at := range []string{"new", "write", "commit"} {
		memory := newMemorySink()
		_, err := NewReader(failingSink{memory, at, full}, DefaultLimits()).Read(context.Background(), d, bytes.NewReader(blob))
		if !errors.Is(err, full) || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "tool") {
			t.Errorf("sink fails at %s: %v", at, err)
		}
		if memory.open != 0 {
			t.Errorf("sink fails at %s: %d objects were left open", at, memory.open)
		}
	}
	gone := fault.New(fault.Retry, fault.Platform, "", "connection lost")
	for _, mediaType := range []string{MediaTypeTar, MediaTypeTarGzip, MediaTypeTarZstd} {
		blob, d := pack(t, makeTar(t, sample()...), mediaType)
		for _, n := range []int{0, 1, 300, len(blob) / 2, len(blob) - 1} {
			src := io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(gone))
			_, err := NewReader(Discard{}, DefaultLimits()).Read(context.Background(), d, src)
			if !errors.Is(err, gone) || fault.KindOf(err) != fault.Retry {
				t.Errorf("%s, source fails after %d bytes: %v", mediaType, n, err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := NewReader(Discard{}, DefaultLimits()).Read(ctx, d, bytes.NewReader(blob)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", mediaType, err)
		}
	}
}

// TestZstdChunked reads layers with what zstd:chunked adds: skippable frames, and data in several
// frames (a frame for each file).
func TestZstdChunked(t *testing.T) {
	plain := makeTar(t, sample()...)
	skippable := append([]byte{0x5e, 0x2a, 0x4d, 0x18, 5, 0, 0, 0}, "table"...)
	first, _ := pack(t, plain[:2048], MediaTypeTarZstd)
	second, _ := pack(t, plain[2048:], MediaTypeTarZstd)
	blob := slices.Concat(skippable, first, skippable, second, skippable)
	d := Descriptor{MediaType: MediaTypeTarZstd, Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(plain)}
	l, err := NewReader(Discard{}, DefaultLimits()).Read(context.Background(), d, bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, l)
}

// TestZstdWindow refuses a frame that asks for more memory than a decoder may take.
func TestZstdWindow(t *testing.T) {
	// Magic, a frame header without a content size, a window of 2^31 bytes (RFC 8878, 3.1.1.1.2).
	blob := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00}
	d := Descriptor{MediaType: MediaTypeTarZstd, Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromString("")}
	_, err := NewReader(Discard{}, DefaultLimits()).Read(context.Background(), d, bytes.NewReader(blob))
	if err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("error %v", err)
	}
}
