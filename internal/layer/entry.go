package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"strconv"

	"github.com/powernode/powernode-agent/internal/tree"
)

// op is what an entry does to the tree.
type op uint8

const (
	opNode     op = iota + 1 // put node at path
	opLink                   // put the node at target at path, too
	opWhiteout               // hide path in the layers below
	opOpaque                 // hide every entry of the directory path in the layers below
)

// change is one entry of a layer, checked.
type change struct {
	op     op
	path   string
	node   *tree.Node
	target string
}

// metadata is about what the change holds in memory, in bytes.
func (c *change) metadata() int64 {
	n := len(c.path) + len(c.target)
	if c.node != nil {
		n += len(c.node.Target) + len(c.node.Inline)
		for _, x := range c.node.Xattrs {
			n += len(x.Name) + len(x.Value)
		}
	}
	return int64(n)
}

// readHeader makes a change of a tar header. The node of a regular file lacks its contents.
// reason is "" unless the entry must be refused.
func readHeader(hdr *tar.Header, devices bool) (c change, reason string) {
	path, slash, reason := cleanName(hdr.Name)
	if reason != "" {
		return change{}, reason
	}
	if hdr.Typeflag != tar.TypeDir && (path == "" || slash) {
		return change{}, "its name is a directory's, but it is none"
	}
	if len(path) > pathMax {
		return change{}, "its name is longer than 4095 bytes"
	}
	if c, ok, reason := readWhiteout(hdr, path); ok || reason != "" {
		return c, reason
	}
	if hdr.Typeflag == tar.TypeLink {
		return readLink(hdr, path)
	}
	node, reason := readNode(hdr, devices)
	return change{op: opNode, path: path, node: node}, reason
}

func readWhiteout(hdr *tar.Header, path string) (c change, ok bool, reason string) {
	hidden, opaque, reason := whiteout(path)
	if reason != "" || (hidden == "" && !opaque) {
		return change{}, false, reason
	}
	if hdr.Typeflag != tar.TypeReg || hdr.Size != 0 {
		return change{}, false, "a whiteout must be an empty regular file"
	}
	dir, _ := split(path)
	if opaque {
		return change{op: opOpaque, path: dir}, true, ""
	}
	if dir != "" {
		hidden = dir + "/" + hidden
	}
	return change{op: opWhiteout, path: hidden}, true, ""
}

func readLink(hdr *tar.Header, path string) (c change, reason string) {
	target, slash, reason := cleanName(hdr.Linkname)
	switch {
	case reason != "":
		return change{}, "it is a hard link, and of the target " + quoteShort(hdr.Linkname) + ", " + reason
	case target == "" || slash:
		return change{}, "it is a hard link to a directory, " + quoteShort(hdr.Linkname)
	case target == path:
		return change{}, "it is a hard link to itself"
	}
	return change{op: opLink, path: path, target: target}, ""
}

func readNode(hdr *tar.Header, devices bool) (n *tree.Node, reason string) {
	n = &tree.Node{Mode: uint16(hdr.Mode & 0o7777)}
	n.Mtime = tree.Time{Sec: hdr.ModTime.Unix(), Nsec: uint32(hdr.ModTime.Nanosecond())}
	var okUID, okGID bool
	n.UID, okUID = owner(hdr.Uid)
	n.GID, okGID = owner(hdr.Gid)
	switch {
	case hdr.Mode < 0:
		return nil, "its mode is negative"
	case !okUID:
		return nil, "its owner " + strconv.Itoa(hdr.Uid) + " is no user ID"
	case !okGID:
		return nil, "its group " + strconv.Itoa(hdr.Gid) + " is no group ID"
	}
	if n.Xattrs, reason = xattrs(hdr.PAXRecords); reason != "" {
		return nil, reason
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		n.Kind = tree.Regular
		if hdr.Size < 0 {
			return nil, "its size is negative"
		}
		n.Size = uint64(hdr.Size)
	case tar.TypeDir:
		n.Kind = tree.Directory
	case tar.TypeFifo:
		n.Kind = tree.FIFO
	case tar.TypeSymlink:
		n.Kind, n.Target = tree.Symlink, hdr.Linkname
		if n.Target == "" || len(n.Target) > pathMax {
			return nil, fmt.Sprintf("a symlink's target of %d bytes is impossible", len(n.Target))
		}
	case tar.TypeChar, tar.TypeBlock:
		return readDevice(n, hdr, devices)
	case tar.TypeGNUSparse:
		return nil, "it is a sparse file; write the layer without tar's --sparse"
	default:
		return nil, fmt.Sprintf("it is of tar's type %q, which has no place in a layer", hdr.Typeflag)
	}
	return n, ""
}

func readDevice(n *tree.Node, hdr *tar.Header, devices bool) (_ *tree.Node, reason string) {
	major, minor := hdr.Devmajor, hdr.Devminor
	switch {
	case major < 0 || major > deviceMajorMax || minor < 0 || minor > deviceMinorMax:
		return nil, fmt.Sprintf("its device number %d:%d is impossible", major, minor)
	case hdr.Typeflag == tar.TypeChar && major == 0 && minor == 0:
		return nil, "it is a character device 0:0, overlayfs's whiteout"
	case !devices:
		return nil, fmt.Sprintf("it is a device node (%d:%d), which a module can't carry", major, minor)
	}
	n.Kind = tree.BlockDevice
	if hdr.Typeflag == tar.TypeChar {
		n.Kind = tree.CharDevice
	}
	n.Rdev = rdev(uint32(major), uint32(minor))
	return n, ""
}

// rdev encodes a device number as the kernel's new_encode_dev does.
func rdev(major, minor uint32) uint32 { return minor&0xff | major<<8 | (minor&^0xff)<<12 }

// deviceNumber undoes rdev.
func deviceNumber(rdev uint32) (major, minor uint32) {
	return rdev >> 8 & 0xfff, rdev&0xff | rdev>>12&^0xff
}

// owner checks a user or group ID; 2^32-1 is (uid_t)-1, which no file can have.
func owner(id int) (uint32, bool) {
	return uint32(id), id >= 0 && int64(id) < math.MaxUint32
}

// quoteShort quotes a name from outside for an error text.
func quoteShort(s string) string {
	if len(s) > 256 {
		return strconv.Quote(s[:256]) + "…"
	}
	return strconv.Quote(s)
}
