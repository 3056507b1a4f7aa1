package delta

import (
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Kind is what an entry of the upper is.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	// File is a regular file with its content.
	File Kind = iota + 1
	// Metacopy is a regular file with the content of the image's file.
	Metacopy
	// Directory shows what the image has at its path together with what it holds.
	Directory
	// Opaque is a directory that shows what it holds, and nothing of the image.
	Opaque
	// Redirected is a directory that shows what the image has at another path together with what it holds.
	Redirected
	// Symlink is a symbolic link.
	Symlink
	// Device is a device, a FIFO or a socket.
	Device
	// Whiteout hides what the image has at its path.
	Whiteout
)

var kindNames = [...]string{"", "file", "metacopy", "directory", "opaque directory", "renamed directory", "symlink", "device", "whiteout"}

func (k Kind) String() string { return kindNames[min(int(k), len(kindNames)-1)] }

// MarshalText makes the JSON form.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k Kind) isDir() bool { return k == Directory || k == Opaque || k == Redirected }

// Entry is one name in the upper.
type Entry struct {
	// Path is absolute, as seen in the union.
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	// Mode is the permission bits with set-user-ID, set-group-ID and sticky.
	Mode uint16 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// Size is the length in bytes of a File; a Metacopy's content isn't in the upper.
	Size uint64 `json:"size,omitempty"`
	// Redirect says where a Redirected directory or a renamed Metacopy has its content in the image: an absolute
	// path, or the name of a sibling.
	Redirect string `json:"redirect,omitempty"`
	// Target is where a Symlink points.
	Target string `json:"target,omitempty"`
	// Digest is the one that a Metacopy's content must have; zero where the union doesn't check.
	Digest fsverity.Digest `json:"-"`

	// xattrs are a Directory's extended attributes by name, without overlayfs's marks.
	xattrs []tree.Xattr
	// copied says that it has the mark of one that was copied up.
	copied bool
	// hides says that it has the mark of an Opaque directory that was made in the place of an image's.
	hides bool
	// fifo says that a Device is a FIFO.
	fifo  bool
	links uint64
	// length and mtime are those of a Metacopy: the image's file's, unless somebody set the time.
	length uint64
	mtime  tree.Time
	// made is when a Metacopy came into the upper, or a directory was last renamed or marked, as far as can be told.
	made time.Time
}

// Totals count what an upper holds. A file with several names is counted for each, its bytes once.
type Totals struct {
	Files       int    `json:"files"`
	Metacopies  int    `json:"metacopies"`
	Directories int    `json:"directories"` // of all three kinds
	Opaque      int    `json:"opaque_directories"`
	Renamed     int    `json:"renamed_directories"`
	Symlinks    int    `json:"symlinks"`
	Devices     int    `json:"devices"`
	Whiteouts   int    `json:"whiteouts"`
	Bytes       uint64 `json:"bytes"`
}

// Changes is the number of names that a person would call changed: all but plain directories, which are there
// because of what is in them.
func (t Totals) Changes() int {
	return t.Files + t.Metacopies + t.Opaque + t.Renamed + t.Symlinks + t.Devices + t.Whiteouts
}

func (t *Totals) count(k Kind) {
	if k.isDir() {
		t.Directories++
	}
	switch k {
	case File:
		t.Files++
	case Metacopy:
		t.Metacopies++
	case Directory:
	case Opaque:
		t.Opaque++
	case Redirected:
		t.Renamed++
	case Symlink:
		t.Symlinks++
	case Device:
		t.Devices++
	case Whiteout:
		t.Whiteouts++
	}
}

// Trouble is a path with which something can't be done, and why.
type Trouble struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Delta is what an upper holds.
type Delta struct {
	// Entries are in byte order of their paths: a directory comes before what is in it. The upper's own root isn't
	// among them.
	Entries []Entry `json:"entries"`
	Totals  Totals  `json:"totals"`
	// Skipped are paths that weren't looked at, or below which nothing was: damaged marks, too deep.
	Skipped []Trouble `json:"skipped,omitempty"`
}

// Entry returns the entry of an absolute path.
func (d *Delta) Entry(path string) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(d.Entries, path, func(e Entry, path string) int { return strings.Compare(e.Path, path) })
	if !ok {
		return Entry{}, false
	}
	return d.Entries[i], true
}

// FIFOs reports whether there is a FIFO.
func (d *Delta) FIFOs() bool {
	return slices.ContainsFunc(d.Entries, func(e Entry) bool { return e.fifo })
}

// Changed reports whether a path was changed here: it has an entry of its own, or a directory above it hides or
// replaces what the image has there.
func (d *Delta) Changed(path string) bool {
	if _, ok := d.Entry(path); ok {
		return true
	}
	for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
		if e, ok := d.Entry(path[:i]); ok {
			return e.Kind != Directory
		}
	}
	return false
}

// Without returns the delta without what lies in the given top-level directories: those that something else is mounted over, so
// that nobody sees what the upper has there. The totals stay those of the whole.
func (d *Delta) Without(tops ...string) *Delta {
	hidden := func(path string) bool {
		top, _, _ := strings.Cut(below(path), "/")
		return slices.Contains(tops, top)
	}
	return &Delta{
		Entries: slices.DeleteFunc(slices.Clone(d.Entries), func(e Entry) bool { return hidden(e.Path) }),
		Totals:  d.Totals,
		Skipped: slices.DeleteFunc(slices.Clone(d.Skipped), func(t Trouble) bool { return hidden(t.Path) }),
	}
}
