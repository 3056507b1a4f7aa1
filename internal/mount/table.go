package mount

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// ErrNotMounted says that a path is not the root of a mount.
var ErrNotMounted = errors.New("nothing is mounted there")

// Entry is one line of /proc/self/mountinfo, with escapes undone.
type Entry struct {
	ID     ID     `json:"id"` // Unique is set only in an Entry that At returns
	Parent int    `json:"parent"`
	Root   string `json:"root"`  // the directory of the file system that is the mount's root
	Point  string `json:"point"` // where it is mounted, seen from the process's root
	FSType string `json:"fstype"`
	Source string `json:"source"`
	// Options are the mount's own, Super those of the file system, both in the kernel's order.
	Options []string     `json:"options"`
	Super   []SuperValue `json:"super"`
	// Shared reports whether mounts and unmounts propagate to other places.
	Shared bool `json:"shared"`
	// Master is the peer group that mounts and unmounts come from; 0 where none does.
	Master int `json:"-"`
	// Group is the peer group that a shared mount is in; 0 where it isn't shared. Both numbers are the
	// machine's, the same in every mount namespace.
	Group int `json:"-"`
}

// SuperValue is an option of a file system as the kernel shows it; Value is empty for a flag.
type SuperValue struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

// Table is the process's mount table in the kernel's order.
type Table []Entry

// ReadTable reads the table of the calling thread.
func ReadTable() (Table, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return newTable(infos), nil
}

// ParseTable reads the text of a mountinfo file (proc_pid_mountinfo(5)).
func ParseTable(r io.Reader) (Table, error) {
	infos, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return newTable(infos), nil
}

func newTable(infos []*mountinfo.Info) Table {
	table := make(Table, 0, len(infos))
	for _, i := range infos {
		table = append(table, Entry{
			ID:      ID{Mount: i.ID, Major: uint32(i.Major), Minor: uint32(i.Minor)},
			Parent:  i.Parent,
			Root:    i.Root,
			Point:   i.Mountpoint,
			FSType:  i.FSType,
			Source:  i.Source,
			Options: strings.Split(i.Options, ","),
			Super:   superValues(i.VFSOptions),
			Shared:  group(i.Optional, "shared:") != 0,
			Group:   group(i.Optional, "shared:"),
			Master:  group(i.Optional, "master:"),
		})
	}
	return table
}

// group finds the number of a peer group among a line's optional fields, "shared:1 master:2".
func group(fields, tag string) int {
	for field := range strings.FieldsSeq(fields) {
		if number, ok := strings.CutPrefix(field, tag); ok {
			n, err := strconv.Atoi(number)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// superValues takes the options apart before it undoes escapes: the kernel writes a comma, a
// space, a backslash, and in overlay an equals sign, inside a value as \ooo (seq_show_option).
func superValues(options string) []SuperValue {
	var values []SuperValue
	for part := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(part, "=")
		values = append(values, SuperValue{Key: key, Value: unescape(value)})
	}
	return values
}

// unescape undoes \ooo, three octal digits for one byte.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Value returns the first option of that name and whether there is one.
func (e Entry) Value(key string) (string, bool) {
	for _, v := range e.Super {
		if v.Key == key {
			return v.Value, true
		}
	}
	return "", false
}

// Find returns the entry with that mountinfo ID.
func (t Table) Find(id int) (Entry, bool) {
	for _, e := range t {
		if e.ID.Mount == id {
			return e, true
		}
	}
	return Entry{}, false
}

// Children returns the mounts that sit on the mount with that ID, those on its root included.
func (t Table) Children(id int) Table {
	var children Table
	for _, e := range t {
		if e.Parent == id && e.ID.Mount != id {
			children = append(children, e)
		}
	}
	return children
}

// Stack returns the mounts that lie at path one upon the other, the lowest first, beginning with the
// one that sits on the mount with that ID. The last one is what is seen at path.
func (t Table) Stack(on int, path string) Table {
	var stack Table
	for len(stack) < len(t) { // whatever the table says, this ends
		i := slices.IndexFunc(t, func(e Entry) bool { return e.Parent == on && e.ID.Mount != on && e.Point == path })
		if i < 0 {
			break
		}
		stack = append(stack, t[i])
		on = t[i].ID.Mount
	}
	return stack
}

// At returns the topmost mount whose root is at path, or ErrNotMounted. The kernel says which one
// it is: the table's order doesn't, once mounts have been put beneath others.
func At(path string) (Entry, error) {
	f, err := openPath(path)
	if err != nil {
		return Entry{}, fmt.Errorf("look up the mount at %s: %w", path, err)
	}
	defer f.Close()
	id, isRoot, err := identify(f)
	if err != nil {
		return Entry{}, err
	}
	if !isRoot {
		return Entry{}, fmt.Errorf("look up the mount at %s: %w", path, ErrNotMounted)
	}
	table, err := ReadTable()
	if err != nil {
		return Entry{}, err
	}
	// f keeps the mount, and with it the ID, from going away between the two questions.
	e, ok := table.Find(id.Mount)
	if !ok {
		return Entry{}, fmt.Errorf("look up the mount at %s: mount %d is not in the table: %w", path, id.Mount, ErrNotMounted)
	}
	e.ID = id
	return e, nil
}
