package aftercare

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// ref is a file that a process uses.
type ref struct {
	// path is what /proc shows: as the file was found, while the mount that it lies in is in the tree, and from
	// that mount's own root once it was taken out of it.
	path string
	how  string
	// link is a name in /proc that leads to the very file.
	link string
	// dev is the file system that it lies in, where the process's mount table or its maps tell. attached says that this
	// table has a mount of it, and ours that one of those is a union of ours.
	dev            Device
	attached, ours bool
	gone           bool
}

// tables reads the mount tables of processes, each mount namespace's once.
type tables struct {
	proc  procfs
	known map[uint64]*space
}

// space is what one mount namespace shows.
type space struct {
	byID    map[int]mount.Entry
	devices map[Device]bool // whether it is a union of ours
}

func (t *tables) of(pid int) *space {
	var s unix.Stat_t
	if err := unix.Stat(t.proc.of(pid, "ns/mnt"), &s); err != nil {
		return nil // it has ended
	}
	if known, ok := t.known[s.Ino]; ok {
		return known
	}
	f, err := os.Open(t.proc.of(pid, "mountinfo"))
	if err != nil {
		return nil
	}
	defer f.Close()
	table, err := mount.ParseTable(f)
	if err != nil {
		return nil
	}
	here := &space{byID: make(map[int]mount.Entry), devices: make(map[Device]bool)}
	for _, e := range table {
		_, ours := mount.Ours(e)
		here.byID[e.ID.Mount] = e
		here.devices[deviceOf(e)] = here.devices[deviceOf(e)] || ours
	}
	t.known[s.Ino] = here
	return here
}

// refs returns the files and directories that a process uses: its program and what it has mapped, what it has open, its working
// directory. A process that ends meanwhile uses what was seen by then. wanted says by a path whether it is worth a closer look.
func (t *tables) refs(pid int, wanted func(path string) bool) []ref {
	here := t.of(pid)
	if here == nil {
		return nil
	}
	var list []ref
	program, _ := os.Readlink(t.proc.of(pid, "exe"))
	program, _ = strings.CutSuffix(program, deleted)
	for m := range t.proc.maps(pid) {
		if !wanted(m.path) {
			continue
		}
		r := ref{path: m.path, how: AsMapped, link: filepath.Join(t.proc.of(pid, "map_files"), spanName(m.span)), dev: m.dev, gone: m.gone}
		r.ours, r.attached = here.devices[m.dev]
		if m.path == program {
			r.how = AsProgram
			list = append([]ref{r}, list...)
			continue
		}
		list = append(list, r)
	}
	if r, ok := here.ref(t.proc.of(pid, "cwd"), AsDirectory, wanted); ok {
		list = append(list, r)
	}
	fds, err := os.ReadDir(t.proc.of(pid, "fd"))
	if err != nil {
		return list
	}
	for _, fd := range fds[:min(len(fds), openMax)] {
		if r, ok := here.ref(filepath.Join(t.proc.of(pid, "fd"), fd.Name()), AsOpen, wanted); ok {
			list = append(list, r)
		}
	}
	return list
}

// ref looks at where one of a process's links leads.
func (s *space) ref(link, how string, wanted func(string) bool) (ref, bool) {
	path, err := os.Readlink(link)
	if err != nil || !strings.HasPrefix(path, "/") {
		return ref{}, false
	}
	r := ref{how: how, link: link}
	if r.path, r.gone = strings.CutSuffix(path, deleted); !wanted(r.path) {
		return ref{}, false
	}
	// It follows the link to the very file, without looking anything up.
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID|unix.STATX_TYPE, &stat); err != nil || stat.Mask&unix.STATX_MNT_ID == 0 {
		return ref{}, false
	}
	if kind := stat.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return ref{}, false
	}
	if e, ok := s.byID[int(stat.Mnt_id)]; ok { //nolint:gosec // an ID of the mount table, an int there
		r.dev, r.attached = deviceOf(e), true
		r.ours = s.devices[r.dev]
	}
	return r, true
}

// spanName returns how map_files writes a range: without the zeros that maps fills up with.
func spanName(span string) string {
	from, to, _ := strings.Cut(span, "-")
	trim := func(s string) string {
		n, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			return s
		}
		return strconv.FormatUint(n, 16)
	}
	return trim(from) + "-" + trim(to)
}
