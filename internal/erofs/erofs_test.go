package erofs

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The values are the xxHash project's own sanity checks for the empty input and published examples.
func TestXXH32(t *testing.T) {
	for _, c := range []struct {
		in   string
		seed uint32
		want uint32
	}{
		{"", 0, 0x02CC5D05},
		{"", 0x9E3779B1, 0x36B78AE7},
		{"a", 0, 0x550D7456},
		{"abc", 0, 0x32D153FF},
		{"Nobody inspects the spammish repetition", 0, 0xE2293B2F},
	} {
		if got := xxh32(c.in, c.seed); got != c.want {
			t.Errorf("xxh32(%q, %#x) = %#x, want %#x", c.in, c.seed, got, c.want)
		}
	}
}

func TestSuperblockComesBack(t *testing.T) {
	want := Superblock{
		FeatureCompat: FeatureMtime | FeatureXattrFilter, RootNID: 36, Inodes: 1 << 40, BuildSec: -5, BuildNsec: 7,
		Blocks: 9, MetaBlock: 1, XattrBlock: 3,
	}
	b := want.Append(nil)
	if got, err := ParseSuperblock(b); err != nil || got != want || len(b) != SuperSize {
		t.Errorf("%d bytes, %+v, %v; want %+v", len(b), got, err, want)
	}
	if _, err := ParseSuperblock(b[:100]); err == nil {
		t.Error("a short superblock passes")
	}
}

func TestInodesComeBack(t *testing.T) {
	sb := &Superblock{BuildSec: 11, BuildNsec: 12}
	for _, want := range []Inode{
		{NID: 5, Compact: true, Layout: FlatInline, Mode: ModeRegular | 0o644, XattrCount: 3, Nlink: 65535, UID: 65535, GID: 1, Size: 1<<32 - 1, Union: 9, Ino: 4, Sec: 11, Nsec: 12},
		{NID: 5, Layout: ChunkBased, Mode: ModeRegular | 0o7777, Nlink: 1 << 31, UID: 1 << 31, GID: 1 << 30, Size: 1 << 60, Union: 1 << 20, Ino: 4, Sec: -1, Nsec: 999999999},
	} {
		b := want.Append(nil)
		got, err := parseInode(b, 5, sb)
		if err != nil || got != want || uint64(len(b)) != want.HeaderSize() {
			t.Errorf("%d bytes, %v\n%s", len(b), err, cmp.Diff(want, got))
		}
		if _, err := parseInode(b[:len(b)-1], 5, sb); err == nil {
			t.Error("a short inode passes")
		}
	}
}

func TestXattrEntriesComeBack(t *testing.T) {
	for _, name := range []string{"user.a", "user.", "trusted.overlay.opaque", "security.selinux", "system.posix_acl_access", "system.posix_acl_default", "system.posix_acl_accessX", "lustre.x", "odd"} {
		b := AppendXattrEntry(nil, name, []byte("value"))
		got, n, err := newXattrNames().parse(append(b, "rest"...))
		if err != nil || got.Name != name || string(got.Value) != "value" || n != uint64(len(b)) || n != XattrEntryLen(name, 5) {
			t.Errorf("%q: %+v, %d of %d bytes, %v", name, got, n, len(b), err)
		}
	}
	for _, b := range []string{"", "\x01\x01\x00", "\x01\x07\x00\x00a", "\x05\x01\x00\x00a", "\x00\x00\x00\x00", "\x01\x01\x05\x00a\x00"} {
		if x, _, err := newXattrNames().parse([]byte(b)); err == nil {
			t.Errorf("%q is taken for %+v", b, x)
		}
	}
}

func TestAnImageHandsOutNoMoreThanItHolds(t *testing.T) {
	super := Superblock{Blocks: 1, RootNID: 40, Inodes: 1}
	data := make([]byte, BlockSize)
	super.Append(data[:SuperOffset])
	root := Inode{Layout: FlatPlain, Mode: ModeDir}
	root.Append(data[:40*SlotSize])
	im, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range BlockSize/ExtendedSize + 1 {
		if _, err = im.Inode(40); err != nil && i < BlockSize/ExtendedSize {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, errClaimed) {
		t.Errorf("error %v, want %v", err, errClaimed)
	}
}

// FuzzDirents: a directory block of any bytes gives ascending names that a file system can have.
func FuzzDirents(f *testing.F) {
	var block []byte
	for i, name := range []string{".", "..", "a"} {
		block = AppendDirent(block, uint64(i), uint16(36+i*(i+1)/2), TypeDir)
		_ = name
	}
	f.Add(append(block, "...a"...))
	f.Fuzz(func(t *testing.T, block []byte) {
		prev := ""
		_, err := parseDirents(block, "", func(d Dirent) error {
			if d.Name <= prev || len(d.Name) > NameMax || strings.ContainsAny(d.Name, "/\x00") {
				t.Errorf("name %q after %q", d.Name, prev)
			}
			prev = d.Name
			return nil
		})
		_ = err
	})
}
