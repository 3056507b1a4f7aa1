package aftercare

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Device is a file system, as the kernel numbers it: that of a union, which has a number of its own.
type Device struct{ Major, Minor uint32 }

// procfs is where /proc is.
type procfs string

// processes yields the numbers of the processes that there are.
func (p procfs) processes() iter.Seq[int] {
	return func(yield func(int) bool) {
		dir, err := os.Open(string(p))
		if err != nil {
			return
		}
		defer dir.Close()
		names, _ := dir.Readdirnames(-1) // what could be read counts
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && !yield(pid) {
				return
			}
		}
	}
}

func (p procfs) of(pid int, name string) string {
	return filepath.Join(string(p), strconv.Itoa(pid), name)
}

// name returns a process's short name.
func (p procfs) name(pid int) string {
	text, _ := readSome(p.of(pid, "comm"), 256)
	return strings.TrimSpace(text)
}

// unit returns the unit of systemd that a process belongs to, by the cgroup that systemd has put it into: the first
// part of the path that is no slice (systemd's cg_path_get_unit).
func (p procfs) unit(pid int) string {
	text, err := readSome(p.of(pid, "cgroup"), 64<<10)
	if err != nil {
		return ""
	}
	return unitOfCgroup(text)
}

func unitOfCgroup(text string) string {
	for line := range strings.Lines(text) {
		hierarchy, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, more := strings.Cut(rest, ":")
		// The unified hierarchy, and systemd's own where there are others beside.
		if !ok || !more || hierarchy != "0" && controllers != "name=systemd" {
			continue
		}
		for part := range strings.SplitSeq(path, "/") {
			// A name that the kernel uses itself has an underscore in front.
			part = strings.TrimPrefix(part, "_")
			if part == "" || strings.HasSuffix(part, ".slice") {
				continue
			}
			if isUnit(part) {
				return part
			}
			break
		}
	}
	return ""
}

// mapped is one line of a process's maps that is of a file.
type mapped struct {
	span  string // its name in map_files
	dev   Device
	inode uint64
	path  string
	perms string
	gone  bool // its name was removed
}

// maps yields the files that a process has mapped, each once.
func (p procfs) maps(pid int) iter.Seq[mapped] {
	return func(yield func(mapped) bool) {
		f, err := os.Open(p.of(pid, "maps"))
		if err != nil {
			return
		}
		defer f.Close()
		type file struct {
			dev   Device
			inode uint64
		}
		seen := make(map[file]bool)
		lines := bufio.NewScanner(io.LimitReader(f, mapsMax))
		lines.Buffer(make([]byte, 0, 16<<10), 64<<10)
		for lines.Scan() {
			m, ok := parseMapped(lines.Text())
			if key := (file{m.dev, m.inode}); ok && !seen[key] {
				seen[key] = true
				if !yield(m) {
					return
				}
			}
		}
	}
}

// parseMapped reads a line of /proc/PID/maps (proc_pid_maps(5)): range, permissions, offset, device, inode, path.
func parseMapped(line string) (mapped, bool) {
	var m mapped
	var fields [5]string
	rest := line
	for i := range fields {
		var ok bool
		if fields[i], rest, ok = strings.Cut(strings.TrimLeft(rest, " "), " "); !ok {
			return m, false
		}
	}
	rest = strings.TrimLeft(rest, " ")
	inode, err := strconv.ParseUint(fields[4], 10, 64)
	if err != nil || inode == 0 || !strings.HasPrefix(rest, "/") {
		return m, false
	}
	if m.dev, err = parseDevice(fields[3]); err != nil {
		return m, false
	}
	m.span, m.perms, m.inode = fields[0], fields[1], inode
	m.path, m.gone = strings.CutSuffix(unescapeMaps(rest), deleted)
	return m, true
}

// deleted is what the kernel writes after the path of a file whose name was removed.
const deleted = " (deleted)"

// unescapeMaps undoes what the kernel writes for the end of a line in a path.
func unescapeMaps(s string) string { return strings.ReplaceAll(s, `\012`, "\n") }

// parseDevice reads "fd:01", hexadecimal.
func parseDevice(s string) (Device, error) {
	majorText, minorText, ok := strings.Cut(s, ":")
	major, err := strconv.ParseUint(majorText, 16, 32)
	minor, err2 := strconv.ParseUint(minorText, 16, 32)
	if !ok || err != nil || err2 != nil {
		return Device{}, fmt.Errorf("%.20q is no device", s)
	}
	return Device{uint32(major), uint32(minor)}, nil
}

func readSome(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return string(text), err
}
