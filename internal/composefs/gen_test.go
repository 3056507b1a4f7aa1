package composefs

import (
	"strings"

	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// genTree draws trees that visit the format's corners: sizes around every threshold, few
// attributes used often and many used once, names that sort around "." and "..", stubs' names,
// hard links across directories, whiteouts, and all that only dumps from outside hold.
func genTree(t *rapid.T, most scope) *tree.Node {
	g := generator{t, most}
	root := g.node(tree.Directory)
	dirs := []*tree.Node{root}
	var files []*tree.Node
	for range rapid.IntRange(0, 60).Draw(t, "entries") {
		dir := rapid.SampledFrom(dirs).Draw(t, "dir")
		name := g.name()
		if dir.Child(name) != nil {
			continue
		}
		if len(files) > 0 && rapid.IntRange(0, 5).Draw(t, "link") == 0 {
			file := rapid.SampledFrom(files).Draw(t, "file")
			if most > plain && rapid.IntRange(0, 3).Draw(t, "marked") == 0 {
				dir.SetLink(name, file)
			} else {
				dir.SetChild(name, file)
			}
			continue
		}
		n := g.node(rapid.SampledFrom(kinds).Draw(t, "kind"))
		dir.SetChild(name, n)
		switch {
		case n.Kind == tree.Directory:
			dirs = append(dirs, n)
		case !isWhiteout(n):
			files = append(files, n)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
		g.fill(rapid.SampledFrom(dirs).Draw(t, "dir"))
	}
	return root
}

var kinds = []tree.Kind{
	tree.Directory, tree.Directory, tree.Directory, tree.Regular, tree.Regular, tree.Regular, tree.Regular,
	tree.Symlink, tree.Symlink, tree.CharDevice, tree.BlockDevice, tree.FIFO, tree.Socket,
}

// scope says how odd a tree may be.
type scope uint8

const (
	plain       scope = iota // what reading the tree's image gives back as it was
	imageOddity              // what gives an image that reading and writing again reproduces
	dumpOddity               // all that a dump can say
)

type generator struct {
	t    *rapid.T
	most scope
}

func (g generator) name() string {
	short := rapid.SampledFrom([]string{"-", "+", ".a", "..b", "!", "00", "0a", "ff", "=", "a b", "\xff\x01", "\\", "\n", "\u00e9"})
	any := rapid.StringMatching(`[a-z]{1,4}`)
	long := rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(rapid.StringMatching(`[A-Z]`).Draw(t, "c"), rapid.IntRange(200, 255).Draw(t, "len"))
	})
	return rapid.OneOf(any, any, short, long).Draw(g.t, "name")
}

// fill gives a directory enough entries for several blocks.
func (g generator) fill(dir *tree.Node) {
	n := g.node(tree.Regular)
	width := rapid.IntRange(1, 240).Draw(g.t, "width")
	for i := range rapid.IntRange(1, 400).Draw(g.t, "count") {
		c := *n
		name := "fill-" + strings.Repeat("x", width) + string(rune('A'+i%26)) + strings.Repeat("y", i/26)
		if len(name) <= tree.NameMax {
			dir.SetChild(name, &c)
		}
	}
}

