package operatorcli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// imageEntry is a name in an image, as `image ls --output json` prints it.
type imageEntry struct {
	Path  string    `json:"path"`
	Type  string    `json:"type"`
	Mode  string    `json:"mode"`
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Size  uint64    `json:"size"`
	Mtime time.Time `json:"mtime"`
	// Object is the path below the object store of a file whose content isn't in the image.
	Object string `json:"object,omitempty"`
	Target string `json:"target,omitempty"`
	// Link is the first name of a file that this is a further name of.
	Link   string   `json:"link,omitempty"`
	Device string   `json:"device,omitempty"`
	Xattrs []string `json:"xattrs,omitempty"`

	kind tree.Kind
	perm uint16
}

// imageListCommand returns `powernode image ls`.
func imageListCommand(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:     "ls IMAGE [PATH]",
		Short:   "List what an image holds",
		Long:    "Lists what an image holds, below PATH if one is given. IMAGE may be - for standard input.",
		Example: "  powernode image ls root.cfs /etc",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := readImage(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			below := "/"
			if len(args) > 1 {
				below = args[1]
			}
			top := root.Lookup(below)
			if top == nil {
				return fault.New(fault.Refuse, fault.Input, "name a path that `image ls` shows", "list %s: the image has no %.200q", args[0], below)
			}
			entries := imageEntries(cleanBelow(below), top)
			return app.Print(entries, func(w io.Writer) error { return printEntries(w, entries) })
		},
	}
}

// cleanBelow returns a path without slashes at its ends.
func cleanBelow(path string) string {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return path
}

// imageEntries lists a node and everything below it.
func imageEntries(prefix string, top *tree.Node) []imageEntry {
	first := make(map[*tree.Node]string)
	var list []imageEntry
	for path, n := range top.Walk() {
		switch {
		case prefix != "" && path != "":
			path = "/" + prefix + "/" + path
		default:
			path = "/" + prefix + path
		}
		e := imageEntry{
			Path: path, Type: kindNames[n.Kind], Mode: fmt.Sprintf("%04o", n.Mode), UID: n.UID, GID: n.GID, Size: n.Size,
			Mtime: time.Unix(n.Mtime.Sec, int64(n.Mtime.Nsec)).UTC(), Target: n.Target, Link: first[n], kind: n.Kind, perm: n.Mode,
		}
		switch n.Kind {
		case tree.Directory:
		case tree.CharDevice, tree.BlockDevice:
			e.Device = deviceNumber(n.Rdev)
		case tree.Regular:
			if n.Size > 0 && n.Inline == nil {
				e.Object = n.PayloadPath()
			}
		case tree.Symlink:
			e.Size = uint64(len(n.Target))
		}
		for _, x := range n.Xattrs {
			e.Xattrs = append(e.Xattrs, x.Name)
		}
		if e.Link == "" {
			first[n] = path
		}
		list = append(list, e)
	}
	return list
}

var kindNames = map[tree.Kind]string{
	tree.Directory: "directory", tree.Regular: "file", tree.Symlink: "symlink", tree.CharDevice: "character device",
	tree.BlockDevice: "block device", tree.FIFO: "FIFO", tree.Socket: "socket",
}

// deviceNumber splits Linux's 32-bit device number into major and minor.
func deviceNumber(rdev uint32) string {
	major := rdev >> 8 & 0xfff
	minor := rdev&0xff | rdev>>12&0xfff00
	return strconv.FormatUint(uint64(major), 10) + "," + strconv.FormatUint(uint64(minor), 10)
}

// printEntries prints one line for each entry, much as ls -l does.
func printEntries(w io.Writer, list []imageEntry) error {
	out := bufio.NewWriter(w)
	owners, sizes := 0, 0
	for i := range list {
		owners, sizes = max(owners, len(list[i].owner())), max(sizes, len(list[i].extent()))
	}
	for i := range list {
		e := &list[i]
		line := fmt.Sprintf("%s %-*s %*s %s %s", e.letters(), owners, e.owner(), sizes, e.extent(), e.Mtime.Format("2006-01-02 15:04:05"), e.Path)
		switch {
		case e.Link != "":
			line += " = " + e.Link
		case e.Target != "":
			line += " -> " + e.Target
		case e.Object != "":
			line += " @ " + e.Object
		}
		fmt.Fprintln(out, cli.Printable(line))
	}
	return out.Flush()
}

func (e *imageEntry) owner() string { return fmt.Sprintf("%d:%d", e.UID, e.GID) }

// extent is the size, or what a device has instead.
func (e *imageEntry) extent() string {
	if e.Device != "" {
		return e.Device
	}
	return strconv.FormatUint(e.Size, 10)
}

// letters returns type and permissions as ls prints them.
func (e *imageEntry) letters() string {
	b := []byte(os.FileMode(e.perm & 0o777).String())
	b[0] = map[tree.Kind]byte{
		tree.Directory: 'd', tree.Regular: '-', tree.Symlink: 'l', tree.CharDevice: 'c', tree.BlockDevice: 'b', tree.FIFO: 'p', tree.Socket: 's',
	}[e.kind]
	for _, special := range []struct {
		bit  uint16
		at   int
		with byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if e.perm&special.bit == 0 {
			continue
		}
		if b[special.at] == '-' {
			special.with -= 'a' - 'A'
		}
		b[special.at] = special.with
	}
	return string(b)
}