func (g generator) node(kind tree.Kind) *tree.Node {
	t := g.t
	n := &tree.Node{
		Kind: kind, Mode: uint16(rapid.IntRange(0, 0o7777).Draw(t, "mode")),
		UID: rapid.SampledFrom([]uint32{0, 0, 1000, 65535, 65536, 1<<32 - 1}).Draw(t, "uid"),
		GID: rapid.SampledFrom([]uint32{0, 0, 1000, 65535, 65536, 1<<32 - 1}).Draw(t, "gid"),
		Mtime: tree.Time{
			Sec:  rapid.SampledFrom([]int64{0, 0, 0, 1, -1, 1700000000, 1 << 34, -(1 << 40)}).Draw(t, "sec"),
			Nsec: rapid.SampledFrom([]uint32{0, 0, 0, 1, 999999999}).Draw(t, "nsec"),
		},
	}
	g.xattrs(n)
	switch kind {
	case tree.Directory:
		return n
	case tree.Symlink:
		size := rapid.SampledFrom([]int{1, 1, 10, 60, 100, 2000, 3900, 3960, 4031, 4032, 4064, 4095}).Draw(t, "target")
		n.Target = strings.Repeat("t", max(1, size-rapid.IntRange(0, 16).Draw(t, "less")))
	case tree.CharDevice, tree.BlockDevice:
		n.Rdev = rapid.SampledFrom([]uint32{0, 0, 0x0103, 0xfff00fff, 1<<32 - 1}).Draw(t, "rdev")
	case tree.Regular:
		g.content(n)
	}
	if g.most == dumpOddity && kind != tree.Symlink && kind != tree.Regular && rapid.IntRange(0, 19).Draw(t, "sized") == 0 {
		n.Size = 1 << 32
	}
	switch rapid.IntRange(0, 9).Draw(t, "nlink") {
	case 0:
		n.Explicit |= tree.ExplicitNlink
	case 1:
		n.Nlink = rapid.SampledFrom([]uint32{7, 65535, 65536, 1<<32 - 1}).Draw(t, "nlink value")
	}
	if isWhiteout(n) {
		n.Size, n.Nlink, n.Explicit = 0, 0, 0
	}
	return n
}

func (g generator) content(n *tree.Node) {
	t := g.t
	if rapid.Bool().Draw(t, "inline") {
		size := rapid.SampledFrom([]int{0, 1, 15, 63, 64, 65, 2047, 2048, 2049, 4095, 4096, 4097, 5000}).Draw(t, "size")
		if size > 0 {
			n.Inline = []byte(strings.Repeat(rapid.SampledFrom([]string{"a", "-", "=", "\x00", "\n"}).Draw(t, "byte"), size))
		}
		n.Size = uint64(size)
		return
	}
	n.Size = rapid.SampledFrom([]uint64{1, 65, 4096, 4097, 1 << 20, 1<<32 - 1, 1 << 32, 1 << 43, 1<<43 + 1, 1 << 45, 9000000000000000}).Draw(t, "size")
	n.Digest = fsverity.Digest{rapid.SampledFrom([]byte{1, 2, 3, 4, 5, 6, 7, 0xff}).Draw(t, "digest")}
	describe(n, true, []byte(rapid.SampledFrom([]string{n.Digest.ObjectPath(), n.Digest.ObjectPath(), n.Digest.ObjectPath(), fsverity.Digest{2}.ObjectPath(), "odd/payload", "/", ""}).Draw(t, "payload")))
	switch rapid.IntRange(0, 9).Draw(t, "odd") {
	case 0:
		n.Digest, n.Explicit = fsverity.Digest{}, n.Explicit&^tree.ExplicitPayload
	case 1:
		n.Digest, n.Payload, n.Explicit = fsverity.Digest{}, "", tree.ExplicitDigest
	}
}

func (g generator) xattrs(n *tree.Node) {
	t := g.t
	names := []string{
		"security.selinux", "security.capability", "user.a", "user.", "user.overlay.whiteout", "user.overlay.opaque", "trusted.x",
		"trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.overlay.whiteouts", "trusted.overlay.metacopy",
		"system.posix_acl_access", "system.posix_acl_default", "system.posix_acl_accessX", "lustre.x", "odd", "user.=\n ",
		"user." + strings.Repeat("n", 250),
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5}).Draw(t, "xattrs") {
		value := rapid.OneOf(
			rapid.SampledFrom([]string{"", "label", "\x00", "=", "-", "long" + strings.Repeat("v", 300)}),
			rapid.StringMatching(`[a-z]{1,8}`),
		).Draw(t, "value")
		name := rapid.SampledFrom(names).Draw(t, "xattr")
		if g.most == plain && (strings.Contains(name, "user.overlay.") || name == nameOpaque) {
			continue
		}
		if strings.Contains(name, "overlay") && value != "" {
			value = "" // mkcomposefs's reckoning of sizes wraps around when it replaces a longer value by its own mark
		}
		n.SetXattr(name, []byte(value))
	}
	switch rapid.IntRange(0, 39).Draw(t, "many") {
	case 0:
		n.SetXattr("user.large", []byte(strings.Repeat("z", 20000)))
	case 1:
		for i := range 140 {
			n.SetXattr("user.many"+string(rune('A'+i%26))+strings.Repeat("i", i/26), nil)
		}
	}
}
